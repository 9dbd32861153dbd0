"""`mmib export` without a run: exports the best run of each task on the newest run's data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmib.cli import main
from mmib.export import best_runs
from mmib.export.folder import read_export
from mmib.schema import ExportError


def finish(
    folder: Path, f1: float | None, ended: int, task: str = "mre", corpus: str = "toys", rows: str = "x"
) -> Path:
    """A finished run with this summary."""
    folder.mkdir(parents=True)
    summary = {
        "task": task,
        "experiment": "toy",
        "corpus": corpus,
        "seed": 1,
        "selected": {"epoch": 1},
        "data": {"val": {"sha256": rows}},
        "val": None if f1 is None else {"f1": f1},
        "test": {"f1": 1 - (f1 or 0)},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    os.utime(folder / "summary.json", (ended, ended))
    return folder


def test_the_best_validation_score_among_runs_on_the_newest_runs_data_is_chosen(tmp_path: Path) -> None:
    best = finish(tmp_path / "toy" / "b", 0.8, ended=2)
    finish(tmp_path / "toy" / "c", 0.6, ended=5)
    finish(tmp_path / "toy" / "unscored", None, ended=4)
    finish(tmp_path / "other" / "corpus", 0.95, ended=3, corpus="books")
    finish(tmp_path / "other" / "rows", 0.99, ended=3, rows="y")
    finish(tmp_path / "grid" / "points" / "001" / "toy" / "1", 0.97, ended=9)
    entities = finish(tmp_path / "names" / "1", 0.1, ended=1, task="mner")
    first, second = best_runs(tmp_path)
    assert (first.run.folder, first.among) == (entities, 1)
    assert (second.run.folder, second.among) == (best, 3)
    shared = "on toys, the data of the newest run"
    assert str(second) == f"relation extraction: {best}, the best by validation F1, 0.8000, of 3 {shared}"
    assert str(first) == f"named entity recognition: {entities}, the one {shared}"


@pytest.mark.parametrize(("newer", "kept"), [("mner", "mner"), ("mre", "mre")])
def test_the_older_of_two_incompatible_models_is_omitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, newer: str, kept: str
) -> None:
    """For example after a first run on the demo corpus and a second one on different posts."""
    labels = {
        "mner": {"names": ["TEAM"]},
        "mre": {"names": ["None", "lives_in"], "negative": "None", "arguments": {"lives_in": ["PER", "LOC"]}},
    }
    for task, names in labels.items():
        folder = finish(tmp_path / task / "a", 0.5, ended=2 if task == newer else 1, task=task)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        (folder / "summary.json").write_text(json.dumps({**summary, "labels": names}), encoding="utf-8")
        os.utime(folder / "summary.json", (2, 2) if task == newer else (1, 1))
    assert [choice.run.task for choice in best_runs(tmp_path)] == [kept]
    assert "is left out, because no relation fits the entities of both models; name it to export it" in caplog.text


def test_the_newest_of_equal_runs_is_chosen(tmp_path: Path) -> None:
    folders = [finish(tmp_path / "toy" / name, 0.5, ended) for name, ended in (("a", 1), ("b", 3), ("c", 2))]
    (choice,) = best_runs(tmp_path)
    assert choice.run.folder == folders[1]
    assert "the best by validation F1, 0.5000 (the newest of 3 that have it), of 3 on toys" in str(choice)


def test_runs_of_sweeps_are_not_considered(tmp_path: Path) -> None:
    finish(tmp_path / "grid" / "points" / "001" / "toy" / "1", 0.9, ended=1)
    with pytest.raises(ExportError, match="those of sweeps and studies aside: name one, or make one with mmib fit"):
        best_runs(tmp_path)


def test_one_run_of_each_task_is_exported_and_reported(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_run("mre").parent
    make_run("mner", "other")
    monkeypatch.chdir(runs.parent)
    assert main(["export", "-o", str(tmp_path / "exported")]) == 0
    output, errors = capsys.readouterr()
    assert output == f"{tmp_path / 'exported'}\n"
    assert [line.partition(",")[0] for line in errors.splitlines() if line.startswith("mmib: ")] == [
        "mmib: named entity recognition: runs/other",
        "mmib: relation extraction: runs/run",
    ]
    assert [model.task for model in read_export(tmp_path / "exported")] == ["mner", "mre"]
