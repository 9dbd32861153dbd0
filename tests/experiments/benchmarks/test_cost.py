"""The cost model: its formulas match PyTorch's counts, and its bounds behave as expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.cost import (
    Bytes,
    Hardware,
    Shapes,
    image_cost,
    measure_bandwidth,
    measure_peak,
    ranks_seconds,
    row_cost,
    step_bytes,
    step_seconds,
    total,
)

BATCH, LENGTH, REGIONS = 3, 11, 2
CPU = torch.device("cpu")


def shapes_of(module: Any, batch: Any) -> Shapes:
    config = module.text_encoder.encoder.config
    return Shapes(
        task=module.task,
        length=batch.input_ids.shape[1],
        regions=batch.region_mask.shape[1],
        queries=batch.positions.shape[1],
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        hidden=config.intermediate_size,
        image_width=module.image_encoder.dim,
        batch=len(batch),
    )


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_formulas_match_the_counts_of_pytorch(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], task: str
) -> None:
    module = make_module().train()
    batch = make_batch(
        lengths=[LENGTH] * BATCH, regions=[REGIONS] * BATCH, unseen=[0] * BATCH if task == "mner" else None
    )
    with FlopCounterMode(display=False) as forward, sdpa_kernel(SDPBackend.MATH):
        loss = module.objective(batch).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counted = {name: sum(counts.values()) for name, counts in forward.get_flop_counts().items()}
    layers = "MultimodalIB.text_encoder.encoder.encoder"
    projections = counted["MultimodalIB.image_projection"] + counted["MultimodalIB.box_projection"]
    expected = {
        "text encoder": counted[layers],
        "text bottleneck": counted["MultimodalIB.text_posterior"],
        "image bottleneck": counted["MultimodalIB.image_posterior"] + projections,
        "alignment": counted["MultimodalIB.alignment"],
        "fusion": counted["MultimodalIB.fusion"],
        "head": counted["RelationHead" if task == "mre" else "Sequential"],
    }
    parts = row_cost(shapes_of(module, batch))
    assert {name: round(BATCH * part.forward) for name, part in parts.items()} == expected
    # In addition, forward computes BERT's unused pooler and sums that are only logged.
    more = forward.get_total_flops() - sum(expected.values())
    assert more < 0.003 * forward.get_total_flops()
    training = BATCH * total(list(parts.values())).training
    assert round(training) == forward.get_total_flops() - more + backward.get_total_flops()


def test_a_resnet_50_costs_four_billion_multiplications() -> None:
    flops, width = image_cost("resnet50")
    assert flops == pytest.approx(2 * 4.09e9, rel=0.01)
    assert width == 2048


def test_adamw_moves_28_bytes_per_parameter_for_any_batch_size() -> None:
    shapes = [Shapes("mre", 30, 4, 2, 768, 12, 3072, 2048, batch) for batch in (8, 16)]
    small, large = (step_bytes(shape, 1000) for shape in shapes)
    assert small.optimizer == large.optimizer == 28_000
    assert large.activations == 2 * small.activations
    assert large.features == 16 * 4 * 2048 * 2


def test_more_ranks_never_exceed_linear_speed_up_and_are_bounded_by_the_gradient_exchange() -> None:
    moved, hardware, parameters = Bytes(12e6, 28e6, 1e9, 1e6), Hardware(1e12, 1e11, 1e9), 1_000_000
    one = step_seconds(1e12, moved, hardware.peak, hardware.bandwidth)
    seconds = [ranks_seconds(1e12, moved, ranks, parameters, hardware) for ranks in (1, 2, 8, 64, 10**6)]
    assert seconds[0] == pytest.approx(one)
    for ranks, duration in zip((1, 2, 8, 64), seconds, strict=False):
        assert duration >= one / ranks
    # What remains: AdamW, and 8 bytes per parameter over the link.
    assert seconds[-1] == pytest.approx(28e6 / 1e11 + 8e6 / 1e9, rel=0.05)


def test_ceilings_are_rates() -> None:
    assert 1e8 < measure_peak(torch.float32, CPU, size=256, repeats=2) < 1e15
    assert 1e7 < measure_bandwidth(CPU, values=2**20, repeats=2) < 1e13
