"""Sums and rows over all ranks of a job, with gradients for DDP.

Every rank computes the same loss from the same sums, but its gradient only reaches the part of the sum that the rank
contributed. DDP averages the ranks' gradients, so each is multiplied here by the number of ranks, and the average is
the gradient of the global batch's loss.

Gathered rows may be used differently by each rank, so that in the backward pass the gradients of a row are summed over
all ranks. Values computed from gathered rows must enter the loss through a global sum.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Return the number of ranks; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this rank, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def global_sum(tensor: Tensor) -> Tensor:
    """Return the sum over ranks of a tensor with the same shape on each. Every rank must call this."""
    return tensor if world_size() == 1 else _GlobalSum.apply(tensor)


def global_sums(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums over ranks of several tensors, `widened` and in one collective. Every rank must call this."""
    flat = torch.cat([widened(value).flatten() for value in values.values()])
    parts = global_sum(flat).split([value.numel() for value in values.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}


def widened(tensor: Tensor) -> Tensor:
    """Convert a tensor to float64, for sums over many values; to float32 on Apple GPUs, which have no float64."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def on_any_rank(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set on any rank. Every rank must call this."""
    return flag if world_size() == 1 else bool(global_sum(torch.tensor(float(flag), device=device)) > 0)


def global_rows(tensor: Tensor) -> Tensor:
    """Gather the rows (B, ...) of all N ranks, of the same shape on each, to (N * B, ...), in order of rank.

    Every rank must call this.
    """
    return tensor if world_size() == 1 else _GlobalRows.apply(tensor)


def gather_objects(value: T) -> list[T]:
    """Return the value of each rank, in order of rank. Every rank must call this."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


class _GlobalSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * world_size()


class _GlobalRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        rows = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(rows, tensor.contiguous())
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        summed = gradient.new_empty(ctx.rows, *gradient.shape[1:])
        dist.reduce_scatter_tensor(summed, gradient.contiguous())
        return summed
