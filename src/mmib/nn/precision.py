"""Where half precision must not reach: KL terms, contrastive logits and log-sum-exps."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def autocast_off(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which autocast does not lower the precision of operations on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged where it is float64 already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
