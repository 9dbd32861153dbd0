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
    except (RuntimeError, TypeError) as error:  # with a list of everything that PyTorch might be built for
        raise ConfigError(
            f"--device {name} is unknown: choose cpu, cuda, or one of several GPUs as in cuda:1"
        ) from error
    try:
        torch.ones(1, device=device).item()  # a meta tensor has no value
    # NotImplementedError, a RuntimeError, explains at length which parts of PyTorch are missing.
    except (RuntimeError, AssertionError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = "this PyTorch does not compute on it" if isinstance(error, NotImplementedError) else lines[0]
        raise ConfigError(f"--device {name} cannot be used: {reason}; choose another, such as cpu") from error
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
