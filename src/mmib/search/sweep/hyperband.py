"""Early termination of a sweep's trials by W&B's Hyperband rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmib.schema import ConfigError
from mmib.search.checks import check_keys, read_number

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
DEFAULT_ETA = 3.0
# More values than any run logs; brackets at or above this number are left out.
FAR = 10**9
# A limit, because each bracket means a comparison with all other trials.
MOST_BRACKETS = 1000


@dataclass(frozen=True)
class Hyperband:
    """W&B's version of Hyperband (Li et al., JMLR 2018), as in its published engine (PyPI `sweeps` 0.2.0).

    Once a trial has logged more values than a bracket, it is compared after each value: it stops if its best value so
    far is worse than the threshold of the best 1/eta of all trials at that bracket.

    Attributes:
        brackets: numbers of values after which trials are compared, in ascending order.
        eta: one in `eta` trials continues.
    """

    brackets: tuple[int, ...]
    eta: float

    def stops(self, history: Sequence[float], histories: Sequence[Sequence[float]]) -> bool:
        """Return whether a running trial should stop.

        Args:
            history: values of its metric so far; lower is better.
            histories: values of all trials of the sweep, including this one.
        """
        reached = [bracket for bracket in self.brackets if bracket < len(history)]
        if not reached:
            return False
        there = sorted(values[reached[-1]] for values in histories if len(values) > reached[-1])
        return min(history) > there[int(1 / self.eta * len(there))]


def read_hyperband(content: Any, where: str) -> Hyperband:
    """Read the section `early_terminate` of a sweep file.

    Raises:
        ConfigError: the section is unknown to W&B, incomplete, or never stops a trial.
    """
    here = f"{where}: 'early_terminate'"
    if not isinstance(content, dict) or content.get("type") != "hyperband":
        raise ConfigError(f"{here} must be a mapping with 'type: hyperband', the only one that W&B knows")
    check_keys(content, KEYS, here)
    if content.get("strict"):
        raise ConfigError(
            f"{here}: the rule of 'strict: true' is not published, so mmib cannot apply it: "
            "leave it out, or run the sweep by W&B"
        )
    eta = read_number(content, "eta", here, DEFAULT_ETA)
    if not 1 < eta <= FAR:
        raise ConfigError(f"{here}: 'eta' must be above 1 and at most {FAR:,}, not {eta}")
    if ("min_iter" in content) == ("max_iter" in content):
        raise ConfigError(f"{here}: set one of 'min_iter' and 'max_iter', and only one")
    if "min_iter" in content:
        if "s" in content:
            raise ConfigError(f"{here}: 's' belongs to 'max_iter' and has no meaning with 'min_iter'")
        first = _whole(content, "min_iter", here)
        endless = (first * eta**number for number in itertools.count())
        rising = itertools.takewhile(lambda bracket: bracket < FAR, endless)
        return Hyperband(_listed((int(bracket) for bracket in rising), eta, here), eta)
    last, count = _whole(content, "max_iter", here), _whole(content, "s", here)
    # Further brackets would be below 1.
    count = min(count, math.ceil(math.log(last) / math.log(eta)))
    falling = (last / eta**number for number in range(count, 0, -1))
    brackets = _listed((int(bracket) for bracket in falling if bracket >= 1), eta, here)
    if not brackets:
        raise ConfigError(f"{here} leaves no bracket: 'max_iter' must be at least 'eta', {eta:g}")
    return Hyperband(brackets, eta)


def _listed(brackets: Iterator[int], eta: float, here: str) -> tuple[int, ...]:
    listed = tuple(itertools.islice(brackets, MOST_BRACKETS + 1))
    if len(listed) > MOST_BRACKETS:
        raise ConfigError(f"{here} makes more than {MOST_BRACKETS:,} brackets: 'eta' is too close to 1 with {eta}")
    return listed


def _whole(content: dict[str, Any], key: str, here: str) -> int:
    value = read_number(content, key, here)
    if not isinstance(value, int) or not 1 <= value <= FAR:
        raise ConfigError(f"{here}: {key!r} must be a whole number above 0 and at most {FAR:,}, not {value!r}")
    return value
