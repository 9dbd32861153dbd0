"""Sweep files in W&B's format. Unsupported content is an error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mmib.schema import ConfigError
from mmib.search.checks import check_keys, read_mapping
from mmib.search.sweep.command import DEFAULT_COMMAND, check_command
from mmib.search.sweep.hyperband import Hyperband, read_hyperband
from mmib.search.sweep.parameters import Parameter, check_grid, combinations, read_parameters

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap"),
    *("name", "description", "project", "entity"),
)
# Keys that may change without making a file a different sweep.
NOT_HASHED = ("run_cap", "description", "project", "entity")
METHODS = ("grid", "random", "bayes")
METRIC_KEYS = ("name", "goal", "target")
Goal = Literal["minimize", "maximize"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Metric:
    """The metric that a sweep optimises.

    Attributes:
        name: name of the logged scalar.
        goal: `maximize` or `minimize`.
        target: once a trial has reached this value, no new trial starts; None without a target.
    """

    name: str
    goal: Goal
    target: float | None

    def best(self, values: Sequence[float]) -> float:
        """Return the best of several values."""
        return max(values) if self.goal == "maximize" else min(values)

    def costs(self, values: Sequence[float]) -> list[float]:
        """Return the values with their sign set such that lower is better."""
        return [-value if self.goal == "maximize" else value for value in values]

    def reached(self, value: float) -> bool:
        """Return whether a value is at least as good as the target."""
        return self.target is not None and self.best([value, self.target]) == value


@dataclass(frozen=True)
class SweepFile:
    """A validated sweep file.

    Attributes:
        path: path of the file.
        content: content of the file.
        name: name of the sweep: `name` in the file, or else the file name.
        method: `grid`, `random` or `bayes`.
        metric: the metric to optimise.
        parameters: the varied parameters, sorted by name.
        command: items of the command.
        program: value of the macro `${program}`.
        run_cap: maximum number of trials, or None.
        hyperband: rule for early termination, or None.
        digest: 64-bit hash, in hexadecimal, of all keys that determine the trials and how they are run.
    """

    path: Path
    content: dict[str, Any]
    name: str
    method: str
    metric: Metric
    parameters: tuple[Parameter, ...]
    command: tuple[str, ...]
    program: str
    run_cap: int | None
    hyperband: Hyperband | None
    digest: str

    def sample(self, trial: BaseTrial) -> dict[str, Any]:
        """Sample the values of a trial, by parameter name; in a grid, return the values that were enqueued."""
        if self.method == "grid":
            return {parameter.name: parameter.listed_value(trial) for parameter in self.parameters}
        return {parameter.name: parameter.sample(trial) for parameter in self.parameters}

    def trials(self, cap: int | None) -> int:
        """Return the number of trials of the sweep: `cap`, or else the file's `run_cap`; at most the whole grid.

        Raises:
            ConfigError: the number of trials is unlimited.
        """
        bounds = [bound for bound in (self.run_cap if cap is None else cap,) if bound is not None]
        if self.method == "grid":
            bounds.append(len(combinations(self.parameters)))
        if not bounds:
            raise ConfigError(
                f"{self.path}: a sweep by the method {self.method} is unlimited: "
                "give the number of trials with 'run_cap' in the file, or with --trials"
            )
        return min(bounds)


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        ConfigError: the file is missing, is not valid YAML, or has content that would be ignored or treated
            differently than by W&B.
    """
    content, where = read_mapping(path, "sweep file", "the keys method, metric and parameters"), str(path)
    check_keys(content, KEYS, where)
    method = content.get("method")
    if method not in METHODS:
        raise ConfigError(f"{where} has the method {method!r}: choose from {', '.join(METHODS)}")
    parameters = list(read_parameters(content.get("parameters"), where))
    if method == "grid":
        check_grid(parameters, where)
    name = str(content.get("name", path.stem))
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: the name {name!r} is not a valid folder name: use letters, digits, _ . and - only")
    early = content.get("early_terminate")
    decisive = {key: value for key, value in content.items() if key not in NOT_HASHED}
    try:
        serialised = json.dumps(decisive, sort_keys=True, default=str)
    except TypeError as error:
        raise ConfigError(f"{where} has a mapping whose keys are not all texts: quote them") from error
    return SweepFile(
        path=path,
        content=content,
        name=name,
        method=method,
        metric=_metric(content.get("metric"), where),
        parameters=tuple(parameters),
        command=check_command(content.get("command", DEFAULT_COMMAND), content.get("program"), where),
        program=str(content.get("program", "")),
        run_cap=_run_cap(content.get("run_cap"), where),
        hyperband=None if early is None else read_hyperband(early, where),
        digest=hashlib.sha256(serialised.encode()).hexdigest()[:16],
    )


def _metric(content: Any, where: str) -> Metric:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ConfigError(
            f"{where}: 'metric' must be a mapping with the name of a scalar, such as {{name: val/f1, goal: maximize}}"
        )
    check_keys(content, METRIC_KEYS, f"{where}: 'metric'")
    goal = content.get("goal", "minimize")
    if goal not in get_args(Goal):
        raise ConfigError(f"{where}: the goal of 'metric' is {goal!r}: choose from {', '.join(get_args(Goal))}")
    target = content.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise ConfigError(f"{where}: the target of 'metric' must be a number, not {target!r}")
    return Metric(content["name"], goal, target)


def _run_cap(content: Any, where: str) -> int | None:
    if content is not None and (type(content) is not int or content < 1):
        raise ConfigError(f"{where}: 'run_cap' must be a whole number above 0, not {content!r}")
    return content
