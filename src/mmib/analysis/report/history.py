"""Settings and curves of a run: the settings in a form that is safe to share, and the logged scalars."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmib.base.files import parse_json
from mmib.charts import Point
from mmib.runs.reader import INCIDENTAL, FinishedRun
from mmib.schema import RunError

HIDDEN = "(hidden)"
SECRET = re.compile(r"(^|[._\-])(api_?key|key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
# An absolute path of any operating system: the parts before the last one may name a person or a machine.
ABSOLUTE = re.compile(r"(?<![\w.~…\\])(?<!:/)(?:[A-Za-z]:)?(?:~?[/\\][^/\\'\":=,]+)+[/\\]?")
HOMES = ("home", "Users", "users")


def shortened(text: str) -> str:
    """Cut every absolute path in a value, with or without spaces, down to its last part."""

    def short(match: re.Match[str]) -> str:
        parts = [part for part in re.split(r"[/\\]", match.group()) if part]
        if len(parts) > 1 and parts[-2] in HOMES:
            return "~"
        return f"…/{parts[-1]}"

    return ABSOLUTE.sub(short, text)


def shown_command(command: str) -> str:
    """Return a command line without secrets and absolute paths."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    shown: list[str] = []
    hide = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append(HIDDEN)
            hide = False
            continue
        secret = bool(SECRET.search(name.lstrip("-")))
        shown.append(f"{name}={HIDDEN}" if secret and equals else shortened(word))
        hide = secret and not equals and word.startswith("-")
    return " ".join(word if re.fullmatch(r"[^\s\"'();&|<>]+", word) else shlex.quote(word) for word in shown)


def settings(config: dict[str, Any]) -> dict[str, str]:
    """Flatten a configuration into dotted names and values.

    The name of a component maps to its class, and secrets are hidden.
    """
    return dict(_flattened("", config))


def _flattened(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        if prefix:
            yield prefix, value["class_path"].rpartition(".")[2]
        value = value.get("init_args") or {}
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flattened(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            path = item.get("class_path") if isinstance(item, dict) else None
            name = path.rpartition(".")[2] if isinstance(path, str) else str(place)
            yield from _flattened(f"{prefix}.{name}", item)
    elif SECRET.search(prefix) and value is not None:
        yield prefix, HIDDEN
    else:
        yield prefix, shortened(value) if isinstance(value, str) else json.dumps(value, default=str)


def differing(many: Sequence[dict[str, str]]) -> list[str]:
    """Return the names of the settings that differ, except those in which repetitions may differ."""
    names = dict.fromkeys(name for settings_ in many for name in settings_)
    return [name for name in names if name not in INCIDENTAL and len({settings_.get(name) for settings_ in many}) > 1]


def scalar_of(name: str) -> str:
    """Return the scalar behind a name in the log: `val/ib/kl_text` and `ib/kl_text_step` belong to `ib/kl_text`."""
    return name.removeprefix("val/").removeprefix("train/").removesuffix("_step")


class Curves:
    """The scalars that a run logged during training.

    Scores of the selected checkpoint after training are not part of a curve and are left out.
    """

    def __init__(self, run: FinishedRun) -> None:
        """Read `metrics.csv`.

        Raises:
            RunError: the file is damaged.
        """
        path = run.folder / "metrics.csv"
        try:
            rows = [{name: float(value) for name, value in row.items()} for row in run.metrics()]
        except ValueError as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        self._rows = [row for row in rows if "step" in row]
        training = [row["step"] for row in self._rows if any(name.startswith("train/") for name in row)]
        self._last = max(training, default=-math.inf)

    def __getitem__(self, name: str) -> list[Point]:
        """Return (step, value) pairs of a scalar in order of step; steps count from 1."""
        points = {row["step"] + 1: row[name] for row in self._rows if name in row and row["step"] <= self._last}
        return [(step, value) for step, value in sorted(points.items()) if math.isfinite(value)]

    def scalars(self) -> list[str]:
        """Return the names of the logged loss terms and diagnostics, without scores, in alphabetical order."""
        logged = {name for row in self._rows if row["step"] <= self._last for name in row}
        names = {scalar_of(name) for name in logged if not name.startswith("test/")}
        return sorted(name for name in names if "/" in name or f"train/{name}" in logged)


def read_plane(folder: Path) -> list[dict[str, float]]:
    """Read the points of the information plane, in order of step; an empty list without a file.

    The points have `information` only if all of them have it in the file.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / "information_plane.json"
    if not path.is_file():
        return []
    try:
        points = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
        names = ["step", "rate_text", "rate_image", "distortion"]
        names += ["information"] if all("information" in point for point in points) else []
        return [{name: float(point[name]) for name in names} for point in points]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is no information plane: {error}") from error
