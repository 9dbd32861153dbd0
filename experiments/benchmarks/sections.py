"""Measurements in sections, each with a time limit; a failed section does not affect the others; one table for all."""

from __future__ import annotations

import gc
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.benchmarks.measure import Spread, spread, table
from mmib.base.files import write_text

DONE, FAILED, STOPPED, SKIPPED = "done", "failed", "out of time", "skipped"
HEAD = ("section", "what", "measured: median (range)", "unit", "times", "of the ceiling", "note")


@dataclass
class Figure:
    """A measured value, or the reason for having none.

    Attributes:
        what: the measured quantity.
        value: the median, with the range of repeats.
        unit: unit of the value.
        times: ratio to the reference value of the section, which its title names.
        of_ceiling: share of the measured rate of matrix products.
        note: further information.
        error: why it could not be measured.
    """

    what: str
    value: Spread | None = None
    unit: str = ""
    times: float | None = None
    of_ceiling: float | None = None
    note: str = ""
    error: str = ""


class Section(NamedTuple):
    """A group of figures.

    Attributes:
        name: name in one word.
        title: what is measured, and the reference of `Figure.times`.
        limit: maximum share of the budget.
        measure: yields the figures.
    """

    name: str
    title: str
    limit: float
    measure: Callable[[], Iterator[Figure]]


@dataclass
class Result:
    """Result of a section."""

    name: str
    title: str
    status: str = SKIPPED
    seconds: float = 0.0
    error: str = ""
    figures: list[Figure] = field(default_factory=list)


class OutOfTime(BaseException):
    """A section has reached its limit. Not an `Exception`, so that it is not handled as a failed measurement."""


def figure(what: str, unit: str, measure: Callable[[], float | Sequence[float]], **more: Any) -> Figure:
    """Create a figure from one or several measurements, which may fail.

    Args:
        what: the measured quantity.
        unit: unit of the values.
        measure: returns the values.
        more: further attributes.
    """
    try:
        values = measure()
    except Exception as error:  # a failure must not hide what works on this machine
        return Figure(what, unit=unit, error=first_line(error), **more)
    return Figure(what, spread([values] if isinstance(values, (int, float)) else values), unit, **more)


def first_line(error: BaseException) -> str:
    """Format an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no more is known'}"


def run(sections: Sequence[Section], budget: float, write: Callable[[list[Result]], None]) -> list[Result]:
    """Run the sections in order.

    Args:
        sections: the sections.
        budget: seconds for all sections; those that have not begun by then are skipped.
        write: called with all results after each section, so that they survive if the process is killed.
    """
    began = time.monotonic()
    results = [Result(section.name, section.title) for section in sections]
    write(results)
    for section, result in zip(sections, results, strict=True):
        left = budget - (time.monotonic() - began)
        if left > 0:
            _run(section, result, min(left, section.limit * budget))
            _free_memory()
        else:
            result.error = f"the budget of {budget:.0f} s was spent before it"
        write(results)
    return results


def _run(section: Section, result: Result, limit: float) -> None:
    started = time.monotonic()
    try:
        with _alarm(limit):
            for measured in section.measure():
                result.figures.append(measured)
        result.status = DONE
    except OutOfTime:
        result.status, result.error = STOPPED, f"stopped after {limit:.0f} s"
    except Exception as error:  # see `figure`
        result.status, result.error = FAILED, first_line(error)
    result.seconds = time.monotonic() - started


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` after this many seconds."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def failures(results: Sequence[Result]) -> list[str]:
    """List the failed measurements, with the reason."""
    found = [f"{result.name}: {result.error}" for result in results if result.error]
    return found + [f"{r.name}, {one.what}: {one.error}" for r in results for one in r.figures if one.error]


def markdown(results: Sequence[Result]) -> str:
    """Format the table of all sections; a line without a value has the reason."""
    rows: list[list[str]] = []
    for result in results:
        rows.append([f"**{result.name}**", f"{result.title}", "", "", "", "", _state(result)])
        rows += [_row(result.name, measured) for measured in result.figures]
    return table(HEAD, rows)


def _state(result: Result) -> str:
    seconds = "" if result.status == SKIPPED else f" in {result.seconds:.0f} s"
    return f"{result.status}{seconds}" + (f": {_cell(result.error)}" if result.error else "")


def _row(section: str, measured: Figure) -> list[str]:
    return [
        section,
        _cell(measured.what),
        "" if measured.value is None else _range(measured.value),
        measured.unit,
        "" if measured.times is None else f"{measured.times:.2f}",
        "" if measured.of_ceiling is None else f"{measured.of_ceiling:.1%}",
        _cell("; ".join(filter(None, (measured.error, measured.note)))),
    ]


def _range(value: Spread) -> str:
    """Format the median, and the range if it is not empty."""
    median, low, high = (f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}" for number in value)
    return median if value.low == value.high else f"{median} ({low} to {high})"


def _cell(text: str) -> str:
    """Escape text for a table cell."""
    return text.replace("|", "\\|")


def write_report(folder: Path, name: str, head: dict[str, Any], results: Sequence[Result]) -> None:
    """Write `<name>.json` and `<name>.md` to a folder."""
    content = {**head, "sections": [_as_json(result) for result in results]}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    lines = [f"{key}: {value}" for key, value in head.items()]
    write_text(folder / f"{name}.md", "\n\n".join([*lines, markdown(results)]) + "\n")


def _as_json(result: Result) -> dict[str, Any]:
    """Convert a result to a dictionary, with the values of its spreads by name."""
    content = asdict(result)
    for measured, one in zip(content["figures"], result.figures, strict=True):
        measured["value"] = None if one.value is None else one.value._asdict()
    return content
