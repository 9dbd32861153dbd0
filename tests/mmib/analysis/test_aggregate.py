"""The command: grouping of runs, notes below the table, and refusals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from mmib.analysis.aggregate import group
from mmib.cli import main
from mmib.labels import LabelSet
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError

from .toy_runs import make_run, write_records

RESAMPLES = 500


def test_runs_are_grouped_by_a_setting_in_its_order(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"{gamma}", 1, settings={"gamma": gamma}) for gamma in (10, 0.5, 2)]
    assert list(group(runs, ["model.init_args.gamma"])) == ["0.5", "2", "10"]
    assert list(group(runs, ["model.gamma"])) == ["0.5", "2", "10"]
    assert list(group(runs)) == ["0.5", "10", "2"]


def test_runs_are_grouped_by_several_settings_and_numbers_are_sorted_numerically(tmp_path: Path) -> None:
    settings = [{"gamma": 1, "beta": 0.0}, {"gamma": 0, "beta": 0.5}, {"gamma": 0.0, "beta": 0.5}]
    runs = [make_run(tmp_path, str(seed), seed, settings=options) for seed, options in enumerate(settings)]
    groups = group(runs, ["model.init_args.gamma", "model.init_args.beta"])
    assert {name: [run.seed for run in options] for name, options in groups.items()} == {"0, 0.5": [1, 2], "1, 0": [0]}


@pytest.mark.parametrize("key", ["model.init_args.gama", "model.gama", "gamma", "model.init_args.gamma.x"])
def test_an_unknown_setting_error_lists_the_choices(tmp_path: Path, key: str) -> None:
    with pytest.raises(RunError, match=rf"seed1 has no '{key}': '\w+' is none of "):
        group([make_run(tmp_path, "a", 1)], [key])


def aggregate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main(["aggregate", *arguments, "--resamples", str(RESAMPLES)]) == 0
    return capsys.readouterr()


@pytest.mark.usefixtures("relevance")
def test_a_plugins_task_can_be_aggregated(
    relevance_labels: LabelSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted = {1: ["related", "unclear", "unrelated", "related"], 2: ["related", "related", "unrelated", "unclear"]}
    for seed, names in predicted.items():
        run = make_run(tmp_path, "gated", seed, task="relevance", labels=relevance_labels.to_dict(), data={})
        gold = ["related", "unclear", "unrelated", "unrelated"]
        pairs = enumerate(zip(gold, names, strict=True))
        write_records(run.folder, [{"id": row, "gold": a, "predicted": b} for row, (a, b) in pairs])
    output, _ = aggregate(capsys, str(tmp_path), "--metric", "precision")
    # 2 of 3 and 1 of 3: the negative class does not count.
    assert output.splitlines()[2].startswith("| gated | 1 2 | 50.0 | 23.6 |")
    assert "- relevance on toy: 4 rows of test\n" in output


def test_notes_below_the_table_describe_measures_and_method(
    toy: dict[str, list[FinishedRun]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "begun" / "wandb").mkdir(parents=True)
    for folder in ("begun", "begun/wandb"):
        (tmp_path / folder / "config.yaml").write_text("name: begun\n")
    output, _ = aggregate(capsys, str(tmp_path), "--baseline", "no_AR", "--test", "randomisation")
    table, notes = output.split("\n\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| full", "| no_AR", "| text only"]
    assert "- mre on toy: 60 rows of test, sha256 0123456789ab\n" in notes
    assert "versions: mmib 0.1.0; intervals by numpy" in notes
    assert "with the error of the seeds; 500 resamples\n" in notes
    assert "- differences: approximate randomisation" in notes
    assert f"- left out, not finished: {tmp_path / 'begun'}\n" in notes
    assert f"- command: mmib aggregate {tmp_path} --baseline no_AR --test randomisation --resamples 500\n" in notes


def test_the_table_is_written_to_a_file_and_csv_prints_notes_to_the_terminal(
    toy: dict[str, list[FinishedRun]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tables" / "table.csv"
    output, errors = aggregate(capsys, str(tmp_path), "--format", "csv", "--output", str(file))
    assert output == f"table: {file}\n"
    assert "60 rows of test" in errors
    rows = list(csv.DictReader(file.open()))
    assert [row["name"] for row in rows] == list(toy)


def test_runs_of_one_name_with_different_training_data_are_reported(
    toy: dict[str, list[FinishedRun]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = aggregate(capsys, str(tmp_path))
    assert "trained on different data" not in output
    data = toy["full"][0].summary["data"]
    make_run(tmp_path, "full", 4, data={**data, "train": {"rows": 5, "sha256": "a" * 64}})
    output, _ = aggregate(capsys, str(tmp_path))
    assert "the runs of full were trained on different data (sha256 aaaaaaaaaaaa, unknown)" in output


def test_runs_of_one_name_with_different_settings_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "a", 1)
    make_run(tmp_path, "a", 2, settings={"gamma": 0.1})
    output, _ = aggregate(capsys, str(tmp_path))
    assert "the runs of a differ in model.init_args.gamma: to tell them apart use --by" in output
    output, _ = aggregate(capsys, str(tmp_path), "--by", "model.init_args.gamma")
    assert "differ" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}/nothing"], "no run folder"),
        (["{root}/begun"], "has not finished"),
        (["{root}", "--baseline", "b"], "choose from a"),
        (["{root}", "--by", "model.beta"], "'beta' is none of gamma"),
        (["{root}", "--resamples", "5"], "too few"),
        (["{root}", "--output", "{root}/a/seed1/config.yaml/table.md"], "cannot be written"),
    ],
)
def test_bad_input_is_a_single_error_message(
    tmp_path: Path, refused: Callable[..., str], arguments: list[str], message: str
) -> None:
    make_run(tmp_path, "a", 1)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("name: begun\n")
    assert message in refused("aggregate", *(argument.format(root=tmp_path) for argument in arguments))
