"""Losses and gradients of a training step, against those that the CPU computes in float64 from the same weights."""

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
SHORTEST = 5  # word pieces of a post, markers included


class Step(NamedTuple):
    """The loss of a batch, and its gradient by each parameter that is trained."""

    loss: float
    gradients: dict[str, Tensor]


class Difference(NamedTuple):
    """How far a step is from another, relative to the latter.

    Attributes:
        loss: of the loss.
        gradients: norm of the difference of all gradients.
        parameter: the parameter whose gradient differs most of those that weigh anything.
        worst: by how much.
    """

    loss: float
    gradients: float
    parameter: str
    worst: float


def ragged_batch(module: ExtractionModule, rows: int, pieces: int, regions: int) -> PostBatch:
    """A batch of rows of different lengths and numbers of regions, the first without an image; on the CPU."""
    batch = random_batch(module, rows, pieces, regions).to(CPU)
    lengths = torch.linspace(SHORTEST, pieces, rows).long()
    seen = torch.arange(regions) < torch.arange(rows)[:, None] % (regions + 1)
    batch = replace(batch, text_mask=torch.arange(pieces) < lengths[:, None], region_mask=seen)
    if isinstance(batch, MNERBatch):
        batch = replace(batch, word_mask=batch.positions < lengths[:, None])
    return batch


def step(module: ExtractionModule, batch: PostBatch, setup: Setup = OURS, products_in_tf32: bool = False) -> Step:
    """A step without dropout and noise, on the module's device."""
    module.eval().zero_grad()
    with tf32(products_in_tf32), running_as(module, setup):
        loss = compute(module, batch.to(module.device), setup).loss
        loss.backward()
    trained = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return Step(loss.item(), {name: gradient.to(CPU, torch.float64) for name, gradient in trained.items()})


def reference_step(module: ExtractionModule, batch: PostBatch) -> Step:
    """The same by the CPU in float64."""
    return step(copy.deepcopy(module).to(CPU).double(), batch)


def difference(found: Step, reference: Step) -> Difference:
    """Of a step from the reference; not a number where one of its values is none."""
    whole = _norm(reference.gradients.values())
    apart = {name: (found.gradients[name] - gradient).norm() for name, gradient in reference.gradients.items()}
    # Gradients that are zero but for rounding have no relative error.
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
