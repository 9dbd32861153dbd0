"""Reading finished runs, and errors for unfinished and damaged ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.released import MNRE, TWITTER
from mmib.labels import LabelSet
from mmib.runs.reader import find_runs, fingerprint, newest_first, read_run, single_runs
from mmib.schema import RunError, TaskError


def make_run(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    summary = {"task": "mre", "experiment": "toy", "seed": 3, "val": {"f1": 0.5}, "test": None}
    summary |= {"selected": {"epoch": 1}, **changes}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_a_run_has_the_values_of_its_summary(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert (run.task, run.name, run.seed) == ("mre", "toy", 3)


def test_the_labels_of_a_run_come_from_its_summary(tmp_path: Path) -> None:
    labels = LabelSet(("likes", "no_relation"), "no_relation", {"likes": ("PER", "PRODUCT")})
    assert read_run(make_run(tmp_path / "run", task="any", labels=labels.to_dict())).labels == labels


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ({}, None),
        ({"root": "data"}, "data"),
        ({"root": "data/posts.jsonl"}, "data"),
        ({"root": "data", "image_folder": "data/images"}, "data"),
        ({"root": "data", "image_folder": "data2/images"}, "data2/images"),
        ({"root": "data/posts.jsonl", "image_folder": "images"}, "images"),
    ],
)
def test_images_of_a_run_are_in_its_data_or_in_a_separate_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], folder: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/posts.jsonl").touch()
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "config.yaml").write_text(json.dumps({"data": {"init_args": options}}), encoding="utf-8")
    assert run.image_root == (None if folder is None else Path(folder))


def test_different_shares_of_one_file_count_as_different_data(tmp_path: Path) -> None:
    data = {"rows": 12, "sha256": "abc", "held_out": {"val": 0.2}, "holdout_seed": 0}
    run = read_run(make_run(tmp_path / "run", data={"val": data, "test": {**data, "holdout_seed": 1}, "train": None}))
    assert run.fingerprint("val") == fingerprint({**data, "entities": 7}) != run.fingerprint("test")
    assert run.fingerprint("train") is None


@pytest.mark.parametrize(("task", "labels"), [("mre", MNRE), ("mner", TWITTER)])
def test_runs_of_version_0_1_have_the_released_labels(tmp_path: Path, task: str, labels: LabelSet) -> None:
    assert read_run(make_run(tmp_path / "run", task=task)).labels == labels


def test_an_unregistered_task_names_the_plugin_option(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", task="sarcasm", plugins=["sarcasm_task"]))
    assert run.task == "sarcasm"
    with pytest.raises(TaskError, match=r"by the task 'sarcasm'.*add --plugin sarcasm_task"):
        _ = run.labels


@pytest.mark.parametrize("labels", [[], {"names": ["a", "a"]}, {"names": ["a"], "negative": "b"}, "mnre", None])
def test_a_damaged_label_set_is_named(tmp_path: Path, labels: Any) -> None:
    run = read_run(make_run(tmp_path / "run", labels=labels))
    with pytest.raises(RunError, match=r"summary\.json holds no label set"):
        _ = run.labels


def test_runs_are_found_once_at_any_depth_and_sorted(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in ("a/2", "a/1", "b/c/1")]
    found = find_runs([tmp_path / "a" / "2", tmp_path, tmp_path / "a" / ".." / "a"])
    assert [run.folder for run in found] == [folders[0], folders[1], folders[2]]


def test_standalone_runs_exclude_those_of_sweeps_and_studies(tmp_path: Path) -> None:
    standalone = [make_run(tmp_path / name) for name in ("named", "toy/1", "toy/2")]
    make_run(tmp_path / "toy" / "3", selected=None)
    make_run(tmp_path / "study" / "points" / "mre-seed1")
    make_run(tmp_path / "mre-grid" / "points" / "001" / "toy" / "1")
    assert {run.folder for run in single_runs(tmp_path)} == set(standalone)


def test_the_most_recently_finished_run_comes_first(tmp_path: Path) -> None:
    for name, ended in (("a", 2000), ("b", 3000), ("c", 1000)):
        os.utime(make_run(tmp_path / name) / "summary.json", (ended, ended))
    assert [run.folder.name for run in newest_first(single_runs(tmp_path))] == ["b", "a", "c"]


def test_evaluations_count_as_runs_only_if_given_explicitly(tmp_path: Path) -> None:
    run, scored = make_run(tmp_path / "toy" / "1"), make_run(tmp_path / "toy" / "2", selected=None)
    assert [found.folder for found in find_runs([tmp_path])] == [run]
    assert [found.folder for found in find_runs([tmp_path, scored])] == [run, scored]


def test_a_folder_of_studies_refers_to_them(tmp_path: Path) -> None:
    study = tmp_path / "noise" / "mre-study"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    with pytest.raises(RunError, match=r"it holds studies, each with a page: mmib report .*noise.mre-study$"):
        find_runs([tmp_path / "noise"])


def test_an_unfinished_run_describes_how_to_resume_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: toy\n")
    with pytest.raises(RunError, match=r"has not finished.*mmib fit --config .*config.yaml"):
        find_runs([tmp_path / "run"])


@pytest.mark.parametrize(("name", "message"), [("nothing", "no run folder"), ("empty", "holds no finished training")])
def test_folders_without_runs_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=message):
        find_runs([tmp_path / name])


@pytest.mark.parametrize("content", ["{", "[]", '{"task": "mre"}', "\xff"])
def test_a_damaged_summary_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=r"summary\.json"):
        read_run(tmp_path)


def test_predictions_are_read_line_by_line(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    run.predictions_file("test").parent.mkdir()
    run.predictions_file("test").write_text('{"id": 0, "predicted": "None"}\n{"id": 1, "predicted": "None"}\n')
    assert [record["id"] for record in run.predictions("test")] == [0, 1]


def test_predictions_with_labels_other_than_the_summarys_are_refused(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", labels=["likes", "hates"]))
    run.predictions_file("val").parent.mkdir()
    run.predictions_file("val").write_text('{"id": 0, "predicted": "likes"}\n')
    assert len(run.predictions("val")) == 1
    labels = run.folder / "predictions" / "labels.json"
    labels.write_text('{"names": ["likes", "hates"]}')
    assert len(run.predictions("val")) == 1
    labels.write_text('{"names": ["likes", "follows"]}')
    with pytest.raises(
        RunError, match=r"summary\.json and .*labels\.json name different labels.*hates only in the first"
    ):
        run.predictions("val")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"3"])
def test_a_damaged_label_file_of_predictions_is_named(tmp_path: Path, content: bytes) -> None:
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "predictions").mkdir()
    (run.folder / "predictions" / "labels.json").write_bytes(content)
    with pytest.raises(RunError, match=r"labels\.json (cannot be read|holds no label set)"):
        run.predictions("test")


def test_missing_predictions_describe_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no predictions of val.*mmib validate --config"):
        read_run(make_run(tmp_path / "run")).predictions("val")


@pytest.mark.parametrize(
    "line",
    [
        *('{"id": 1, "pred', "[]", '{"id": 1}', "[" * 100_000, '{"id": {"a": 1}, "predicted": "None"}'),
        *('{"id": "1", "predicted": "None"}', '{"id": true, "predicted": "None"}'),
    ],
)
def test_a_damaged_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    run = read_run(make_run(tmp_path / "run"))
    run.predictions_file("val").parent.mkdir()
    run.predictions_file("val").write_text('{"id": 0, "predicted": "None"}\n' + line + "\n")
    with pytest.raises(RunError, match=r"val\.jsonl, line 2"):
        run.predictions("val")


def test_duplicate_predictions_of_a_row_are_refused(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    run.predictions_file("val").parent.mkdir()
    run.predictions_file("val").write_text('{"id": 7, "predicted": "None"}\n' * 2)
    with pytest.raises(RunError, match=r"val\.jsonl, lines 1 and 2 are both of row 7"):
        run.predictions("val")


def test_metrics_contain_exactly_the_logged_values(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.metrics() == []
    (run.folder / "metrics.csv").write_text("step,val/f1,train/loss\n1,,2.0\n2,0.5,\n")
    assert run.metrics() == [{"step": "1", "train/loss": "2.0"}, {"step": "2", "val/f1": "0.5"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"step,loss\n0,1,2\n", "row 1 has more values than there are columns"),
        (b"step,loss\n0,\xff\n", "cannot be read"),
        (b"step\n" + b"1" * 200_000, "field larger than field limit"),
    ],
)
def test_damaged_metrics_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "metrics.csv").write_bytes(content)
    with pytest.raises(RunError, match=rf"metrics\.csv.*{message}"):
        run.metrics()


@pytest.mark.parametrize("content", ["[1]", "a: [", None])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str | None) -> None:
    run = read_run(make_run(tmp_path / "run"))
    if content is not None:
        (run.folder / "config.yaml").write_text(content)
    with pytest.raises(RunError, match=r"config\.yaml"):
        run.config()


def test_the_configuration_of_an_old_run_has_todays_class_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "config.yaml").write_text(
        "data: {class_path: datamodules.twitter.TwitterDataModule, init_args: {}}\n"
    )
    for _ in range(2):
        assert run.config() == {
            "data": {"class_path": "mmib.datamodules.twitter.TwitterDataModule", "init_args": {}},
        }
    message = capsys.readouterr().err
    assert message.startswith(
        f"mmib: {run.folder / 'config.yaml'}: datamodules.twitter.TwitterDataModule is read as mmib."
    )
    assert message.count("\n") == 1


def test_the_folder_of_an_experiment_is_refused_with_the_name_of_a_run_in_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "toy" / "2026-01-01_00-00-00-seed3")
    with pytest.raises(RunError, match=f"^{tmp_path}/toy is no run, .*: name one of the runs in it, such as {run}$"):
        read_run(run.parent)
    with pytest.raises(RunError, match="name the folder of a run"):
        read_run(tmp_path)
