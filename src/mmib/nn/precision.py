"""Where half precision must not reach (KL terms, contrastive logits and log-sum-exps), and which kernels suit it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def autocast_off(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which autocast does not lower the precision of operations on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged where it is float64 already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def attention_for_training(device: torch.device) -> AbstractContextManager[None]:
    """A context in which attention is computed by the kernels that suit a training step on a device.

    On a CPU under autocast the fused kernel's backward pass takes three times as long as the plain one's
    (experiments/benchmarks/attention.py); in float32, in evaluation and on GPUs it is faster.
    """
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
