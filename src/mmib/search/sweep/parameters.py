"""Parameters of a sweep: the distributions of W&B's sweep files, drawn by Optuna."""

from __future__ import annotations

import bisect
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

from mmib.schema import ConfigError

# The normal's quantile function takes no 0 and no 1; a 2^-53rd of the draws would give them.
OPEN_UNIT = (2.0**-53, 1 - 2.0**-53)
PROBABILITY_TOLERANCE = 1e-6
# Whole numbers that a float, as which Optuna keeps them, can tell apart.
MOST_WHOLE = 2**53
# Points of a grid. No sweep takes as many, and a slip of the pen makes a grid that fits into no memory.
MOST_POINTS = 100_000


class Source(Protocol):
    """What draws: an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float) -> float: ...  # noqa: D102

    def suggest_int(self, name: str, low: int, high: int) -> int: ...  # noqa: D102

    def suggest_categorical(self, name: str, choices: Sequence[int]) -> int: ...  # noqa: D102


class Middle:
    """Draws the middle of each range and the first of each choice."""

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """The mean of both ends."""
        return (low + high) / 2

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The lower of the numbers in the middle."""
        return (low + high) // 2

    def suggest_categorical(self, name: str, choices: Sequence[int]) -> int:
        """The first."""
        return choices[0]


class Distribution(Protocol):
    """Where the values of a parameter come from."""

    def draw(self, source: Source, name: str) -> Any:
        """One value."""

    def grid(self) -> Sequence[Any] | None:
        """All values, in the order of W&B's grid search; None where it takes no such distribution."""


@dataclass(frozen=True)
class Constant:
    """Always the same."""

    value: Any

    def draw(self, source: Source, name: str) -> Any:
        """The value."""
        return self.value

    def grid(self) -> list[Any]:
        """The value alone."""
        return [self.value]


@dataclass(frozen=True)
class Choice:
    """One of some values, all equally likely; Optuna draws its place, as values may be lists."""

    values: tuple[Any, ...]

    def draw(self, source: Source, name: str) -> Any:
        """One of the values."""
        return self.values[source.suggest_categorical(name, range(len(self.values)))]

    def grid(self) -> list[Any]:
        """The values."""
        return list(self.values)


@dataclass(frozen=True)
class Integers:
    """Uniform over whole numbers, both ends included."""

    low: int
    high: int

    def draw(self, source: Source, name: str) -> int:
        """One of the numbers."""
        return source.suggest_int(name, self.low, self.high)

    def grid(self) -> Sequence[int]:
        """All the numbers."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True)
class Continuous:
    """A function of a uniform number, which is what Optuna draws and models.

    Attributes:
        low: least value of the uniform number.
        high: its greatest value.
        value: the function.
        steps: the values of a grid, where there can be one.
    """

    low: float
    high: float
    value: Callable[[float], Any]
    steps: tuple[float, ...] | None = None

    def draw(self, source: Source, name: str) -> Any:
        """The function of a number between `low` and `high`."""
        return self.value(source.suggest_float(name, self.low, self.high))

    def grid(self) -> list[float] | None:
        """The steps of `q_uniform`; None elsewhere."""
        return None if self.steps is None else list(self.steps)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        keys: its name; where parameters are nested, the names on the way to it.
        distribution: where its values come from.
    """

    keys: tuple[str, ...]
    distribution: Distribution

    @property
    def name(self) -> str:
        """What tables and Optuna call it."""
        return ".".join(self.keys)


def read_parameters(content: Any, where: str, keys: tuple[str, ...] = ()) -> Iterator[Parameter]:
    """The parameters that the section `parameters` of a sweep file describes, sorted by name as W&B does.

    Raises:
        ConfigError: one of them is unknown to W&B, incomplete, or contradicts itself.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: 'parameters' must name at least one parameter")
    for name, spec in sorted(content.items(), key=lambda item: str(item[0])):
        here = f"{where}: the parameter {'.'.join([*keys, str(name)])!r}"
        if not isinstance(name, str) or not isinstance(spec, dict):
            raise ConfigError(f"{here} must be a mapping, such as {{values: [0.1, 1.0]}} or {{min: 0.0, max: 1.0}}")
        if "parameters" in spec:
            _only(spec, {"parameters"}, here)
            yield from read_parameters(spec["parameters"], where, (*keys, name))
        else:
            yield Parameter((*keys, name), _distribution(spec, here))


def grid(parameters: Sequence[Parameter], where: str) -> list[Parameter]:
    """The parameters with nothing but constants and choices left.

    Raises:
        ConfigError: W&B's grid search takes no such distribution, or there are too many points.
    """
    listed = []
    points = 1
    for parameter in parameters:
        values = parameter.distribution.grid()
        if values is None:
            raise ConfigError(
                f"{where}: a grid cannot hold the parameter {parameter.name!r}: give it 'value', 'values', whole "
                "'min' and 'max', or q_uniform; or take the method random or bayes"
            )
        points *= len(values)
        if points > MOST_POINTS:
            raise ConfigError(
                f"{where}: the grid has more than {MOST_POINTS:,} points: give {parameter.name!r} fewer values"
            )
        listed.append(Parameter(parameter.keys, Constant(values[0]) if len(values) == 1 else Choice(tuple(values))))
    return listed


def combinations(parameters: Sequence[Parameter]) -> list[dict[str, int]]:
    """All points of a grid, as places of the values of its choices; the last parameter changes first."""
    choices = {p.name: range(len(p.distribution.values)) for p in parameters if isinstance(p.distribution, Choice)}
    return [dict(zip(choices, places, strict=True)) for places in itertools.product(*choices.values())]


def nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Values by keys as W&B hands them to a command: nested parameters in a dictionary under their first key."""
    content: dict[str, Any] = {}
    for keys, value in values.items():
        level = content
        for key in keys[:-1]:
            level = level.setdefault(key, {})
        level[keys[-1]] = value
    return content


