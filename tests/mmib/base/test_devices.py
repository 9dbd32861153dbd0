"""An unavailable device is a one-sentence error that names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmib.base.devices import usable_device
from mmib.schema import ConfigError


def test_the_cpu_is_available() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", None])
def test_unknown_devices_are_refused_with_the_usual_names(name: Any) -> None:
    with pytest.raises(ConfigError, match=f"^--device {name} is unknown: choose cpu, cuda, or "):
        usable_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "mps"])
def test_unavailable_devices_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^--device {name} cannot be used: [^\n]{{1,250}}; choose another, such as cpu$"
    ):
        usable_device(name)
