"""Configurations compared within slices: the same rows for all runs, and tests restricted to each slice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmib.analysis.comparison import compare
from mmib.analysis.slice_comparison import compare_slices
from mmib.cli import main
from mmib.metrics import label_tensor
from mmib.records import TrainingItems
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import RunError

from .toy_runs import RELATIONS, ROWS, make_run, write_records

RESAMPLES = 500
WORDS = {"short": ["Anna", "met", "Bob"], "long": ["Anna", "met", "Bob", *["very"] * 20]}
LONG = np.arange(ROWS) % 3 == 0


def make_sliced(root: Path, name: str, seed: int, skill: float, images: str = "own", **changes: Any) -> FinishedRun:
    """A toy run whose odd rows contain a pair seen in training, and whose every third row is long."""
    run = make_run(root, name, seed, skill, **changes)
    records = [
        {
            **record,
            "words": WORDS["long" if LONG[row] else "short"],
            "head": [0, 1],
            "tail": [2, 3] if row % 2 else [1, 2],
            "image": f"img/{row}.jpg",
            # Similarity of own images increases with the row number; that of shuffled images decreases.
            "similarity": row / ROWS if images == "own" else -row / ROWS,
        }
        for row, record in enumerate(run.predictions("test"))
    ]
    write_records(run.folder, records)
    config = run.config() | {"data": {"init_args": {"images": images}}}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_training(run, {"None": 300}, "anna\tbob")
    return read_run(run.folder)


def write_training(run: FinishedRun, labels: dict[str, int], *forms: str) -> None:
    content = TrainingItems(labels, frozenset(forms)).to_dict()
    (run.folder / "training.json").write_text(json.dumps(content))


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, list[FinishedRun]]:
    skills = {"full": 0.8, "text only": 0.3}
    return {name: [make_sliced(tmp_path, name, seed, skill) for seed in (1, 2, 3)] for name, skill in skills.items()}


def part(table: Any, name: str) -> list[Any]:
    return [row for row in table.rows if row.part == name]


def test_a_slice_is_scored_and_tested_like_a_table_of_its_rows(groups: dict[str, list[FinishedRun]]) -> None:
    table = compare_slices(groups, baseline="full", resamples=RESAMPLES)
    names = list(dict.fromkeys(row.part for row in table.rows))
    assert names == [
        *("surface form: seen in training", "surface form: never seen"),
        *("image: more aligned half", "image: less aligned half"),
        *("length: up to 12 words", "length: over 18 words"),
    ]
    for runs in groups.values():
        for run in runs:
            records = run.predictions("test")
            write_records(run.folder, [record for record, long in zip(records, LONG, strict=True) if long])
    alone = compare(groups, baseline="full", resamples=RESAMPLES)
    for found, expected in zip(part(table, "length: over 18 words"), alone.rows, strict=True):
        assert (found.name, found.seeds) == (expected.name, expected.seeds)
        assert found.values == pytest.approx(expected.values)
        assert (found.mean, found.sd) == (pytest.approx(expected.mean), pytest.approx(expected.sd))
        assert (found.low, found.high) == (
            pytest.approx(expected.low, abs=0.05),
            pytest.approx(expected.high, abs=0.05),
        )
    lower = part(table, "length: over 18 words")[1]
    assert lower.difference == pytest.approx(alone.rows[1].difference)
    assert lower.p < 0.05
    gold = label_tensor([RELATIONS.index(record["gold"]) for record in groups["full"][0].predictions("test")])
    assert {row.gold for row in part(table, "length: over 18 words")} == {int((gold != RELATIONS.index("None")).sum())}


def test_recall_within_a_slice(groups: dict[str, list[FinishedRun]]) -> None:
    table = compare_slices({"full": groups["full"][:1]}, metric="recall", resamples=RESAMPLES)
    records = groups["full"][0].predictions("test")[1::2]
    right = [record["gold"] == record["predicted"] for record in records if record["gold"] != "None"]
    (row,) = part(table, "surface form: seen in training")
    assert row.mean == pytest.approx(np.mean(right))
    with pytest.raises(RunError, match="slices are not scored by 'accuracy': choose from precision, recall, f1"):
        compare_slices(groups, metric="accuracy")


def test_image_slices_use_only_runs_with_unshuffled_images(tmp_path: Path) -> None:
    """Two runs with shuffled images do not outvote one with the posts' own."""
    skills = {"own": "own", "others": "shuffled", "again": "shuffled"}
    groups = {name: [make_sliced(tmp_path, name, 1, 0.6, images=images)] for name, images in skills.items()}
    table = compare_slices(groups, resamples=RESAMPLES)
    records = groups["others"][0].predictions("test")[ROWS // 2 :]
    gold = sum(record["gold"] != "None" for record in records)
    assert {row.gold for row in part(table, "image: more aligned half")} == {gold}
    assert "image: rows by the alignment score" in table.notes
    table = compare_slices({"others": groups["others"]}, resamples=RESAMPLES)
    assert not part(table, "image: more aligned half")
    assert any("no slices by image: no row" in note for note in table.notes)


def test_the_training_rows_of_the_baseline_are_used(groups: dict[str, list[FinishedRun]]) -> None:
    for run in groups["text only"]:
        write_training(run, {"None": 30}, "anna\tbob", "anna\tmet")
    table = compare_slices(groups, baseline="full", resamples=RESAMPLES)
    assert part(table, "surface form: never seen")
    note = "surface form, label frequency: by the training rows of full, seed 1; other runs had others"
    assert note in table.notes
    table = compare_slices(groups, baseline="text only", resamples=RESAMPLES)
    assert not part(table, "surface form: never seen")
    assert "no slices by surface form: all belong to one part, 'seen in training'" in table.notes


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_the_command_prints_a_line_for_each_slice_and_configuration(
    groups: dict[str, list[FinishedRun]], tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    command = ["aggregate", str(tmp_path), "--slices", "--baseline", "full", "--format", form]
    assert main([*command, "--resamples", str(RESAMPLES)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "never seen" in line]
    assert len(lines) == 2
    if form == "markdown":
        cells = [cell.strip() for cell in lines[1].strip("|").split("|")]
        assert (cells[0], cells[2], cells[3]) == ("surface form: never seen", "text only", "1 2 3")
        assert 0 < float(cells[-1]) < 0.05


def test_a_relevance_file_applies_to_the_images_by_name(
    groups: dict[str, list[FinishedRun]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:
    file = tmp_path / "relevance.jsonl"
    file.write_text("".join(f'{{"image": "{row}.png", "relevance": {row % 2}}}\n' for row in range(ROWS)))
    command = ["aggregate", str(tmp_path / "full"), "--relevance", str(file)]
    assert "add --slices" in refused(*command)
    assert main([*command, "--slices", "--resamples", str(RESAMPLES)]) == 0
    output = capsys.readouterr().out
    assert "- image: rows by the relevance file\n" in output
    found = {line.split(" | ")[0]: line.split(" | ")[1:] for line in output.splitlines()}
    # Pairs in odd rows were seen in training, and their images are relevant.
    assert found["| image: more relevant half"] == found["| surface form: seen in training"]
    file.write_text('{"image": "other.jpg", "relevance": 1}\n')
    message = refused(*command, "--slices")
    assert "has no relevance of any image of the run" in message
    assert "it names other.jpg, the posts img/0.jpg" in message
