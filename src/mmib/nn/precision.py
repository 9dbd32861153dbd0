"""Precision: keeps KL terms, contrastive logits and log-sum-exps out of half precision, and selects kernels for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def autocast_off(tensor: Tensor) -> AbstractContextManager[None]:
    """Return a context that disables autocast on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or unchanged if it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def attention_for_training(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that selects the fastest attention kernels for a training step on a device.

    On a CPU under autocast the fused kernel's backward pass takes three times as long as the plain one's
    (experiments/benchmarks/attention.py); in float32, in evaluation and on GPUs it is faster.
    """
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
