"""Parameters of a sweep: the distributions of W&B's sweep files, sampled by Optuna."""

from __future__ import annotations

import bisect
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from mmib.schema import ConfigError
from mmib.search.checks import check_keys, read_number

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

# The quantile function of the normal is undefined at 0 and 1, which one sample in 2^53 would hit.
OPEN_UNIT = (2.0**-53, 1 - 2.0**-53)
PROBABILITY_TOLERANCE = 1e-6
# Optuna stores whole numbers as floats, which are exact up to here.
MOST_WHOLE = 2**53
# Maximum number of trials of a grid. No sweep needs more, and a typing error can make a grid that exceeds the memory.
MOST_TRIALS = 100_000


@dataclass(frozen=True)
class Distribution:
    """The distribution of a parameter's values.

    Attributes:
        sample: samples a value, given an Optuna trial and the parameter's name.
        values: all values, in the order of W&B's grid search; None if it does not support the distribution.
    """

    sample: Callable[[BaseTrial, str], Any]
    values: Sequence[Any] | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        keys: the name of the parameter; for a nested parameter, the names on the path to it.
        distribution: distribution of its values.
    """

    keys: tuple[str, ...]
    distribution: Distribution

    @property
    def name(self) -> str:
        """Dotted name, used in tables and by Optuna."""
        return ".".join(self.keys)

    def sample(self, trial: BaseTrial) -> Any:
        """Sample a value for a trial."""
        return self.distribution.sample(trial, self.name)

    def listed_value(self, trial: BaseTrial) -> Any:
        """Return the value for a trial of a grid, at the index given by `combinations`."""
        values = self.distribution.values or ()
        return values[trial.suggest_categorical(self.name, range(len(values))) if len(values) > 1 else 0]


def read_parameters(content: Any, where: str, keys: tuple[str, ...] = ()) -> Iterator[Parameter]:
    """Yield the parameters in the section `parameters` of a sweep file, sorted by name as in W&B.

    Raises:
        ConfigError: a parameter is unknown to W&B, incomplete, or contradictory.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: 'parameters' must name at least one parameter")
    for name, spec in sorted(content.items(), key=lambda item: str(item[0])):
        here = f"{where}: the parameter {'.'.join([*keys, str(name)])!r}"
        if not isinstance(name, str) or not isinstance(spec, dict):
            raise ConfigError(f"{here} must be a mapping, such as {{values: [0.1, 1.0]}} or {{min: 0.0, max: 1.0}}")
        if "parameters" in spec:
            check_keys(spec, ["parameters"], here)
            yield from read_parameters(spec["parameters"], where, (*keys, name))
        else:
            yield Parameter((*keys, name), _distribution(spec, here))


def check_grid(parameters: Sequence[Parameter], where: str) -> None:
    """Check that parameters form a grid.

    Raises:
        ConfigError: W&B's grid search does not support a distribution, or there are too many trials.
    """
    trials = 1
    for parameter in parameters:
        values = parameter.distribution.values
        if values is None:
            raise ConfigError(
                f"{where}: a grid cannot hold the parameter {parameter.name!r}: give it 'value', 'values', whole "
                "'min' and 'max', or q_uniform; or take the method random or bayes"
            )
        trials *= len(values)
        if trials > MOST_TRIALS:
            raise ConfigError(
                f"{where}: the grid has more than {MOST_TRIALS:,} trials: give {parameter.name!r} fewer values"
            )


def combinations(parameters: Sequence[Parameter]) -> list[dict[str, int]]:
    """Return all trials of a grid as indices of values, for parameters with several values; the last varies fastest."""
    counts = {parameter.name: len(parameter.distribution.values or ()) for parameter in parameters}
    choices = {name: range(count) for name, count in counts.items() if count > 1}
    return [dict(zip(choices, indices, strict=True)) for indices in itertools.product(*choices.values())]


def nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Nest values by their keys as W&B passes them to a command: nested parameters are dictionaries."""
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
        raise ConfigError(
            f"{here} has the distribution {name!r}, which is not known here; choose from {', '.join(BUILDERS)}"
        )
    required, optional, build = BUILDERS[name]
    check_keys(spec, ["distribution", *required, *optional], here)
    for key in required:
        if key not in spec:
            raise ConfigError(f"{here}: the distribution {name} needs {key!r}")
    return build(spec, here)


def _implied(spec: dict[str, Any], here: str) -> str:
    """Return the distribution that W&B assumes if none is named."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        low, high = _bounds(spec, here)
        types = {type(low), type(high)}
        if len(types) == 2:
            raise ConfigError(
                f"{here} has the bounds {low} and {high}, one an integer and one a float: write"
                " both with a point for real numbers, both without for whole ones"
            )
        return "int_uniform" if types == {int} else "uniform"
    raise ConfigError(f"{here} has no values to sample from: give 'value', 'values', or 'min' and 'max'")


def _constant(spec: dict[str, Any], here: str) -> Distribution:
    value = spec["value"]
    return Distribution(lambda trial, name: value, [value])


def _categorical(spec: dict[str, Any], here: str) -> Distribution:
    if "probabilities" in spec:
        return _weighted(spec, here)
    values = _values(spec, here)
    # Optuna samples the index, because values may be lists.
    return Distribution(lambda trial, name: values[trial.suggest_categorical(name, range(len(values)))], values)


