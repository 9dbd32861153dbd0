"""A device that is not there is one sentence that names it."""

from __future__ import annotations

import pytest
import torch

from mmib.base.devices import usable_device
from mmib.schema import ConfigError


def test_the_processor_is_there() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nowhere", "cuda:99"])
def test_what_is_not_there_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--device {name} cannot be used: [^\n]+$"):
        usable_device(name)
