"""Tables of runs: contents, three formats, and incomparable runs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmib.analysis.comparison import Comparison, Row, compare
from mmib.datamodules.released import MNRE
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import RunError, TaskError, task_named

from .toy_runs import RELATIONS, ROWS, make_group, make_run, write_records

RESAMPLES = 500


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_scores_match_the_summaries_of_the_runs(finished: Any, task: str) -> None:
    run = read_run(finished.folder)
    for metric in task_named(task).metric(run.labels).micro_scores():
        (row,) = compare({"own": [run]}, metric=metric, resamples=RESAMPLES).rows
        assert row.values == [pytest.approx(finished.summary["test"][metric])]
        assert (row.mean, row.sd, row.p) == (row.values[0], None, None)
    (row,) = compare({"own": [run]}, resamples=RESAMPLES).rows
    width = 2 * 1.96 * finished.summary["test"]["f1_se"]
    assert row.high - row.low == pytest.approx(width, rel=0.25, abs=1e-9)


def test_a_table_of_three_configurations(toy: dict[str, list[FinishedRun]]) -> None:
    table = compare(toy, baseline="full")
    full, close, far = table.rows
    assert [row.name for row in table.rows] == list(toy)
    assert full.seeds == [1, 2, 3]
    assert full.mean == pytest.approx(np.mean(full.values))
    assert full.sd == pytest.approx(np.std(full.values, ddof=1))
    assert full.low < full.mean < full.high
    assert (full.difference, full.p) == (None, None)
    assert far.difference == pytest.approx(far.mean - full.mean)
    assert (far.p or 1) < 0.05
    assert (far.difference_high or 0) < 0
    assert (close.p or 0) > (far.p or 1)


@pytest.mark.parametrize("test", ["bootstrap", "randomisation"])
def test_p_values_are_adjusted_for_multiple_comparisons(toy: dict[str, list[FinishedRun]], test: str) -> None:
    several = compare(toy, baseline="full", test=test)
    alone = compare({name: toy[name] for name in ("full", "text only")}, baseline="full", test=test)
    assert several.rows[2].p == pytest.approx(2 * (alone.rows[1].p or 0), rel=0.2)
    assert any("Holm-adjusted for 2 comparisons" in note for note in several.notes)
    assert not any("Holm" in note for note in alone.notes)


def test_neither_the_order_of_runs_nor_that_of_rows_matters(toy: dict[str, list[FinishedRun]]) -> None:
    straight = compare(toy, baseline="full", resamples=RESAMPLES).rows
    for run in toy["no_AR"]:
        write_records(run.folder, run.predictions("test")[::-1])
    mixed = compare({name: runs[::-1] for name, runs in toy.items()}, baseline="full", resamples=RESAMPLES).rows
    assert mixed == straight


def test_runs_are_paired_by_seed_where_possible(tmp_path: Path) -> None:
    groups = {"a": make_group(tmp_path, "a", (1, 2, 3)), "b": make_group(tmp_path, "b", (2, 3, 4), 0.5)}
    groups["c"] = make_group(tmp_path, "c", (7,), 0.5)
    groups["d"] = make_group(tmp_path, "d", (3, 4, 5), 0.5)
    table = compare(groups, baseline="a", resamples=RESAMPLES)
    _, b, c, _ = table.rows
    shared = compare({"a": groups["a"][1:], "b": groups["b"][:2]}, baseline="a", resamples=RESAMPLES).rows[1]
    assert b.difference == pytest.approx(shared.difference)
    assert (c.difference, c.p) == (None, None)
    assert "b and a are compared on their shared seeds 2 3 only" in table.notes
    assert "c and a are not compared: they share no seed" in table.notes
    assert "one seed, so the interval does not include the error of the seeds: c" in table.notes
    left_out = "so interval and p of the difference do not include the error of the seeds"
    assert f"one seed shared with a, {left_out}: d" in table.notes


def refusal(groups: dict[str, list[FinishedRun]], **options: Any) -> str:
    with pytest.raises(RunError) as caught:
        compare(groups, resamples=RESAMPLES, **options)
    return str(caught.value)


def test_different_tasks_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "a", 1), make_run(tmp_path, "b", 1, task="mner")]
    assert re.search(r"a/seed1 is of mre, .*b/seed1 of mner", refusal({"a": runs[:1], "b": runs[1:]}))


def test_different_label_sets_are_refused_and_both_shown(tmp_path: Path) -> None:
    """Runs of version 0.1 record no labels and are assumed to have those of MNRE."""
    other = {"names": [*RELATIONS[:5], "follows"], "negative": "None"}
    runs = [make_run(tmp_path, "a", 1), make_run(tmp_path, "b", 1, labels=other)]
    message = refusal({"a": runs[:1], "b": runs[1:]})
    assert re.search(
        r"a/seed1 and .*b/seed1 have different labels, 23 labels, None, .* against 6 labels, None", message
    )
    assert "follows only in the second" in message
    same = [make_run(tmp_path, name, 1, labels=MNRE.to_dict()) for name in ("c", "d")]
    assert len(compare({"a": runs[:1], "c": same[:1], "d": same[1:]}, resamples=RESAMPLES).rows) == 3


def test_label_ids_are_those_of_the_runs_label_set(tmp_path: Path) -> None:
    """The negative label is last and has another name."""
    labels = {"names": ["parent", "peer", "no_relation"], "negative": "no_relation"}
    run = make_run(tmp_path, "a", 1, labels=labels, data={})
    pairs = [("parent", "parent"), ("peer", "parent"), ("no_relation", "no_relation"), ("no_relation", "peer")]
    write_records(run.folder, [{"id": row, "gold": a, "predicted": b} for row, (a, b) in enumerate(pairs)])
    (row,) = compare({"a": [run]}, metric="precision", resamples=RESAMPLES).rows
    assert row.mean == pytest.approx(1 / 3)
    (row,) = compare({"a": [run]}, metric="recall", resamples=RESAMPLES).rows
    assert row.mean == pytest.approx(1 / 2)


def test_an_unregistered_task_names_the_plugin_option(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 1, task="sarcasm", plugins=["sarcasm_task"])
    with pytest.raises(TaskError, match=r"by the task 'sarcasm'.*add --plugin sarcasm_task"):
        compare({"a": [run]}, resamples=RESAMPLES)


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records[:-1],
        lambda records: [{**record, "id": record["id"] + 1} for record in records],
        lambda records: [{**records[0], "gold": RELATIONS[9]}, *records[1:]],
    ],
    ids=["a row less", "other ids", "other gold"],
)
def test_different_rows_are_refused(tmp_path: Path, change: Change) -> None:
    groups = {"a": [make_run(tmp_path, "a", 1)], "b": [rewritten(make_run(tmp_path, "b", 1), change)]}
    assert re.search(r"a/seed1 and .*b/seed1 were scored on different test rows", refusal(groups))


def test_a_different_fingerprint_is_refused(tmp_path: Path) -> None:
    other = make_run(tmp_path, "b", 1, data={"test": {"rows": ROWS, "sha256": "f" * 64}})
    assert "different test rows" in refusal({"a": [make_run(tmp_path, "a", 1)], "b": [other]})


def rewritten(run: FinishedRun, change: Change) -> FinishedRun:
    write_records(run.folder, change(run.predictions("test")))
    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: [{"id": 0, "predicted": "None"}], "row 0 has no gold label"),
        (lambda records: [*records, records[3]], "lines 4 and 61 are both of row 3"),
        (
            lambda records: [{**records[0], "predicted": "love"}],
            "row 0 has 'love' as predicted, which is no label of the run",
        ),
        (lambda records: [{**records[0], "predicted": ["None", "None"]}], "more or fewer predictions than labels"),
        (lambda records: [], "holds no rows"),
    ],
)
def test_damaged_predictions_are_named(tmp_path: Path, change: Change, message: str) -> None:
    output = refusal({"a": [rewritten(make_run(tmp_path, "a", 1), change)]})
    assert "seed1/predictions/test.jsonl" in output
    assert message in output


def test_a_duplicate_seed_names_both_runs(tmp_path: Path) -> None:
    message = refusal({"a": [make_run(tmp_path, "a", 1), make_run(tmp_path, "again", 1)]})
    assert re.search(r"two runs of seed 1: .*a/seed1 and .*again/seed1", message)


def test_an_unknown_name_error_lists_the_choices(toy: dict[str, list[FinishedRun]]) -> None:
    assert "choose from full, no_AR, text only" in refusal(toy, baseline="none")
    assert "choose from precision, recall, f1, accuracy" in refusal(toy, metric="strict_f1")
    assert "no predictions of val" in refusal(toy, split="val")
    assert "'empty' has no finished run" in refusal({"empty": []})
    assert "no runs" in refusal({})


ROW = Row("50% of_a & b|c", [1, 2], [0.5, 0.6], 0.55, 0.07, 0.4, 0.7)
TABLE = Comparison(
    "f1",
    "base~line",
    [ROW, Row("other", [1], [0.25], 0.25, None, 0.2, 0.3, -0.3, -0.4, -0.2, 0.0002)],
    ["120 rows of test"],
)


def test_all_markdown_rows_have_the_same_number_of_columns() -> None:
    table, notes = TABLE.markdown().split("\n\n")
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    assert {len(row) for row in rows} == {8}
    assert rows[2] == [r"50% of_a & b\|c", "1 2", "55.0", "7.0", "40.0 to 70.0", "", "", ""]
    assert rows[3] == ["other", "1", "25.0", "", "20.0 to 30.0", "-30.0", "-40.0 to -20.0", "< 0.001"]
    assert notes == "- 120 rows of test\n"


def test_latex_special_characters_are_escaped() -> None:
    lines = TABLE.latex().splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrrr}"
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {8}
    assert rows[0][5] == r"minus base\textasciitilde{}line"
    assert rows[1][0] == r"50\% of\_a \& b\textbar{}c"
    assert rows[2][7] == "$<$ 0.001"
    assert lines[-2:] == [r"\end{tabular}", "% 120 rows of test"]


@pytest.mark.parametrize(("name", "cell"), [("[0.9, 0.999]", "{[}0.9, 0.999]"), ("*a*", "{*}a{*}")])
def test_a_name_in_latex_cannot_extend_the_command_of_the_previous_line(name: str, cell: str) -> None:
    assert f"\n{cell} & " in replace(TABLE, rows=[replace(ROW, name=name)]).latex()


def test_csv_has_full_precision(toy: dict[str, list[FinishedRun]]) -> None:
    table = compare(toy, baseline="full", resamples=RESAMPLES)
    for row, read in zip(table.rows, csv.DictReader(io.StringIO(table.csv())), strict=True):
        assert (read["name"], read["seeds"]) == (row.name, "1 2 3")
        assert [float(value) for value in read["values"].split()] == row.values
        for column in ("mean", "sd", "low", "high", "difference", "difference_low", "difference_high", "p"):
            assert (float(read[column]) if read[column] else None) == getattr(row, column)
