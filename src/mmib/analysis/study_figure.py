"""Draws the points of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmib.base.files import atomic_file

CEILINGS = {"text": "best with text", "multimodal": "best with text and image"}


def numeric_factor(factors: dict[str, list[Any]]) -> str | None:
    """The factor to draw along the axis: of those whose levels are all numbers, that with the most of them."""
    numeric = {
        name: levels
        for name, levels in factors.items()
        if len(levels) > 1 and all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    }
    return max(numeric, key=lambda name: len(numeric[name])) if numeric else None


def draw_study(record: Mapping[str, Any], path: Path) -> None:
    """Mean and 95 % interval of each point of a study, as SVG.

    Where the levels of a factor are numbers they are the axis, with a line for each combination of the others and the
    best possible scores dashed; elsewhere each point has a row, with a stroke for each seed.

    Args:
        record: what `study.json` holds; scores are fractions.
        path: the file.
    """
    from matplotlib import rc_context  # noqa: PLC0415 - half a second that only a finished study should spend
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = [row for row in record["rows"] if row["mean"] is not None]
    axis = numeric_factor(record["factors"])
    # Text stays text, and two figures of the same numbers are the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mmib"}), atomic_file(path) as file:
        figure = Figure(figsize=(7, 4) if axis else (7, 0.8 + 0.35 * len(rows)), layout="constrained")
        axes = figure.subplots()
        if axis:
            _draw_lines(axes, rows, axis)
        else:
            _draw_dots(axes, rows)
        axes.set_title(f"{record['name']}, {record['split']} {record['metric']} in percent", fontsize="medium")
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_lines(axes: Any, rows: Sequence[Mapping[str, Any]], axis: str) -> None:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: float(row["point"][axis])):
        others = [str(level) for factor, level in row["point"].items() if factor != axis]
        lines.setdefault(", ".join(others), []).append(row)
    width = max(float(row["point"][axis]) for row in rows) or 1.0
    for number, (name, own) in enumerate(lines.items()):
        # Side by side, so that intervals do not hide each other.
        places = [float(row["point"][axis]) + 0.008 * width * (number - (len(lines) - 1) / 2) for row in own]
        axes.errorbar(places, [100 * row["mean"] for row in own], _errors(own), label=name, marker="o", capsize=2)
    for ceiling, name in CEILINGS.items():
        best = {float(row["point"][axis]): 100 * row["ceilings"][ceiling] for row in rows if row.get("ceilings")}
        if best:
            axes.plot(
                *zip(*sorted(best.items()), strict=True), "--", color="0.5" if ceiling == "text" else "0.2", label=name
            )
    axes.set_xlabel(axis)
    axes.legend(frameon=False, fontsize="small")


def _draw_dots(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [", ".join(map(str, row["point"].values())) for row in rows]
    places = range(len(rows))
    axes.errorbar([100 * row["mean"] for row in rows], places, xerr=_errors(rows), fmt="o", capsize=2)
    for place, row in enumerate(rows):
        axes.plot([100 * value for value in row["values"]], [place] * len(row["values"]), "|", color="C1", zorder=3)
    for ceiling, name in CEILINGS.items():
        best = {row["ceilings"][ceiling] for row in rows if row.get("ceilings")}
        for score in best:
            axes.axvline(100 * score, linestyle="--", color="0.5" if ceiling == "text" else "0.2", label=name)
    if any(row.get("ceilings") for row in rows):
        axes.legend(frameon=False, fontsize="small")
    axes.set_yticks(places, names)
    axes.invert_yaxis()


def _errors(rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distance of both ends of the interval from the mean, in percent."""
    return [
        [100 * (row["mean"] - row["low"]) for row in rows],
        [100 * (row["high"] - row["mean"]) for row in rows],
    ]
