"""Measurements in sections: each has a limit of time, one that fails leaves the others alone, all give one table."""

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
    """A measured value, or why there is none.

    Attributes:
        what: was measured.
        value: the median, with the range of repeats.
        unit: of the value.
        times: how many times the value that the section compares with; its title says which.
        of_ceiling: share of the measured rate of matrix products.
        note: what else is to know.
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
    """Figures that belong together.

    Attributes:
        name: in one word.
        title: what is measured, and what `Figure.times` compares with.
        limit: share of the budget that it may take at most.
        measure: gives the figures one by one.
    """

    name: str
    title: str
    limit: float
    measure: Callable[[], Iterator[Figure]]


@dataclass
class Result:
    """What came of a section."""

    name: str
    title: str
    status: str = SKIPPED
    seconds: float = 0.0
    error: str = ""
    figures: list[Figure] = field(default_factory=list)


class OutOfTime(BaseException):
    """A section has reached its limit. No `Exception`, so that nothing takes it for a failed measurement."""


def figure(what: str, unit: str, measure: Callable[[], float | Sequence[float]], **more: Any) -> Figure:
    """A figure of one measurement or of several, which may fail.

    Args:
        what: is measured.
        unit: of the values.
        measure: gives them.
        more: further attributes.
    """
    try:
        values = measure()
    except Exception as error:  # what does not work on a machine must not hide what does
        return Figure(what, unit=unit, error=first_line(error), **more)
    return Figure(what, spread([values] if isinstance(values, (int, float)) else values), unit, **more)


def first_line(error: BaseException) -> str:
    """An error in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no more is known'}"


def run(sections: Sequence[Section], budget: float, write: Callable[[list[Result]], None]) -> list[Result]:
    """Measure the sections in their order.

    Args:
        sections: to measure.
        budget: seconds for all; what has not begun by then is skipped.
        write: is given the results whenever there are more, so that they outlive a process that is killed.
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
    """Raise `OutOfTime` after so many seconds."""

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
    """What could not be measured, with the reason."""
    found = [f"{result.name}: {result.error}" for result in results if result.error]
    return found + [f"{r.name}, {one.what}: {one.error}" for r in results for one in r.figures if one.error]


def markdown(results: Sequence[Result]) -> str:
    """The table of all sections; a line without a value says why."""
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
    """The median, with the range where there is one."""
    median, low, high = (f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}" for number in value)
    return median if value.low == value.high else f"{median} ({low} to {high})"


def _cell(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", "\\|")


def write_report(folder: Path, name: str, head: dict[str, Any], results: Sequence[Result]) -> None:
    """`<name>.json` and `<name>.md` in a folder."""
    content = {**head, "sections": [_as_json(result) for result in results]}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    lines = [f"{key}: {value}" for key, value in head.items()]
    write_text(folder / f"{name}.md", "\n\n".join([*lines, markdown(results)]) + "\n")


def _as_json(result: Result) -> dict[str, Any]:
    """The result with its spreads by name."""
    content = asdict(result)
    for measured, one in zip(content["figures"], result.figures, strict=True):
        measured["value"] = None if one.value is None else one.value._asdict()
    return content
