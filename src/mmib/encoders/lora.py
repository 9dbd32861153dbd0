"""Low-rank adaptation (LoRA, Hu et al. 2022) of a text encoder, with the package peft."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from mmib.schema import ConfigError


@dataclass(frozen=True)
class LoraSettings:
    """LoRA: a linear layer W x becomes W x + alpha / r * B A x, and only A (r, D_in) and B (D_out, r) are trained.

    Attributes:
        r: rank of the matrices.
        alpha: scale of the update, divided by the rank.
        targets: linear layers to adapt: a list of names, each the end of a dotted name, such as `query` or
            `attention.output.dense`; or a regular expression, searched in the full dotted names. None adapts all
            linear layers.
    """

    r: int = 8
    alpha: float = 16.0
    targets: list[str] | str | None = None

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"lora.r is {self.r}: a rank is 1 or more")
        if self.alpha <= 0:
            raise ConfigError(f"lora.alpha is {self.alpha}: the scale must be above 0")
        if self.targets is not None and not self.targets:
            raise ConfigError("lora.targets is empty: name linear layers, or leave it out, which adapts all of them")
        if isinstance(self.targets, str):
            try:
                re.compile(self.targets)
            except re.error as error:
                raise ConfigError(f"lora.targets {self.targets!r} is no regular expression: {error}") from error


def add_lora(encoder: nn.Module, settings: LoraSettings) -> None:
    """Add LoRA matrices in place, and freeze the encoder's other parameters.

    Layers that are already frozen are not adapted.

    Raises:
        ConfigError: If peft is not installed, or a target matches no layer that can be adapted.
    """
    names = _chosen(encoder, settings.targets)
    peft: Any = _peft()
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        target_modules="|".join(map(re.escape, names)),  # full names, as peft matches the names of a list by endings
        fan_in_fan_out=isinstance(encoder.get_submodule(names[0]), Conv1D),
    )
    peft.inject_adapter_in_model(config, encoder)


def merge_lora(encoder: nn.Module) -> None:
    """Merge the LoRA matrices into the weights that they adapt, in place, and restore the original layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415 - takes seconds

    for name, module in list(encoder.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            encoder.set_submodule(name, module.get_base_layer())
    del encoder.peft_config


def _chosen(encoder: nn.Module, targets: list[str] | str | None) -> list[str]:
    """Return the dotted names of the layers to adapt.

    Raises:
        ConfigError: If a target matches none.
    """
    linear = {name: layer for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    trained = [name for name, layer in linear.items() if layer.weight.requires_grad]
    if not trained:
        raise ConfigError("lora has no linear layer to adapt: trainable_layers leaves none of the encoder's to train")
    if targets is None:
        return trained
    patterns = {targets: targets} if isinstance(targets, str) else {end: rf"(^|\.){re.escape(end)}$" for end in targets}
    for target, pattern in patterns.items():
        if not any(re.search(pattern, name) for name in trained):
            endings = ", ".join(sorted({name.rpartition(".")[2] for name in trained}))
            raise ConfigError(
                f"the LoRA target {target!r} matches no linear layer that is trained: there are {endings}, with "
                f"names such as {trained[0]}"
            )
    return [name for name in trained if any(re.search(pattern, name) for pattern in patterns.values())]


def _peft() -> Any:
    """Import peft, which takes seconds.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ConfigError(
            f"lora needs the package peft ({error}): install it with `pip install 'mmib[lora]'`"
        ) from error
