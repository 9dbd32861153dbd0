"""The compared implementations compute the same."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.crf import OWN, Posts, difference, gradients, implementations, installed, shape


@pytest.mark.parametrize("lengths", [(6, 6), (6, 2)])
def test_all_implementations_agree_on_loss_gradient_and_best_path(lengths: tuple[int, int]) -> None:
    mask = torch.arange(6)[None, :] < torch.tensor(lengths)[:, None]
    posts = Posts(torch.randn(2, 6, 9, dtype=torch.float64), torch.randint(9, (2, 6)), mask)
    ways = implementations(torch.device("cpu"))
    values = {name: gradients(way._replace(module=way.module.double()), posts) for name, way in ways.items()}
    assert len(values) == 3 + installed("torch_struct")
    assert all(difference(values[OWN], value) < 1e-10 for value in values.values())
    paths = [row[:length] for row, length in zip(ways[OWN].decode(posts).tolist(), lengths, strict=True)]
    assert ways["pytorch-crf"].decode(posts) == paths
    for name in values.keys() - {OWN, "pytorch-crf"}:
        assert [row[:n] for row, n in zip(ways[name].decode(posts).tolist(), lengths, strict=True)] == paths


def test_differences_are_relative_to_the_largest_value() -> None:
    one, other = [torch.tensor([1.0, -8.0])], [torch.tensor([1.0, -10.0])]
    assert difference(one, other) == pytest.approx(0.2)


def test_shapes_are_parsed() -> None:
    assert shape("64x24") == (64, 24)
    with pytest.raises(ValueError, match="not enough values"):
        shape("64")
