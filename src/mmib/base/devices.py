"""Checks of compute devices."""

from __future__ import annotations

import torch

from mmib.schema import ConfigError

# CPU capabilities for native bf16 matrix products.
BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def usable_device(name: str) -> torch.device:
    """Return the device of a name, `cpu`, `cuda`, `cuda:1`, …, after creating a tensor on it.

    Raises:
        ConfigError: If the machine has no such device, or the name is unknown.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--device {name} cannot be used: {first}") from error
    return device


def check_bf16(device: torch.device) -> None:
    """Check that a CPU supports bf16 natively, as emulation is slower than float32.

    Raises:
        ConfigError: If it does not, or PyTorch is too old to tell.
    """
    if not has_bf16(device):
        raise ConfigError("--precision bf16: this processor does not compute in bf16; choose float32")


def has_bf16(device: torch.device) -> bool:
    """Whether a device supports bf16 natively; False for a CPU if PyTorch is too old to tell."""
    if device.type != "cpu":
        return True
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in BF16)
