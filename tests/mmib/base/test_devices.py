"""An unavailable device is a one-sentence error that names it."""

from __future__ import annotations

import pytest
import torch

from mmib.base.devices import usable_device
from mmib.schema import ConfigError


def test_the_cpu_is_available() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nowhere", "cuda:99"])
def test_unavailable_devices_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--device {name} cannot be used: [^\n]+$"):
        usable_device(name)
