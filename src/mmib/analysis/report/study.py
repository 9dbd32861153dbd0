"""The report on a study: tables and figures from `study.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.analysis.comparison import Comparison, Row
from mmib.analysis.measures import MEASURES, with_measures
from mmib.analysis.relevance import area_texts
from mmib.analysis.report.comparison import COLOURS
from mmib.analysis.report.history import shortened
from mmib.analysis.report.page import Section, table
from mmib.analysis.report.single import heading, percent
from mmib.analysis.slices import ERRORS, error_texts
from mmib.base.files import parse_json
from mmib.charts import Chart, Mark, Series, dot_plot, line_chart
from mmib.charts.markup import Html, element, join
from mmib.runs.reader import STUDY
from mmib.schema import RunError

CEILINGS = {"text": "best with text", "multimodal": "best with text and image"}
# Minimum ratio of the largest to the smallest rate to draw a figure, and the lower limit of rates in it.
TELLING = 2.0
FAINTEST = 0.01
CEILING_STYLES = {"text": "c7", "multimodal": "ink"}


@dataclass(frozen=True)
class Study:
    """The results of a study; scores are fractions.

    Attributes:
        folder: folder of the study.
        content: content of `study.json`.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.content["name"])

    @property
    def factors(self) -> dict[str, list[Any]]:
        """The varied factors and their levels."""
        factors: dict[str, list[Any]] = self.content["factors"]
        return factors

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The measured trials; the levels of a trial are under the key `point`."""
        return [row for row in self.content["rows"] if row.get("mean") is not None]

    @property
    def slices(self) -> list[Row]:
        """Scores of the trials by slice, grouped by part; empty in studies of older versions."""
        rows = [Row(_label(self, row), **part) for row in self.rows for part in row.get("slices") or ()]
        parts = list(dict.fromkeys(row.part for row in rows))
        return sorted(rows, key=lambda row: parts.index(row.part))


def read_study(folder: Path) -> Study:
    """Read the study in a folder.

    Raises:
        RunError: `study.json` cannot be read or is damaged.
    """
    path = folder / STUDY
    try:
        content = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
        study = Study(folder, content)
        for row in study.rows:
            float(row["mean"]), [row["point"][factor] for factor in study.factors]
        study.name, study.slices, content["metric"], content["task"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is no study ({type(error).__name__}: {error}): run the study again") from error
    return study


def sections(study: Study) -> list[Section]:
    """Return all sections of the report on a study."""
    content = study.content
    measured = f"{heading(str(content['metric']))} on the {content.get('split', 'test')} split"
    reading = (
        f"{measured} of {content.get('corpus', 'an unnamed corpus')}, mean over the seeds; 95 % bootstrap intervals."
    )
    figure = chart(study)
    shown = [] if figure is None else [Section("figure", "Figure", reading, figure.html)]
    notes = [element("li", str(note)) for note in [*_failed(study), *content.get("notes", []), _origin(content)]]
    return [
        *shown,
        Section("table", "Table", "" if shown else reading, _table(study)),
        *_slices(study),
        *_rates(study),
        *_relevance(study),
        Section("notes", "How this was measured", "", element("ul", *notes)),
    ]


def _slices(study: Study) -> list[Section]:
    """Return the section on scores by slice and kinds of errors, if the study has them."""
    sliced = study.slices
    failed = [[_label(study, row), *error_texts(row["errors"])] for row in study.rows if row.get("errors")]
    shown = []
    if sliced:
        compared = any(row.difference is not None for row in sliced)
        cells = Comparison(str(study.content["metric"]), _baseline(study) if compared else None, sliced, []).cells()
        shown.append(table(cells[0], cells[1:], "Scores by slice"))
    if failed:
        shown.append(table(["configuration", *ERRORS.values()], failed, "Kinds of errors, mean over the seeds"))
    reading = (
        "Parts of the rows, by properties of training data and posts, the same for all configurations; each is "
        "tested against the baseline within each part."
    )
    return [Section("slices", "Slices", reading, join(shown))] if shown else []


def _rates(study: Study) -> list[Section]:
    """Return the section on rates and other measures of the latents, if trials have them."""
    found, names = with_measures(study.rows)
    if not names:
        return []
    reading = (
        "Mean over the seeds. Rates, task loss, gap of the modalities' centres and rank of a post's image among the "
        "others' are those of validation; latents without noise have no rate."
    )
    rows = [[_label(study, row), *measure_texts(row["measures"], names)] for row in found]
    shown = table(["configuration", *(MEASURES[name] for name in names)], rows, "Rates and latents")
    figure = rate_chart(study)
    return [Section("rates", "Rates and latents", reading, shown if figure is None else join([figure.html, shown]))]


def measure_texts(measures: dict[str, float | None], names: Sequence[str]) -> list[str]:
    """Format measures for a table with three significant digits; empty if missing."""
    return ["" if (value := measures[name]) is None else f"{value:.3g}" for name in names]


def rate_chart(study: Study) -> Chart | None:
    """Plot mean and 95 % interval of the score against the rate of each modality; None if the rates hardly differ."""
    series = []
    for place, (modality, unit) in enumerate((("text", "nats a word piece"), ("image", "nats a region"))):
        rated = [
            (rate, row)
            for row in study.rows
            if (rate := (row.get("measures") or {}).get(f"rate_{modality}")) is not None
        ]
        rated.sort(key=lambda pair: pair[0])
        rates = [max(rate, FAINTEST) for rate, _ in rated]
        if len(rates) >= 3 and rates[-1] >= TELLING * rates[0]:
            points = [(rate, 100 * row["mean"]) for rate, (_, row) in zip(rates, rated, strict=True)]
            errors = [(100 * low, 100 * high) for low, high in (_interval(row) for _, row in rated)]
            series.append(Series(f"{modality}, {unit}", points, f"c{place}", errors))
    metric = heading(str(study.content["metric"]))
    return line_chart(f"{study.name}, {metric} against rate", series, "rate", "percent", "Bars: 95 % intervals.")


def _relevance(study: Study) -> list[Section]:
    """Return the section on how well signals separate relevant from irrelevant images, if trials measured it."""
    known = [row for row in study.rows if row.get("auc")]
    if not known:
        return []
    rows = [[_label(study, row), *area_texts(row["auc"])] for row in known]
    reading = (
        "Area under the ROC curve: the chance that a signal is higher for a relevant image than for an irrelevant one, "
        "mean over the seeds; 0.5 is chance, the best possible that of the true probability given words and image."
    )
    headings = ["configuration", *known[0]["auc"]]
    return [Section("relevance", "Irrelevant images", reading, table(headings, rows, "AUC of signals"))]


def _failed(study: Study) -> list[str]:
    """Return notes on the failed runs; studies of older versions do not record them."""
    return [
        f"{_label(study, row)}, seed {run['seed']} failed: {shortened(str(run['reason']))}"
        for row in study.content["rows"]
        for run in row.get("failed") or ()
    ]


def _origin(content: dict[str, Any]) -> str:
    return f"command: {content.get('command', 'unknown')}; machine: {content.get('machine', 'unknown')}"


def chart(study: Study) -> Chart | None:
    """Plot mean and 95 % interval of each trial of a study; None without trials.

    If the levels of a factor are numbers, they are the axis, with one line per combination of the other factors.
    Otherwise each trial has a row, with a stroke per seed. The best possible scores are shown too, if known.
    """
    if not study.rows:
        return None
    axis = numeric_factor(study.factors)
    split, metric = str(study.content.get("split", "test")), heading(str(study.content["metric"]))
    title = f"{study.name}, {split} {metric}"
    return _rows(study, title) if axis is None else _lines(study, title, axis)


def numeric_factor(factors: dict[str, list[Any]]) -> str | None:
    """Return the factor for the axis: among those with numeric levels only, the one with the most levels."""
    numeric = {
        name: levels
        for name, levels in factors.items()
        if len(levels) > 1 and all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    }
    return max(numeric, key=lambda name: len(numeric[name])) if numeric else None


def _rows(study: Study, title: str) -> Chart:
    styles = {name: f"{CEILING_STYLES[name]} stroke" for name in _known_ceilings(study)}
    marks = []
    for row in study.rows:
        low, high = _interval(row)
        best = {styles[name]: 100 * value for name in styles if (value := _ceiling(row, name)) is not None}
        values = [100 * value for value in row.get("values") or []]
        marks.append(Mark(_label(study, row), 100 * row["mean"], 100 * low, 100 * high, best, "c0", values))
    key = {CEILINGS[name]: style for name, style in styles.items()}
    return dot_plot(title, marks, key=key, note="Bars: 95 % intervals; strokes: seeds.")


def _lines(study: Study, title: str, axis: str) -> Chart | None:
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(study.rows, key=lambda row: float(row["point"][axis])):
        lines.setdefault(_label(study, row, axis), []).append(row)
    series = [
        Series(
            name or heading(str(study.content["metric"])),
            [(float(row["point"][axis]), 100 * row["mean"]) for row in rows],
            f"c{min(place, COLOURS - 2)}",
            [(100 * low, 100 * high) for low, high in map(_interval, rows)],
        )
        for place, (name, rows) in enumerate(lines.items())
    ]
    for name in _known_ceilings(study):
        best = {
            float(row["point"][axis]): 100 * value for row in study.rows if (value := _ceiling(row, name)) is not None
        }
        series.append(Series(CEILINGS[name], sorted(best.items()), f"{CEILING_STYLES[name]} dashed", dots=False))
    return line_chart(title, series, heading(axis), "percent", "Bars: 95 % intervals.")


def _ceiling(row: dict[str, Any], name: str) -> float | None:
    """Return the best possible score of a row, if the corpus provides it."""
    value: float | None = (row.get("ceilings") or {}).get(name)
    return value


def _known_ceilings(study: Study) -> list[str]:
    return [name for name in CEILINGS if any(_ceiling(row, name) is not None for row in study.rows)]


def _interval(row: dict[str, Any]) -> tuple[float, float]:
    """Return the ends of a row's interval; its mean if it has none."""
    low, high = (row["mean"] if row.get(name) is None else row[name] for name in ("low", "high"))
    return low, high


