"""Studies: each run is made once, failures are recorded, and tables and figures match the runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.cli import main
from mmib.datamodules.released import MNRE
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import ConfigError
from mmib.search import study
from mmib.search.trials import TrialError

ROWS = 40
STUDY: dict[str, Any] = {
    "name": "toy",
    "experiments": ["mre-demo"],
    "seeds": [1, 2],
    "baseline": {"variant": "full"},
    "factors": {
        "variant": {"full": [], "without AR": ["--model.gamma", "0"]},
        "share of noise": {0.2: [], 0.5: ["--data.demo.noise", "0.5"]},
    },
}


def logits(label: str) -> list[float]:
    """Logits of a confident prediction."""
    return [30.0 * (name == label) for name in MNRE.names]


class Trainer:
    """Replaces `run_trial`: without AR a run is right on fewer rows, and noise changes the test rows."""

    def __init__(self) -> None:
        self.trained: list[list[str]] = []
        self.broken: tuple[str, ...] = ()
        self.reason = "mmib: it does not converge"
        self.noisy = "noisy"
        self.split = "test"
        self.known: Callable[[int], dict[str, Any]] = lambda row: {}
        self.validation: Callable[[Sequence[str]], float] = lambda options: 0.5
        self.rate: Callable[[Sequence[str]], float] = lambda options: 50.0

    def __call__(self, options: Sequence[str], folder: Path, stop: Any = None) -> FinishedRun:
        self.trained.append(list(options))
        if self.broken and set(self.broken) <= set(options):
            raise TrialError(self.reason)
        seed = int(options[options.index("--seed_everything") + 1])
        split = "val" if "--evaluate" in options else self.split
        right = (20 if "--model.gamma" in options else 30) + seed
        data = self.noisy if "--data.demo.noise" in options else "clean"
        run = folder / "toy" / "1"
        for part in ("predictions", "checkpoints"):
            (run / part).mkdir(parents=True)
        golds = [MNRE.names[1 + row % 3] for row in range(ROWS)]
        guesses = [gold if row < right else MNRE.names[9] for row, gold in enumerate(golds)]
        records = [
            {"id": row, "gold": gold, "predicted": guess, "scores": logits(guess), **self.known(row)}
            for row, (gold, guess) in enumerate(zip(golds, guesses, strict=True))
        ]
        (run / "predictions" / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        summary = {
            **{
                "task": "mre",
                "plugins": ["relevance"],
                "corpus": "demo-study",
                "experiment": "toy",
                "seed": seed,
                "val": {"f1": self.validation(options)},
                "bottleneck": {name: {"rate": {"end": self.rate(options)}} for name in ("text", "image")},
            },
            **{"test": {"f1": right / ROWS} if split == "test" else None},
            **{"data": {split: {"rows": ROWS, "sha256": data * 4}}},
            **{"ceiling": {"split": split, "text": 0.6, "multimodal": 0.9}, "versions": {"mmib": "0.1.0"}},
        }
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "config.yaml").write_text("name: toy\n")
        return read_run(run)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    stub = Trainer()
    monkeypatch.setattr(study, "run_trial", stub)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return stub


@pytest.fixture
def record(tmp_path: Path) -> Any:
    path = tmp_path / "runs" / "study" / "toy" / "mre-demo" / "study.json"
    return lambda: json.loads(path.read_text())


def row(record: Any, variant: str, noise: float) -> dict[str, Any]:
    (found,) = [row for row in record["rows"] if row["point"] == {"variant": variant, "share of noise": noise}]
    return found


def test_each_trial_is_trained_once_per_seed(trainer: Trainer, record: Any) -> None:
    assert main(["study", "toy.yaml"]) == 0
    assert len(trainer.trained) == 8
    assert main(["study", "toy.yaml", "--parallel", "3"]) == 0
    assert len(trainer.trained) == 8
    assert main(["study", "toy.yaml", "--seeds", "1", "2", "3"]) == 0
    assert len(trainer.trained) == 12
    assert row(record(), "full", 0.2)["seeds"] == [1, 2, 3]


def test_tables_show_how_well_irrelevant_images_are_detected(trainer: Trainer, record: Any, tmp_path: Path) -> None:
    def known(row: int) -> dict[str, Any]:
        noise = "meme" if row % 2 else None
        return {"noise": noise, "relevance_posterior": 0.0 if noise else 1.0, "kl_image": [float(noise is None)]}

    trainer.known = known
    assert main(["study", "toy.yaml", "--seeds", "1"]) == 0
    expected = {"KL of the image": 1.0, "similarity": None, "attention": None, "best possible": 1.0}
    assert row(record(), "full", 0.5)["auc"] == expected
    folder = tmp_path / "runs" / "study" / "toy" / "mre-demo"
    table = (folder / "table.md").read_text()
    assert "| configuration | KL of the image | similarity | attention | best possible |" in table
    assert "| full, share of noise 0.5 | 1.000 |  |  | 1.000 |" in table
    page = (folder / "report.html").read_text()
    assert "AUC of signals" in page
    trainer.known = lambda row: {}
    assert main(["study", "toy.yaml", "--seeds", "2"]) == 0
    assert "AUC" not in (folder / "table.md").read_text()


def test_scores_are_divided_by_slices_and_tested_within_them(trainer: Trainer, record: Any, tmp_path: Path) -> None:
    """Correctness depends on the row: all of the first rows, whose posts are short, are right."""
    trainer.known = lambda row: {
        "words": ["Anna", "met", "Bob", *["very"] * (20 * (row >= 20))],
        **{"head": [0, 1], "tail": [2, 3], "image": f"{row}.jpg"},
    }
    (tmp_path / "relevance.jsonl").write_text(
        "".join(f'{{"image": "{row}.jpg", "relevance": {row}}}\n' for row in range(ROWS))
    )
    assert main(["study", "toy.yaml", "--relevance", "relevance.jsonl"]) == 0
    full, without = (row(record(), variant, 0.2) for variant in ("full", "without AR"))
    parts = {part["part"]: part for part in without["slices"]}
    names = [
        "image: more relevant half",
        "image: less relevant half",
        "length: up to 12 words",
        "length: over 18 words",
    ]
    assert list(parts) == names == [part["part"] for part in full["slices"]]
    assert parts["length: up to 12 words"]["mean"] == 1.0
    assert parts["length: up to 12 words"]["difference"] == 0.0
    later = parts["length: over 18 words"]
    assert (later["values"], later["gold"]) == ([pytest.approx(1 / 20), pytest.approx(2 / 20)], 20)
    assert later["difference"] == pytest.approx(-10 / 20)
    assert later["p"] < 0.01
    assert parts["image: more relevant half"]["values"] == later["values"]
    assert without["errors"] == {"exact": 21.5, "wrong_label": 18.5, "other_span": 0, "missed": 0, "spurious": 0}
    folder = tmp_path / "runs" / "study" / "toy" / "mre-demo"
    table = (folder / "table.md").read_text()
    assert "| length: over 18 words | 20 | without AR, share of noise 0.2 | 1 2 | 7.5 | 3.5 |" in table
    assert "- no slices by surface form: the run has no training.json" in table
    assert "- image: rows by the relevance file" in table
    assert "| without AR, share of noise 0.2 | 21.5 | 18.5 | 0 | 0 | 0 |" in table
    page = (folder / "report.html").read_text()
    assert page.count('<th scope="row">length: over 18 words</th>') == 4
    assert "Kinds of errors" in page


def test_a_relevance_file_for_other_images_is_refused(
    trainer: Trainer, tmp_path: Path, refused: Callable[..., str]
) -> None:
    trainer.known = lambda row: {"image": f"{row}.jpg"}
    (tmp_path / "relevance.jsonl").write_text('{"image": "other.jpg", "relevance": 1}\n')
    assert "no relevance of any image of the run" in refused("study", "toy.yaml", "--relevance", "relevance.jsonl")


def test_the_predictions_of_a_run_are_read_once(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    predictions = FinishedRun.predictions

    def counted(run: FinishedRun, split: str) -> list[dict[str, Any]]:
        read.append(run.folder)
        return predictions(run, split)

    monkeypatch.setattr(FinishedRun, "predictions", counted)
    assert main(["study", "toy.yaml"]) == 0
    assert len(read) == len(set(read)) == 8


def searched(tmp_path: Path, **further: Any) -> None:
    settings = {"weak": ["--model.beta_text", "1e-4"], "strong": ["--model.beta_text", "1e-2"]}
    content = STUDY | {"search": {"seed": 7, "settings": settings, **further}, "seeds": [1, 7]}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_each_combination_gets_its_best_setting_on_validation(trainer: Trainer, record: Any, tmp_path: Path) -> None:
    searched(tmp_path)
    # The strong setting is better only without alignment.
    trainer.validation = lambda options: 0.6 if ("1e-2" in options) == ("--model.gamma" in options) else 0.4
    assert main(["study", "toy.yaml"]) == 0
    # Eight runs of the search; of the four chosen settings seed 7 exists already.
    assert len(trainer.trained) == 8 + 4
    full, without = (row(record(), variant, 0.2) for variant in ("full", "without AR"))
    assert full["search"] == {"scores": {"weak": 0.6, "strong": 0.4}, "setting": "weak"}
    assert without["search"]["setting"] == "strong"
    assert full["seeds"] == without["seeds"] == [1, 7]
    assert trainer.trained[-1][2:6] == ["--model.beta_text", "1e-2", "--model.gamma", "0"]
    table = (tmp_path / "runs" / "study" / "toy" / "mre-demo" / "table.md").read_text()
    assert "| without AR, share of noise 0.2 | 40.0 | **60.0** |" in table
    assert "- strong: `--model.beta_text 1e-2`" in table


def test_a_search_with_options_has_separate_runs_that_are_not_scored_on_test(
    trainer: Trainer, record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(tmp_path, options=["--trainer.max_epochs", "1"])
    trainer.validation = lambda options: 0.6 if "1e-2" in options else 0.4
    assert main(["study", "toy.yaml"]) == 0
    alone, compared = trainer.trained[:8], trainer.trained[8:]
    assert len(compared) == 4 * 2
    shortened = ["--trainer.max_epochs", "1", "--evaluate", "val"]
    assert all(options[options.index("--seed_everything") - 4 :][:4] == shortened for options in alone)
    assert not any({"--trainer.max_epochs", "--evaluate"} & set(options) for options in compared)
    assert all("1e-2" in options for options in compared)
    table = (tmp_path / "runs" / "study" / "toy" / "mre-demo" / "table.md").read_text()
    assert "- all of them in the search alone: `--trainer.max_epochs 1`" in table
    assert "no test split" not in capsys.readouterr().out


def test_options_after_two_dashes_go_to_every_run_before_those_of_settings_and_levels(
    trainer: Trainer, tmp_path: Path
) -> None:
    searched(tmp_path)
    assert main(["study", "toy.yaml", "--seeds", "1", "--", "--data.root", "/home/ada/posts"]) == 0
    assert len(trainer.trained) == 8 + 4
    assert all(options[2:5] == ["--data.root", "/home/ada/posts", "--model.beta_text"] for options in trainer.trained)
    folder = tmp_path / "runs" / "study" / "toy" / "mre-demo"
    for name in ("study.json", "table.md"):
        text = (folder / name).read_text()
        assert "posts" in text
        assert "/home/ada" not in text
    assert main(["study", "toy.yaml", "--", "--runs", "elsewhere"]) == 2


def test_without_a_test_split_runs_are_compared_on_validation_as_table_and_progress_report(
    trainer: Trainer, record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.split = "val"
    trainer.validation = lambda options: 0.625
    assert main(["study", "toy.yaml"]) == 0
    progress = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert all("val f1 62.5, as there is no test split; " in line for line in progress)
    assert record()["split"] == "val"
    assert row(record(), "full", 0.2)["mean"] == pytest.approx(31.5 / ROWS)
    table = (tmp_path / "runs" / "study" / "toy" / "mre-demo" / "table.md").read_text()
    assert "Scores are on validation, which also selected checkpoints" in table


def test_incomplete_searches_are_not_compared(trainer: Trainer, record: Any, tmp_path: Path) -> None:
    searched(tmp_path)
    trainer.broken = ("--model.gamma", "1e-2")
    assert main(["study", "toy.yaml"]) == 1
    left_out = row(record(), "without AR", 0.2)
    assert left_out["mean"] is None
    assert left_out["reason"] == "mmib: it does not converge"
    assert main(["study", "toy.yaml", "--only-tables"]) == 0
    assert row(record(), "without AR", 0.5)["reason"].startswith("not compared: only 1 of the 2 settings of its search")
    assert row(record(), "full", 0.5)["mean"] is not None


def test_rates_calibration_and_losses_are_shown_with_the_scores(trainer: Trainer, record: Any, tmp_path: Path) -> None:
    trainer.rate = lambda options: 10.0 if "--model.gamma" in options else 200.0
    assert main(["study", "toy.yaml", "--seeds", "1"]) == 0
    measured = row(record(), "without AR", 0.2)["measures"]
    assert measured["rate_text"] == 10.0
    assert measured["calibration_error"] == pytest.approx(100 * (1 - 21 / ROWS))  # all predictions are confident
    assert measured["task_loss"] is None
    folder = tmp_path / "runs" / "study" / "toy" / "mre-demo"
    assert "| without AR, share of noise 0.2 | 10 | 10 | 47.5 |" in (folder / "table.md").read_text()
    assert "F1 against rate" in (folder / "rates.svg").read_text()


def test_predictions_of_a_run_are_kept_and_checkpoints_are_not(trainer: Trainer, tmp_path: Path) -> None:
    main(["study", "toy.yaml"])
    trials = tmp_path / "runs" / "study" / "points"
    assert len(list(trials.rglob("test.jsonl"))) == 8
    assert not list(trials.rglob("checkpoints"))


def test_a_seed_is_completed_before_the_next_one_begins(trainer: Trainer) -> None:
    main(["study", "toy.yaml"])
    assert [options[options.index("--seed_everything") + 1] for options in trainer.trained] == [*"1111", *"2222"]


@pytest.mark.parametrize("noisy", ["noisy", "clean"])
def test_scores_match_the_runs_and_trials_are_compared_within_rows_and_open_factors(
    trainer: Trainer, record: Any, noisy: str
) -> None:
    trainer.noisy = noisy  # irrelevant images may leave the text of the test rows, and so its digest, unchanged
    main(["study", "toy.yaml"])
    found = record()
    for noise in (0.2, 0.5):
        full, without = row(found, "full", noise), row(found, "without AR", noise)
        assert full["values"] == pytest.approx([31 / ROWS, 32 / ROWS])
        assert without["mean"] == pytest.approx(21.5 / ROWS)
        assert without["difference"] == pytest.approx(-10 / ROWS)
        assert without["p"] is not None
        assert full["difference"] is None
        assert full["ceilings"] == {"text": 0.6, "multimodal": 0.9}


def test_the_table_has_corpus_command_and_machine_and_one_part_per_test_set(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["study", "toy.yaml", "--results", "kept"])
    text = (tmp_path / "kept" / "toy-mre-demo.md").read_text()
    assert text in capsys.readouterr().out
    for text_part in (
        "demo-study",
        "`mmib study toy.yaml --results kept`",
        "cores",
        "text 60.0",
        "text and image 90.0",
    ):
        assert text_part in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## share of noise 0.2",
        "## share of noise 0.5",
    ]
    assert (tmp_path / "kept" / "toy-mre-demo.svg").read_text().count("without AR") >= 1
    kept = json.loads((tmp_path / "kept" / "toy-mre-demo.json").read_text())
    assert (kept["task"], kept["plugins"]) == ("mre", ["relevance"])


def test_a_page_is_written(trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["study", "toy.yaml"])
    page = tmp_path / "runs" / "study" / "toy" / "mre-demo" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1].endswith("toy/mre-demo/report.html")
    assert "without AR" in page.read_text()


def test_a_failed_trial_is_recorded_and_the_others_continue(
    trainer: Trainer, record: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.broken = ("--model.gamma", "--data.demo.noise")
    assert main(["study", "toy.yaml"]) == 1
    failed = row(record(), "without AR", 0.5)
    assert failed["mean"] is None
    assert "does not converge" in failed["reason"]
    assert row(record(), "without AR", 0.2)["mean"] is not None
    assert "without AR, share of noise 0.5, seed 1 failed: mmib: it does not converge" in capsys.readouterr().out
    trainer.broken = ()
    assert main(["study", "toy.yaml"]) == 0
    assert row(record(), "without AR", 0.5)["mean"] is not None


def test_a_failed_seed_is_recorded_with_the_others_without_absolute_paths(
    trainer: Trainer, record: Any, tmp_path: Path
) -> None:
    trainer.broken = ("--seed_everything", "2")
    trainer.reason = "status 1: mmib: no folder /home/ann/x/data | it ended (output: /home/ann/runs/output.log)"
    assert main(["study", "toy.yaml"]) == 1
    found = row(record(), "without AR", 0.5)
    reason = "status 1: mmib: no folder …/data | it ended (output: …/output.log)"
    assert found["failed"] == [{"seed": 2, "reason": reason}]
    assert found["mean"] is not None
    for file in ("table.md", "report.html"):
        text = (tmp_path / "runs" / "study" / "toy" / "mre-demo" / file).read_text()
        assert f"without AR, share of noise 0.5, seed 2 failed: {reason}" in text


def test_tables_of_an_unfinished_study(trainer: Trainer, record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "toy.yaml", "--only-tables"]) == 0
    assert "nothing was measured" in capsys.readouterr().out
    trainer.broken = ("--model.gamma",)
    main(["study", "toy.yaml"])
    assert main(["study", "toy.yaml", "--only-tables"]) == 0
    assert {found["reason"] for found in record()["rows"] if found["mean"] is None} == {"not trained yet"}


def test_an_unknown_experiment_is_refused(trainer: Trainer) -> None:
    with pytest.raises(ConfigError, match="no experiment mner: choose from mre-demo"):
        study.run(["toy.yaml", "--experiment", "mner"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--model.gama", "0"], "mre-demo, without AR, share of noise 0.2: .*model.gama .*: did you mean gamma"),
        (["--model.gamma", "much"], "without AR, .*model.gamma: expected float, got .much"),
        (["--config", "mre-dmeo"], "without AR, .*mre-dmeo"),
    ],
    ids=["misspelt", "not a number", "no such file"],
)
def test_an_option_refused_by_fit_is_refused_before_the_first_run(
    trainer: Trainer, tmp_path: Path, setting: list[str], message: str
) -> None:
    factors = {**STUDY["factors"], "variant": {"full": [], "without AR": setting}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**STUDY, "factors": factors}, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        study.run(["toy.yaml"])
    assert trainer.trained == []


def test_results_of_an_experiment_in_another_folder_are_in_the_folder_of_the_study(
    trainer: Trainer, record: Any, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "relations.yaml").write_text("include: [mre-demo]\nname: custom\n")
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / "toy.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "experiments": ["../elsewhere/relations.yaml"]}, sort_keys=False))
    os.chdir(path.parent)
    assert main(["study", "toy.yaml", "--results", "kept"]) == 0
    assert {file.name for file in (path.parent / "runs" / "study" / "toy").iterdir()} == {"relations"}
    assert (path.parent / "kept" / "toy-relations.md").is_file()
    assert {file.name for file in tmp_path.iterdir()} == {"toy.yaml", "elsewhere", "here"}


def test_one_level_of_a_factor_has_separate_results_and_shares_the_runs(trainer: Trainer, tmp_path: Path) -> None:
    main(["study", "toy.yaml"])
    every = len(trainer.trained)
    assert main(["study", "toy.yaml", "--level", "share of noise=0.5"]) == 0
    assert len(trainer.trained) == every
    (path,) = (tmp_path / "runs" / "study").glob("toy-*/mre-demo/study.json")
    assert path.parents[1].name == "toy-0.5"
    assert {each["point"]["share of noise"] for each in json.loads(path.read_text())["rows"]} == {0.5}


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("share of noise=0.3", "no level of the study: choose from variant=full, .*share of noise=0.2"),
        ("noise", "no level of the study"),
        ("variant=without AR", "leaves out the baseline, variant=full"),
    ],
)
def test_a_level_that_does_not_exist_is_refused(trainer: Trainer, level: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study.run(["toy.yaml", "--level", level])


def test_progress_reports_completed_runs_and_their_duration(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["study", "toy.yaml"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert len(lines) == 8
    assert "[1/8] mre-demo, full, share of noise 0.2, seed 1: test f1 77.5; about" in lines[0]
    assert lines[-1].endswith("; done")


def test_sigterm_ends_the_running_trials_and_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    ended = []

    def wait(options: Sequence[str], folder: Path, stop: Callable[[Path], bool]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not stop(folder):
            time.sleep(0.01)
        ended.append(folder)

    monkeypatch.setattr(study, "run_trial", wait)
    assert main(["study", "toy.yaml"]) == 130
    assert len(ended) == 1
