"""Compare losses and gradients of a training step with those in float64 on the CPU, from the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.benchmarks.measure import tf32
from experiments.benchmarks.recipe import Setup, compute, running_as
from experiments.benchmarks.scaling import OURS, random_batch
from mmib.modules import ExtractionModule
from mmib.schema import PostBatch
from mmib.tasks.mner import MNERBatch

CPU = torch.device("cpu")
SHORTEST = 5  # word pieces of the shortest post, including markers


class Step(NamedTuple):
    """The loss of a batch, and its gradient with respect to each trained parameter."""

    loss: float
    gradients: dict[str, Tensor]


class Difference(NamedTuple):
    """Relative difference of a step from a reference.

    Attributes:
        loss: difference of the loss.
        gradients: norm of the difference of all gradients.
        parameter: the parameter whose gradient differs most, not counting negligible gradients.
        worst: difference of that gradient.
    """

    loss: float
    gradients: float
    parameter: str
    worst: float


def ragged_batch(module: ExtractionModule, rows: int, pieces: int, regions: int) -> PostBatch:
    """Generate a batch on the CPU: rows of different lengths and numbers of regions, the first without an image."""
    batch = random_batch(module, rows, pieces, regions).to(CPU)
    lengths = torch.linspace(SHORTEST, pieces, rows).long()
    seen = torch.arange(regions) < torch.arange(rows)[:, None] % (regions + 1)
    batch = replace(batch, text_mask=torch.arange(pieces) < lengths[:, None], region_mask=seen)
    if isinstance(batch, MNERBatch):
        batch = replace(batch, word_mask=batch.positions < lengths[:, None])
    return batch


def step(module: ExtractionModule, batch: PostBatch, setup: Setup = OURS, products_in_tf32: bool = False) -> Step:
    """Run a step without dropout and noise, on the module's device."""
    module.eval().zero_grad()
    with tf32(products_in_tf32), running_as(module, setup):
        loss = compute(module, batch.to(module.device), setup).loss
        loss.backward()
    trained = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return Step(loss.item(), {name: gradient.to(CPU, torch.float64) for name, gradient in trained.items()})


def reference_step(module: ExtractionModule, batch: PostBatch) -> Step:
    """Run the step on the CPU in float64."""
    return step(copy.deepcopy(module).to(CPU).double(), batch)


def difference(found: Step, reference: Step) -> Difference:
    """Compute the difference of a step from the reference; NaN if a value of the step is NaN."""
    whole = _norm(reference.gradients.values())
    apart = {name: (found.gradients[name] - gradient).norm() for name, gradient in reference.gradients.items()}
    # Gradients that are zero up to rounding have no meaningful relative error.
    shares = {
        name: float(apart[name] / gradient.norm())
        for name, gradient in reference.gradients.items()
        if gradient.norm() > 1e-6 * whole
    }
    worst = max(shares, key=lambda name: shares[name])
    loss = abs(found.loss - reference.loss) / abs(reference.loss)
    return Difference(loss, _norm(apart.values()) / whole, worst, shares[worst])


def _norm(values: Iterable[Tensor]) -> float:
    return float(torch.stack([value.norm() for value in values]).norm())