def _label(study: Study, row: dict[str, Any], without: str | None = None) -> str:
    return ", ".join(_level(factor, row["point"][factor]) for factor in study.factors if factor != without)


def _level(factor: str, level: Any) -> str:
    return level if isinstance(level, str) else f"{heading(factor)} {json.dumps(level)}"


def _table(study: Study) -> Html:
    ceilings = _known_ceilings(study)
    compared = any(row.get("difference") is not None for row in study.rows)
    rows = []
    for row in study.content["rows"]:
        point = row["point"]
        values = [
            str(value if isinstance(value, str) else json.dumps(value)) for value in (point[f] for f in study.factors)
        ]
        if row.get("mean") is None:
            cells = [shortened(str(row.get("reason") or "not measured"))]
        else:
            low, high = _interval(row)
            spread = "" if row.get("sd") is None else f" ± {percent(row['sd'])}"
            cells = [
                str(len(row.get("values") or [])),
                percent(row["mean"]) + spread,
                f"{percent(low)} to {percent(high)}",
                *(_difference(row) if compared else []),
                *("" if (value := _ceiling(row, name)) is None else percent(value) for name in ceilings),
            ]
        rows.append([*values, *cells])
    columns = [
        *map(heading, study.factors),
        "runs",
        f"{heading(str(study.content['metric']))} ± sd",
        "95 % interval",
        *([f"difference to {_baseline(study)}", "p"] if compared else []),
        *(CEILINGS[name] for name in ceilings),
    ]
    return table(columns, rows, f"{study.name}, in percent")


def _baseline(study: Study) -> str:
    baseline = study.content.get("baseline")
    if isinstance(baseline, dict):
        return ", ".join(_level(str(factor), level) for factor, level in baseline.items())
    return "the baseline" if baseline is None else str(baseline)


def _difference(row: dict[str, Any]) -> list[str]:
    if row.get("difference") is None:
        return ["", ""]
    ends = [row.get(name) for name in ("difference_low", "difference_high")]
    interval = "" if None in ends else f" ({', '.join(f'{100 * end:+.1f}' for end in ends if end is not None)})"
    p = row.get("p")
    return [
        f"{100 * row['difference']:+.1f}{interval}".replace("-", "\u2212"),
        "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
    ]
