"""Sections respect their limits, and figures that cannot be measured have a reason."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from experiments.benchmarks.measure import Spread
from experiments.benchmarks.sections import DONE, STOPPED, Figure, OutOfTime, Section, figure, markdown, run


def test_a_section_is_stopped_at_its_share_of_the_budget_and_keeps_its_figures() -> None:
    def endless() -> Iterator[Figure]:
        yield Figure("first")
        while True:
            time.sleep(0.01)

    sections = [Section("endless", "", 0.01, endless), Section("next", "", 1.0, lambda: iter([Figure("second")]))]
    written: list[list[str]] = []
    began = time.monotonic()
    results = run(sections, 10, lambda results: written.append([result.status for result in results]))
    assert time.monotonic() - began < 5
    assert [result.status for result in results] == [STOPPED, DONE]
    assert [one.what for result in results for one in result.figures] == ["first", "second"]
    # Once before the first section, and after each.
    assert len(written) == 3
    assert written[1][0] == STOPPED


def test_running_out_of_time_is_no_failed_measurement() -> None:
    def out_of_time() -> float:
        raise OutOfTime

    with pytest.raises(OutOfTime):
        figure("x", "ms", out_of_time)


def test_a_figure_is_the_median_of_its_repeats_or_has_a_reason() -> None:
    assert figure("x", "ms", lambda: [3.0, 1.0, 2.0]).value == Spread(2.0, 1.0, 3.0)
    assert figure("x", "ms", lambda: 4).value == Spread(4, 4, 4)
    failed = figure("x", "ms", lambda: 1 / 0, note="so far")
    assert (failed.value, failed.error, failed.note) == (None, "ZeroDivisionError: division by zero", "so far")


def test_the_table_has_one_line_per_figure() -> None:
    many = Figure("many", Spread(1234.5, 1200.0, 1300.0), "rows/s", 2.0, 0.413)
    section = Section("rates", "of rows", 1.0, lambda: iter([many, Figure("none", error="a | b")]))
    lines = markdown(run([section], 10, lambda results: None)).splitlines()
    assert lines[2] == "| **rates** | of rows |  |  |  |  | done in 0 s |"
    assert lines[3] == "| rates | many | 1,234 (1,200 to 1,300) | rows/s | 2.00 | 41.3% |  |"
    assert lines[4] == "| rates | none |  |  |  |  | a \\| b |"