def _distribution(spec: dict[str, Any], here: str) -> Distribution:
    name = spec["distribution"] if "distribution" in spec else _implied(spec, here)
    if not isinstance(name, str) or name not in BUILDERS:
        extra = ": it has no exact local form" if name in ("beta", "q_beta") else ""
        raise ConfigError(
            f"{here} has the distribution {name!r}, which is not known here{extra}; choose from {', '.join(BUILDERS)}"
        )
    required, optional, build = BUILDERS[name]
    _only(spec, {"distribution", *required, *optional}, here)
    for key in required:
        if key not in spec:
            raise ConfigError(f"{here} needs {key!r} for the distribution {name}")
    distribution = build(spec, here)
    if isinstance(distribution, Continuous):
        try:
            for end in (distribution.low, distribution.high):
                distribution.value(end)
        except (OverflowError, ValueError) as error:
            raise ConfigError(f"{here} reaches to values that no computer can hold: narrow its bounds") from error
    return distribution


def _implied(spec: dict[str, Any], here: str) -> str:
    """The distribution that W&B takes where none is named."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        low, high = _bounds(spec, here)
        kinds = {type(low), type(high)}
        if len(kinds) == 2:
            raise ConfigError(
                f"{here} has one whole and one broken bound: write both as {low} and {high:g}.0 would be,"
                " both with a point for real numbers, both without for whole ones"
            )
        return "int_uniform" if kinds == {int} else "uniform"
    raise ConfigError(f"{here} says nothing to draw from: give 'value', 'values', or 'min' and 'max'")


def _constant(spec: dict[str, Any], here: str) -> Distribution:
    return Constant(_spoken(spec["value"], here))


def _categorical(spec: dict[str, Any], here: str) -> Distribution:
    if "probabilities" in spec:
        return _weighted(spec, here)
    return Choice(_values(spec, here))


def _weighted(spec: dict[str, Any], here: str) -> Distribution:
    values = _values(spec, here)
    weights = spec["probabilities"]
    if not isinstance(weights, list) or len(weights) != len(values):
        raise ConfigError(f"{here} must have as many 'probabilities' as 'values', which are {len(values)}")
    shares = [_number({"probability": weight}, "probability", here) for weight in weights]
    if min(shares) < 0 or abs(sum(shares) - 1) > PROBABILITY_TOLERANCE:
        raise ConfigError(f"{here}: its 'probabilities' must not be negative, and sum to 1 instead of {sum(shares):g}")
    bounds = list(itertools.accumulate(shares))[:-1]
    return Continuous(0.0, 1.0, lambda drawn: values[bisect.bisect_right(bounds, drawn)])


def _int_uniform(spec: dict[str, Any], here: str) -> Distribution:
    low, high = _bounds(spec, here)
    if not isinstance(low, int) or not isinstance(high, int):
        raise ConfigError(f"{here} is drawn from whole numbers: its 'min' and 'max' must be whole")
    if max(abs(low), abs(high)) > MOST_WHOLE:
        raise ConfigError(f"{here}: its 'min' and 'max' must not be beyond 2^53")
    return Integers(low, high)


def _uniform(spec: dict[str, Any], here: str) -> Continuous:
    low, high = _bounds(spec, here)
    return Continuous(low, high, float)


def _q_uniform(spec: dict[str, Any], here: str) -> Continuous:
    low, high = _bounds(spec, here)
    step = _step(spec, here)
    # W&B's grid leaves the upper bound out. Beyond the most points a grid is refused, and elsewhere none are asked for.
    count = min((high - low) / step, MOST_POINTS + 1)
    steps = tuple(low + number * step for number in range(math.ceil(count)))
    return Continuous(low, high, _rounded(float, step), steps)


def _log_uniform(spec: dict[str, Any], here: str) -> Continuous:
    low, high = _bounds(spec, here)
    return Continuous(low, high, math.exp)


def _log_uniform_values(spec: dict[str, Any], here: str) -> Continuous:
    low, high = _bounds(spec, here)
    if low <= 0:
        raise ConfigError(f"{here} has a logarithmic distribution: its 'min' must be above 0, not {low}")
    return Continuous(math.log(low), math.log(high), math.exp)


def _inv_log_uniform(spec: dict[str, Any], here: str) -> Continuous:
    low, high = _bounds(spec, here)
    return Continuous(low, high, lambda drawn: math.exp(-drawn))


def _normal(spec: dict[str, Any], here: str) -> Continuous:
    sigma = _number(spec, "sigma", here, 1.0)
    if sigma <= 0:
        raise ConfigError(f"{here}: its 'sigma' must be above 0, not {sigma}")
    return Continuous(*OPEN_UNIT, NormalDist(_number(spec, "mu", here, 0.0), sigma).inv_cdf)


def _log_normal(spec: dict[str, Any], here: str) -> Continuous:
    normal = _normal(spec, here)
    return Continuous(normal.low, normal.high, lambda drawn: math.exp(normal.value(drawn)))


def _in_steps(build: Callable[[dict[str, Any], str], Continuous]) -> Callable[[dict[str, Any], str], Continuous]:
    """The distribution whose values are rounded to multiples of `q`."""

    def build_in_steps(spec: dict[str, Any], here: str) -> Continuous:
        exact = build(spec, here)
        return Continuous(exact.low, exact.high, _rounded(exact.value, _step(spec, here)))

    return build_in_steps


def _rounded(value: Callable[[float], float], step: float) -> Callable[[float], float]:
    """Rounding as W&B does it: whole numbers where the step is whole."""
    return lambda drawn: round(value(drawn) / step) * step


BOUNDS, NORMAL = ("min", "max"), ("mu", "sigma")
# Name: keys that it needs, keys that it may have, what makes it.
BUILDERS: dict[str, tuple[Sequence[str], Sequence[str], Callable[[dict[str, Any], str], Distribution]]] = {
    "constant": (("value",), (), _constant),
    "categorical": (("values",), ("probabilities",), _categorical),
    "categorical_w_probabilities": (("values", "probabilities"), (), _weighted),
    "int_uniform": (BOUNDS, (), _int_uniform),
    "uniform": (BOUNDS, (), _uniform),
    "q_uniform": (BOUNDS, ("q",), _q_uniform),
    "log_uniform": (BOUNDS, (), _log_uniform),
    "log_uniform_values": (BOUNDS, (), _log_uniform_values),
    "q_log_uniform": (BOUNDS, ("q",), _in_steps(_log_uniform)),
    "q_log_uniform_values": (BOUNDS, ("q",), _in_steps(_log_uniform_values)),
    "inv_log_uniform": (BOUNDS, (), _inv_log_uniform),
    # The logarithm of 1/X is uniform where that of X is.
    "inv_log_uniform_values": (BOUNDS, (), _log_uniform_values),
    "normal": ((), NORMAL, _normal),
    "q_normal": ((), (*NORMAL, "q"), _in_steps(_normal)),
    "log_normal": ((), NORMAL, _log_normal),
    "q_log_normal": ((), (*NORMAL, "q"), _in_steps(_log_normal)),
}


def _values(spec: dict[str, Any], here: str) -> tuple[Any, ...]:
    values = spec["values"]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{here}: its 'values' must be a list of at least one")
    spoken = [str(_spoken(value, here)) for value in values]
    for value in spoken:
        if spoken.count(value) > 1:
            raise ConfigError(f"{here} has the value {value} twice")
    return tuple(values)


def _spoken(value: Any, here: str) -> Any:
    """A value that means on a command line what it means in the file."""
    if value is None:
        raise ConfigError(
            f'{here} has the value null, which W&B puts on the command line as the text None: write "null", in quotes'
        )
    return value


def _bounds(spec: dict[str, Any], here: str) -> tuple[float, float]:
    low, high = _number(spec, "min", here), _number(spec, "max", here)
    if not low < high:
        raise ConfigError(f"{here}: its 'min' {low} is not below its 'max' {high}")
    if high - low > sys.float_info.max:
        raise ConfigError(f"{here}: its 'min' {low} and its 'max' {high} are too far apart")
    return low, high


def _step(spec: dict[str, Any], here: str) -> float:
    step = _number(spec, "q", here, 1.0)
    if step <= 0:
        raise ConfigError(f"{here}: its 'q' must be above 0, not {step}")
    return step


def _number(spec: dict[str, Any], key: str, here: str, default: float | None = None) -> float:
    value = spec.get(key, default)
    if isinstance(value, str):
        raise ConfigError(f"{here}: its {key!r} is the text {value!r}; YAML reads 1e-5 as text and 1.0e-5 as a number")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ConfigError(f"{here}: its {key!r} must be a number, not {value!r}")
    return value


def _only(spec: dict[str, Any], known: set[str], here: str) -> None:
    for key in spec:
        if key not in known:
            raise ConfigError(f"{here} has the unknown key {key!r}: choose from {', '.join(sorted(known))}")
