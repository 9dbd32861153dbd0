"""Sums and rows of all ranks, with a single rank; several ranks are tested in separate processes."""

from __future__ import annotations

import torch

from mmib.base.distributed import gather_objects, global_rows, global_sum, global_sums, rank, world_size


def test_one_process_is_the_only_rank() -> None:
    assert (world_size(), rank()) == (1, 0)
    assert gather_objects({"a": 1}) == [{"a": 1}]


def test_sums_and_rows_of_a_single_rank_are_unchanged() -> None:
    tensor = torch.randn(3, 2, requires_grad=True)
    assert torch.equal(global_sum(tensor), tensor)
    assert torch.equal(global_rows(tensor), tensor)


def test_sums_keep_names_and_shapes_and_are_exact() -> None:
    values = {
        "count": torch.tensor(2**24 + 1),
        "rows": torch.randn(3, 2),
        "flag": torch.tensor(True),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "nothing": torch.zeros(0),
    }
    sums = global_sums(values)
    assert list(sums) == list(values)
    for name, value in values.items():
        assert sums[name].dtype == torch.float64
        assert torch.equal(sums[name], value.double()), name


def test_gradients_of_a_sum_reach_the_value_of_the_same_name() -> None:
    values = {name: torch.randn(2, requires_grad=True) for name in ("first", "second")}
    sums = global_sums(values)
    (sums["first"].sum() * 2 + sums["second"].sum() * 3).backward()
    assert values["first"].grad is not None
    assert values["second"].grad is not None
    assert values["first"].grad.tolist() == [2.0, 2.0]
    assert values["second"].grad.tolist() == [3.0, 3.0]
