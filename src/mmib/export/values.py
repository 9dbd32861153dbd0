"""Types and ranges of the values in an export's config.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmib.schema import ExportError

# Far above any trained model, and far below what exhausts memory.
LONGEST_INPUT, MOST_CROPS, LARGEST_SIDE = 2**24, 1_000, 4_096
# The scores of a run, for readers of the card: a run that diverged has NaN among them.
CARD = "trained"


class Range(NamedTuple):
    """The allowed values: a test, and its description."""

    holds: Callable[[Any], bool]
    words: str


def _whole(least: int, most: int) -> Range:
    return Range(lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}")


def _number(least: float, most: float) -> Range:
    return Range(lambda value: _is_number(value) and least <= value <= most, f"a number from {least:g} to {most:g}")


def _numbers(least: float, most: float) -> Range:
    one = _number(least, most)
    return Range(
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(one.holds, value)),
        f"a list of three numbers from {least:g} to {most:g}",
    )


def _of(kind: type, words: str) -> Range:
    return Range(lambda value: isinstance(value, kind), words)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    sides = _whole(1, LARGEST_SIDE)
    return isinstance(value, list) and len(value) == 3 and value[0] == 3 and all(map(sides.holds, value))


OBJECT, NAME = _of(dict, "an object"), _of(str, "a name")
RANGES: dict[str, Range] = {
    "task": NAME,
    "files": OBJECT,
    "max_length": _whole(1, LONGEST_INPUT),
    "parts_of_network": OBJECT,
    "head": OBJECT,
    "calibration": OBJECT,
    # Far wider than the range in which `mmib.analysis.calibration` searches for a temperature.
    "calibration.value": _number(1e-3, 1e3),
    "text_encoder": OBJECT,
    "text_encoder.markers": Range(lambda value: value in ("inserted", "levitated"), "inserted or levitated"),
    "image_encoder": OBJECT,
    "image_encoder.max_crops": _whole(0, MOST_CROPS),
    "image_encoder.used": _of(bool, "true or false"),
    "image_encoder.preprocessing": OBJECT,
    "image_encoder.preprocessing.input_size": Range(_is_size, f"3, height and width, up to {LARGEST_SIDE}"),
    "image_encoder.preprocessing.mean": _numbers(-1e3, 1e3),
    "image_encoder.preprocessing.std": _numbers(1e-6, 1e3),
    "image_encoder.preprocessing.crop_pct": _number(0.1, 10),
    "image_encoder.preprocessing.crop_mode": NAME,
    "image_encoder.preprocessing.interpolation": NAME,
    CARD: OBJECT,
}


def check_values(config: dict[str, Any], path: Path) -> None:
    """Refuse a model description with values of the wrong type or out of range.

    Missing values are refused when they are used.

    Raises:
        ExportError: a value is not allowed; the message names the first.
    """
    for name, allowed in RANGES.items():
        found = _found(config, name.split("."))
        if found and not allowed.holds(found[0]):
            raise ExportError(f"{path}: {name} is {_shown(found[0])}, expected {allowed.words}; copy the folder again")
    known = {name.rpartition(".")[2] for name in RANGES if name.startswith("image_encoder.preprocessing.")}
    unknown = sorted(config.get("image_encoder", {}).get("preprocessing", {}).keys() - known)
    if unknown:
        raise ExportError(f"{path}: image_encoder.preprocessing holds {_shown(unknown[0])}, expected {sorted(known)}")
    for name, value in entries({name: value for name, value in config.items() if name != CARD}):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, float) and not math.isfinite(part):
                raise ExportError(f"{path}: {name} is {part}, expected a finite number; export the run again")


def entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every name in the objects inside a JSON value, with its value."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _found(config: Any, keys: list[str]) -> list[Any]:
    """Return the value under nested keys, in a list that is empty if there is none."""
    for key in keys:
        if not isinstance(config, dict) or key not in config:
            return []
        config = config[key]
    return [config]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