def _weighted(spec: dict[str, Any], here: str) -> Distribution:
    values = _values(spec, here)
    weights = spec["probabilities"]
    if not isinstance(weights, list) or len(weights) != len(values):
        raise ConfigError(f"{here} must have as many 'probabilities' as 'values', which are {len(values)}")
    shares = [read_number({"probability": weight}, "probability", here) for weight in weights]
    if min(shares) < 0 or abs(sum(shares) - 1) > PROBABILITY_TOLERANCE:
        raise ConfigError(f"{here}: its 'probabilities' must not be negative, and sum to 1 instead of {sum(shares):g}")
    bounds = list(itertools.accumulate(shares))[:-1]
    return _continuous(0.0, 1.0, lambda uniform: values[bisect.bisect_right(bounds, uniform)], here)


def _int_uniform(spec: dict[str, Any], here: str) -> Distribution:
    low, high = _bounds(spec, here)
    if not isinstance(low, int) or not isinstance(high, int):
        raise ConfigError(f"{here} is sampled from whole numbers: its 'min' and 'max' must be whole")
    if max(abs(low), abs(high)) > MOST_WHOLE:
        raise ConfigError(f"{here}: its 'min' and 'max' must not be beyond 2^53")
    return Distribution(lambda trial, name: trial.suggest_int(name, low, high), range(low, high + 1))


def _uniform(spec: dict[str, Any], here: str) -> Distribution:
    return _continuous(*_bounds(spec, here), float, here)


def _q_uniform(spec: dict[str, Any], here: str) -> Distribution:
    (low, high), step = _bounds(spec, here), _step(spec, here)
    # W&B's grid excludes the upper bound. `check_grid` rejects a grid above the maximum number of trials.
    count = min((high - low) / step, MOST_TRIALS + 1)
    values = [low + number * step for number in range(math.ceil(count))]
    return _continuous(low, high, lambda value: _rounded(value, step), here, values)


def _log_uniform(spec: dict[str, Any], here: str) -> Distribution:
    return _continuous(*_bounds(spec, here), math.exp, here)


def _log_uniform_values(spec: dict[str, Any], here: str) -> Distribution:
    return _continuous(*_log_bounds(spec, here), math.exp, here)


def _q_log_uniform_values(spec: dict[str, Any], here: str) -> Distribution:
    step = _step(spec, here)
    return _continuous(*_log_bounds(spec, here), lambda logarithm: _rounded(math.exp(logarithm), step), here)


def _normal(spec: dict[str, Any], here: str) -> Distribution:
    sigma = read_number(spec, "sigma", here, 1.0)
    if sigma <= 0:
        raise ConfigError(f"{here}: its 'sigma' must be above 0, not {sigma}")
    return _continuous(*OPEN_UNIT, NormalDist(read_number(spec, "mu", here, 0.0), sigma).inv_cdf, here)


BOUNDS = ("min", "max")
# Name: required keys, optional keys, builder.
BUILDERS: dict[str, tuple[Sequence[str], Sequence[str], Callable[[dict[str, Any], str], Distribution]]] = {
    "constant": (("value",), (), _constant),
    "categorical": (("values",), ("probabilities",), _categorical),
    "categorical_w_probabilities": (("values", "probabilities"), (), _weighted),
    "int_uniform": (BOUNDS, (), _int_uniform),
    "uniform": (BOUNDS, (), _uniform),
    "q_uniform": (BOUNDS, ("q",), _q_uniform),
    "log_uniform": (BOUNDS, (), _log_uniform),
    "log_uniform_values": (BOUNDS, (), _log_uniform_values),
    "q_log_uniform_values": (BOUNDS, ("q",), _q_log_uniform_values),
    # The logarithm of 1/X is uniform if that of X is.
    "inv_log_uniform_values": (BOUNDS, (), _log_uniform_values),
    "normal": ((), ("mu", "sigma"), _normal),
}


def _continuous(
    low: float, high: float, value: Callable[[float], Any], here: str, values: Sequence[float] | None = None
) -> Distribution:
    """Return the distribution of a function of a uniform number between two bounds, which Optuna samples and models.

    Raises:
        ConfigError: the function cannot be evaluated at a bound.
    """
    try:
        for bound in (low, high):
            value(bound)
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"{here} has values beyond the range of floats: narrow its bounds") from error
    return Distribution(lambda trial, name: value(trial.suggest_float(name, low, high)), values)


def _rounded(value: float, step: float) -> float:
    """Round to a multiple of the step as W&B does, to an integer if the step is an integer."""
    return round(value / step) * step


def _values(spec: dict[str, Any], here: str) -> list[Any]:
    values = spec["values"]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{here}: its 'values' must be a list of at least one")
    texts = [str(value) for value in values]
    for text in texts:
        if texts.count(text) > 1:
            raise ConfigError(f"{here}: the value {text} is there twice; leave one out")
    return values


def _bounds(spec: dict[str, Any], here: str) -> tuple[float, float]:
    low, high = read_number(spec, "min", here), read_number(spec, "max", here)
    if not low < high:
        raise ConfigError(f"{here}: its 'min' {low} is not below its 'max' {high}")
    if high - low > sys.float_info.max:
        raise ConfigError(f"{here}: its 'min' {low} and its 'max' {high} are too far apart")
    return low, high


def _log_bounds(spec: dict[str, Any], here: str) -> tuple[float, float]:
    low, high = _bounds(spec, here)
    if low <= 0:
        raise ConfigError(f"{here} has a logarithmic distribution: its 'min' must be above 0, not {low}")
    return math.log(low), math.log(high)


def _step(spec: dict[str, Any], here: str) -> float:
    step = read_number(spec, "q", here, 1.0)
    if step <= 0:
        raise ConfigError(f"{here}: its 'q' must be above 0, not {step}")
    return step
