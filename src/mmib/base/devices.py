"""Devices that can be computed on."""

from __future__ import annotations

import torch

from mmib.schema import ConfigError


def usable_device(name: str) -> torch.device:
    """The device of a name, `cpu`, `cuda`, `cuda:1`, …, once a tensor has been put on it.

    Raises:
        ConfigError: the machine has no such device, or the name is unknown.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--device {name} cannot be used: {first}") from error
    return device
