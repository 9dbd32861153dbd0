"""Parameter groups, learning-rate schedules, and schedules of the bottleneck's strength."""

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

# Settings of an optimiser group that come from the configuration.
GROUP_SETTINGS = ("lr", "initial_lr", "weight_decay")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up and linear decay.

    Attributes:
        lr: learning rate of all parameters without another setting.
        text_lr: learning rate of the text encoder.
        image_lr: learning rate of the image encoder, unless it is frozen.
        other_lrs: further learning rates, {regular expression over parameter names: rate}; the first match applies, and
            takes precedence over the three above.
        weight_decay: weight decay of matrices; vectors (biases, norms, temperatures) are never decayed.
        warmup: share of all steps (of `max_time`, if only that ends training) in which the rate rises from 0.
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
    """Return optimiser groups that contain every trainable parameter exactly once.

    Args:
        named_parameters: result of `nn.Module.named_parameters`; frozen parameters are left out of the groups.
        rates: {regular expression: learning rate}; the first expression that matches a parameter's name applies.
        weight_decay: for parameters of two or more dimensions; the others have none.

    Returns:
        Groups with `name`, `params`, `lr`, `weight_decay`; empty ones are left out.

    Raises:
        ConfigError: If an expression matches no parameter, or no expression matches a trainable parameter.
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
    """A schedule that restores its position from a checkpoint, but takes its rates from the configuration.

    A resumed run uses the currently configured rates from its first step on.
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
    """Make an optimiser restore its state from a checkpoint, but keep the configured rates and weight decay.

    Args:
        optimizer: an optimiser of any class.
        other_schedule: whether its rates follow a schedule other than `ConfiguredRates`. Such a schedule continues from
            the checkpoint's rates, so that loading a checkpoint with other settings raises a `CheckpointError`.
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
                    "--lr_scheduler keeps its initial settings: resume with these, or start a new run"
                )
        return state

    optimizer.register_load_state_dict_pre_hook(configured)


def linear_warmup_decay(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Raise every group's rate linearly over the first `warmup` share of `steps`, then lower it linearly to 0."""
    rising = math.ceil(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (steps - step) / max(1, steps - rising))

    return ConfiguredRates(optimizer, factor)


def linear_warmup_decay_by_share(
    optimizer: torch.optim.Optimizer, done: Callable[[], float], warmup: float
) -> LambdaLR:
    """Like `linear_warmup_decay`, for an unknown number of steps; `done` returns the share of training done, 0..1."""

    def factor(step: int) -> float:
        share = done()
        return share / warmup if share < warmup else (1 - share) / (1 - warmup)

    return ConfiguredRates(optimizer, factor)


class Schedule(ABC):
    """Base of schedules: a factor on the strength of the bottleneck over the course of training."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Return the factor, 0..1, at `progress`: the share of the training's steps or time that is done, 0..1."""


class Constant(Schedule):
    """A constant factor of 1."""

    def __call__(self, progress: float) -> float:
        """See `Schedule`."""
        return 1.0


class LinearWarmup(Schedule):
    """Linear warm-up from 0 to 1, then 1.

    Args:
        share: length of the warm-up as a share of all steps, in (0, 1].
    """

    def __init__(self, share: float = 0.3) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"the share of a linear beta warm-up is {share}: it must be in (0, 1]")
        self.share = share

    def __call__(self, progress: float) -> float:
        """See `Schedule`."""
        return min(1.0, progress / self.share)


class Cyclic(Schedule):
    """Repeated warm-ups (Fu et al. 2019, cyclical annealing): in each cycle from 0 to 1, then 1.

    Args:
        cycles: number of cycles in the whole training.
        share: share of a cycle in which the factor rises, in (0, 1].
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
