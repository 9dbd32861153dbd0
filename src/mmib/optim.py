"""What depends on the progress of training: parameter groups, learning rates, and the strength of the bottleneck."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mmib.schema import CheckpointError, ConfigError

# What a configuration sets of an optimiser's group.
GROUP_SETTINGS = ("lr", "initial_lr", "weight_decay")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up and linear decay.

    Attributes:
        lr: learning rate of everything that no other setting names.
        text_lr: learning rate of the text encoder.
        image_lr: learning rate of the image encoder, where it is not frozen.
        other_lrs: further learning rates, {regular expression over parameter names: rate}; the first match counts,
            before the three above.
        weight_decay: on matrices; vectors (biases, norms, temperatures) are never decayed.
        warmup: share of all steps (of `max_time`, where only that ends training) in which the rate rises from 0.
    """

    lr: float = 5e-4
    text_lr: float = 5e-5
    image_lr: float = 1e-5
    other_lrs: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.01
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optimizer.warmup is {self.warmup}: it is a share of the steps, from 0 to below 1")
        if min(self.lr, self.text_lr, self.image_lr, *self.other_lrs.values(), self.weight_decay) < 0:
            raise ConfigError("learning rates and weight decay cannot be negative: set them to 0 or above")


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], rates: dict[str, float], weight_decay: float
) -> list[dict[str, object]]:
    """Optimiser groups that claim every trainable parameter exactly once.

    Args:
        named_parameters: as `nn.Module.named_parameters` gives them; frozen ones are left out of the groups.
        rates: {regular expression: learning rate}; a parameter takes the first that matches its name.
        weight_decay: for parameters of two or more dimensions; the others get none.

    Returns:
        Groups with `name`, `params`, `lr`, `weight_decay`; empty ones are left out.

    Raises:
        ConfigError: an expression that matches no parameter at all, or a parameter that none matches.
    """
    groups: dict[tuple[str, bool], dict[str, object]] = {}
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    matched = set()
    names = []
    for name, parameter in named_parameters:
        names.append(name)
        matching = [pattern for pattern in rates if re.search(pattern, name)]
        matched.update(matching)
        if not parameter.requires_grad:
            continue
        if not matching:
            raise ConfigError(f"no learning rate is set for the parameter {name}: none of {list(rates)} matches it")
        decayed = parameter.ndim > 1
        key = (matching[0], decayed)
        members.setdefault(key, []).append(parameter)
        groups[key] = {
            "name": f"{matching[0]}{'' if decayed else ' (no decay)'}",
            "lr": rates[matching[0]],
            "weight_decay": weight_decay if decayed else 0.0,
        }
    for pattern in rates:
        if pattern not in matched:
            raise ConfigError(f"the learning rate pattern {pattern!r} matches no parameter, for example {names[:3]}")
    return [{**group, "params": members[key]} for key, group in groups.items()]


class ConfiguredRates(LambdaLR):
    """A schedule that takes its position from a checkpoint, and its rates from the configuration.

    The rates of a resumed run are then those that are configured now, from its first step on.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position."""
        super().load_state_dict({**state_dict, "base_lrs": self.base_lrs})
        self._last_lr = [
            rate * factor(self.last_epoch) for rate, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def keep_group_settings(optimizer: torch.optim.Optimizer, other_schedule: bool = False) -> None:
    """Have an optimiser take its state from a checkpoint, and rates and decay from the configuration.

    Args:
        optimizer: of any class.
        other_schedule: whether its rates follow a schedule that is no `ConfiguredRates`. That one continues from the
            rates of the checkpoint, so that a checkpoint with other settings raises a `CheckpointError`.
    """

    def configured(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        saved, groups = state["param_groups"], optimizer.param_groups
        sizes, expected = ([len(group["params"]) for group in side] for side in (saved, groups))
        if sizes != expected:
            raise CheckpointError(
                f"the optimiser of the checkpoint has groups of {sizes} tensors, and that of this configuration of "
                f"{expected}: resume with the --optimizer that the run began with"
            )
        if not other_schedule:
            settings = [{key: group[key] for key in GROUP_SETTINGS if key in group} for group in groups]
            return state | {"param_groups": [one | other for one, other in zip(saved, settings, strict=True)]}
        for key in ("initial_lr", "weight_decay"):
            restored, now = ([group.get(key) for group in side] for side in (saved, groups))
            if restored != now:
                raise CheckpointError(
                    f"the checkpoint has {key} {restored}, and this configuration {now}: the schedule of "
                    "--lr_scheduler continues with what it began with; resume it unchanged, or start a new run"
                )
        return state

    optimizer.register_load_state_dict_pre_hook(configured)


def linear_warmup_decay(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Every group's rate rises linearly over the first `warmup` share of `steps`, then falls linearly to 0."""
    rising = math.ceil(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (steps - step) / max(1, steps - rising))

    return ConfiguredRates(optimizer, factor)


def linear_warmup_decay_by_share(
    optimizer: torch.optim.Optimizer, done: Callable[[], float], warmup: float
) -> LambdaLR:
    """The same where `done` tells the share of training that is done, 0..1, and nobody knows the number of steps."""

    def factor(step: int) -> float:
        share = done()
        return share / warmup if share < warmup else (1 - share) / (1 - warmup)

    return ConfiguredRates(optimizer, factor)


class Schedule(ABC):
    """A factor on the strength of the bottleneck over the course of training."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The factor, in 0..1, at `progress`, the share of training that is done (0..1): of its steps or its time."""


class Constant(Schedule):
    """Always 1."""

    def __call__(self, progress: float) -> float:
        """See `Schedule`."""
        return 1.0


class LinearWarmup(Schedule):
    """From 0 to 1 over the first part of training, then 1.

    Args:
        share: the part, a share of all steps in (0, 1].
    """

    def __init__(self, share: float = 0.3) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"the share of a linear beta warm-up is {share}: it must be in (0, 1]")
        self.share = share

    def __call__(self, progress: float) -> float:
        """See `Schedule`."""
        return min(1.0, progress / self.share)


class Cyclic(Schedule):
    """Repeated warm-ups (Fu et al. 2019, cyclical annealing): in each cycle 0 to 1, then 1.

    Args:
        cycles: how many over the whole training.
        share: part of a cycle in which the factor rises, in (0, 1].
    """

    def __init__(self, cycles: int = 4, share: float = 0.5) -> None:
        if cycles < 1:
            raise ConfigError(f"a cyclic beta schedule needs at least one cycle, not {cycles}")
        self.cycles = cycles
        self.warmup = LinearWarmup(share)

    def __call__(self, progress: float) -> float:
        """See `Schedule`."""
        position = progress * self.cycles
        return self.warmup(1.0 if progress >= 1 else position - math.floor(position))
