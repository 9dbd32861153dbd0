"""A complete run of each task: its results, and how it is scored again, repeated and resumed."""

from __future__ import annotations

import ast
import csv
import json
import logging
import math
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from mmib.cli import main
from mmib.configs import expand_configs
from mmib.datamodules.demo import read_ceilings, read_levels
from mmib.datamodules.labels import label_set
from mmib.labels import LabelSet
from mmib.schema import CheckpointError, ConfigError
from mmib.tagging import repair
from mmib.training.cli import MMIBCommand, check_checkpoint, execute
from tests.mmib.conftest import Run

# Runs in this process must start like those in separate processes.
pytestmark = pytest.mark.fresh_weights
LABELS = {"mre": label_set("mnre"), "mner": label_set("twitter")}
both_tasks = pytest.mark.parametrize("task", ["mre", "mner"])

Start = Callable[..., Any]
Refused = Callable[..., str]


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logged(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in metrics(folder) if row[name]]


def scored(task: str, records: list[dict[str, Any]]) -> dict[str, float]:
    """Scores of a predictions file, by scikit-learn or seqeval."""
    gold, predicted = ([record[key] for record in records] for key in ("gold", "predicted"))
    if task == "mre":
        relations = list(LABELS["mre"].scored)
        precision, recall, f1, _ = precision_recall_fscore_support(
            gold, predicted, labels=relations, average="micro", zero_division=0
        )
        return {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy_score(gold, predicted)}
    found = {"accuracy": seqeval.accuracy_score(gold, predicted)}
    for name in ("precision", "recall", "f1"):
        score = getattr(seqeval, f"{name}_score")
        found[name] = score(gold, predicted, zero_division=0)
        found[f"strict_{name}"] = score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0)
    return {**found, "f1_macro": seqeval.f1_score(gold, predicted, average="macro", zero_division=0)}


def points(scores: dict[str, Any]) -> dict[str, float]:
    """The scores of a summary without standard errors and class scores."""
    return {name: value for name, value in scores.items() if name not in ("f1_se", "classes")}


def gold_labels(task: str, demo: Path, split: str) -> list[Any]:
    """Relation of each row, or tags of each post, according to the corpus."""
    if task == "mre":
        lines = (demo / "txt" / f"ours_{split}.txt").read_text(encoding="utf-8").splitlines()
        return [ast.literal_eval(line)["relation"] for line in lines]
    text = (demo / "twitter2017" / {"val": "valid.txt"}.get(split, f"{split}.txt")).read_text(encoding="utf-8")
    posts = [block.split("\n")[1:] for block in text.strip("\n").split("\n\n")]
    return [[line.partition("\t")[2] for line in post] for post in posts]


# Results of a run


@pytest.mark.smoke
@both_tasks
def test_a_run_writes_everything_to_a_separate_folder(finished: Any, workspace: Any, task: str) -> None:
    files = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "predictions/val.jsonl",
        "predictions/test.jsonl",
        "latents/start.safetensors",
        "latents/selected.safetensors",
        "summary.json",
        "training.json",
    }
    assert finished.folder.parent == workspace.root / "runs" / f"tiny-{task}"
    assert finished.folder.name.endswith("-seed1")
    made = {path.name for path in workspace.root.iterdir()} - {path.name for path in workspace.experiments.values()}
    assert made == {"runs", "cache", "demo"}


def test_a_run_started_by_a_script_records_its_arguments(
    start: Start, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["script.py", "12"])
    options = ["--name", "two words", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1", "--evaluate=val"]
    run = start("fit", "--config", str(workspace.experiment), *options)
    called = shlex.join(["mmib", "fit", "--config", str(workspace.experiment), *options])
    assert run.summary["command"] == run.summary["commands"][0]["command"] == called


@both_tasks
def test_the_last_line_names_the_summary(finished: Any) -> None:
    assert finished.output.splitlines()[-1] == f"summary: {finished.folder / 'summary.json'}"
    assert "Traceback" not in finished.errors


@both_tasks
def test_the_summary_describes_settings_data_and_environment(finished: Any, workspace: Any, task: str) -> None:
    summary = finished.summary
    assert (summary["task"], summary["corpus"], summary["seed"]) == (task, "demo-tiny", 1)
    assert summary["command"] == f"mmib fit --config {workspace.experiments[task]}"
    assert summary["versions"].keys() >= {"python", "mmib", "torch", "pytorch-lightning", "transformers", "timm"}
    assert {split: described["rows"] for split, described in summary["data"].items()}.keys() == {"train", "val", "test"}
    assert all(len(described["sha256"]) == 64 for described in summary["data"].values())
    assert summary["images"]["test"].endswith("rows")
    assert LabelSet.from_dict(summary["labels"]) == LABELS[task]
    assert summary["plugins"] == []
    # Corpus and features may already exist from the other task's run.
    phases = {"set-up", "training", "evaluation"}
    assert phases <= summary["seconds"].keys() <= phases | {"demo corpus", "image features"}
    assert all(seconds > 0.0 for seconds in summary["seconds"].values())
    assert "time: set-up " in finished.output


@both_tasks
def test_the_summary_contains_the_epoch_selected_on_validation(finished: Any) -> None:
    """Defect 17: entity recognition kept the best epoch on the test split."""
    selected = finished.summary["selected"]
    history = logged(finished.folder, "val/f1")[:2]  # of both epochs, followed by the final scoring
    assert selected["split"] == "val"
    assert selected["metric"] == "val/f1"
    assert selected["epoch"] == history.index(max(history))
    assert selected["value"] == pytest.approx(max(history), abs=1e-6)
    assert finished.summary["val"]["f1"] == pytest.approx(selected["value"], abs=1e-6)
    content = torch.load(selected["checkpoint"], weights_only=True)
    assert content["epoch"] == selected["epoch"]


@both_tasks
@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_match_the_predictions_file(finished: Any, split: str, task: str) -> None:
    records = finished.predictions(split)
    assert [record["id"] for record in records] == list(range(finished.summary["data"][split]["rows"]))
    assert points(finished.summary[split]) == pytest.approx(scored(task, records))
    assert finished.summary[split]["f1"] > 0
    assert 0 < finished.summary[split]["f1_se"] < 0.2
    assert len({str(record["predicted"]) for record in records}) > 1


def test_predicted_relations_have_the_highest_logit(finished: Any) -> None:
    for record in finished.predictions("test"):
        assert len(record["scores"]) == len(LABELS["mre"])
        assert LABELS["mre"].names[int(np.argmax(record["scores"]))] == record["predicted"]


@pytest.mark.parametrize("task", ["mner"])
def test_each_word_has_a_tag_and_a_confidence_and_tags_are_valid_bio(finished: Any) -> None:
    for record in finished.predictions("test"):
        assert len(record["gold"]) == len(record["predicted"]) == len(record["confidence"])
        assert repair(record["predicted"]) == record["predicted"]
        for tag, confidence in zip(record["predicted"], record["confidence"], strict=True):
            assert 0 < confidence <= 1 or (tag, confidence) == ("O", 0), "0 where the word is beyond the longest input"


@both_tasks
def test_the_summary_has_slice_scores_of_each_split(finished: Any, workspace: Any, task: str) -> None:
    training = json.loads((finished.folder / "training.json").read_text())
    gold = gold_labels(task, workspace.root / "demo", "train")
    names = gold if task == "mre" else [tag[2:] for tags in gold for tag in repair(tags) if tag.startswith("B-")]
    assert training["labels"] == Counter(names)
    assert training["forms"] == sorted(set(training["forms"]))
    for split in ("val", "test"):
        found = finished.summary["slices"][split]
        records = finished.predictions(split)
        known = [record for record in records if record.get("relevance_posterior") is not None]
        if len({record["noise"] is None for record in known}) > 1:
            judge, names = "what the data set knows", ("relevant", "irrelevant")
        else:
            judge, names = "the alignment score", ("more aligned half", "less aligned half")
            known = [record for record in records if record["similarity"] is not None]
        assert found["image_by"] == judge
        groups = {f"{group['slice']}: {group['group']}": group for group in found["groups"]}
        for group in groups.values():
            assert 0 <= group["correct"] <= min(group["predicted"], group["gold"])
        assert sum(groups[f"image: {name}"]["rows"] for name in names) == len(known)
        gold = sum(found["errors"][kind] for kind in ("exact", "wrong_label", "other_span", "missed"))
        classes = finished.summary[split]["classes"].items()
        assert gold == sum(scores["gold"] for name, scores in classes if name != LABELS[task].negative)
        assert found["risk_coverage"]["curve"][-1][0] == 1.0
    for name, group in groups.items():  # of the test split
        shown = [f"{100 * group[score]:.1f}" for score in ("precision", "recall", "f1")]
        assert cells(finished.output, name) == [*shown, str(group["gold"])]


@both_tasks
@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_have_the_right_gold_labels(finished: Any, workspace: Any, split: str, task: str) -> None:
    """Defect 18: validation predictions were written with the text and images of the test split."""
    gold = [record["gold"] for record in finished.predictions(split)]
    assert gold == gold_labels(task, workspace.root / "demo", split)


@both_tasks
@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_contain_their_evidence(finished: Any, workspace: Any, split: str, task: str) -> None:
    demo = workspace.root / "demo"
    with_image = 0
    for record in finished.predictions(split):
        words, regions = len(record["words"]), len(record["boxes"])
        assert len(record["kl"]) == words
        assert all(nats is None or nats > 0 for nats in record["kl"])
        assert len(record["kl_image"]) == regions
        assert ("attention" in record) == (regions > 0)
        assert ("noise" in record) == ("relevance_posterior" in record) == (record["image"] is not None)
        assert (record["similarity"] is None) == (regions == 0)
        if regions:
            with_image += 1
            assert (demo / record["image"]).is_file()
            assert record["boxes"][0] == [0, 0, 1, 1]
            seen = {"mre": [True, True], "mner": [nats is not None for nats in record["kl"]]}[task]
            assert [weights is not None for weights in record["attention"]] == seen
            for weights in filter(None, record["attention"]):
                assert sum(weights) == pytest.approx(1.0, abs=1e-3)
                assert len(weights) == regions
    assert finished.summary["images"][split].endswith(f"{with_image} of {len(finished.predictions(split))} rows")


@both_tasks
def test_nats_of_regions_have_the_logged_mean(finished: Any) -> None:
    records = finished.predictions("val")
    nats = [value for record in records for value in record["kl_image"]]
    validated = logged(finished.folder, "val/ib/kl_image")[finished.summary["selected"]["epoch"]]
    assert sum(nats) / len(nats) == pytest.approx(validated, rel=1e-4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_words_and_entities_of_predictions_match_the_file(finished: Any, workspace: Any, split: str) -> None:
    lines = (workspace.root / "demo" / "txt" / f"ours_{split}.txt").read_text(encoding="utf-8").splitlines()
    rows = [ast.literal_eval(line) for line in lines]
    found = [(r["words"], r["head"], r["tail"]) for r in finished.predictions(split)]
    assert found == [(row["token"], list(row["h"]["pos"]), list(row["t"]["pos"])) for row in rows]


@both_tasks
def test_levels_and_ceilings_are_written_with_the_scores(finished: Any, workspace: Any, task: str) -> None:
    summary, demo = finished.summary, workspace.root / "demo"
    ceilings = read_ceilings(demo, "test", task)
    assert ceilings is not None
    assert summary["ceiling"] == {"split": "test", "text": ceilings["text"], "multimodal": ceilings["multimodal"]}
    for split in ("val", "test"):
        levels = read_levels(demo, split, task) or []
        for level in ("easy", "hard"):
            of_level = [record for record in finished.predictions(split) if levels[record["id"]] == level]
            assert points(summary["levels"][level][split]) == pytest.approx(scored(task, of_level))
    for level in ("easy", "hard"):
        assert summary["levels"][level]["ceiling"] == ceilings["levels"][level]["ceiling"]
        assert set(summary["levels"][level]["ceiling"]) == {"text", "multimodal"}
        assert summary["levels"][level]["rows"] == (read_levels(demo, "test", task) or []).count(level)


@both_tasks
def test_the_table_matches_the_summary(finished: Any, task: str) -> None:
    summary = finished.summary
    hard = summary["levels"]["hard"]
    columns = {"mre": ["accuracy"], "mner": ["f1_macro", "strict_f1"]}[task]
    shown = [hard["test"][key] for key in ("precision", "recall", "f1", "f1_se", *columns)]
    shown += [hard["ceiling"][key] for key in ("text", "multimodal")]
    assert cells(finished.output, "test, hard") == [f"{100 * value:.1f}" for value in shown]
    for path in (finished.checkpoint("best"), "metrics.csv", "config.yaml", summary["images"]["test"]):
        assert path in finished.output


@both_tasks
def test_every_class_of_the_test_split_has_its_row(finished: Any, task: str) -> None:
    classes = finished.summary["test"]["classes"]
    records = finished.predictions("test")
    found = {label for record in records for key in ("gold", "predicted") for label in np.ravel(record[key])}
    assert set(classes) == {label.removeprefix("B-") for label in found if not re.match("O$|I-", label)}
    for name, row in classes.items():
        shown = [f"{100 * row[key]:.1f}" for key in ("precision", "recall", "f1")]
        assert cells(finished.output, name) == [*shown, str(row["gold"])]


def cells(output: str, name: str) -> list[str]:
    """The cells of a table after the name of a row."""
    rows = ([cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines())
    return next(row[1:] for row in rows if row[0] == name)


# Scalars


TRAINING_SCALARS = (
    *("train/loss", "train/task", "align/loss", "align/mi_bound", "align/temperature"),
    *("align/accuracy_t2i", "align/accuracy_i2t"),
    *(f"ib/{name}_{modality}" for name in ("kl", "kl_std", "std", "beta") for modality in ("text", "image")),
)
SCORES: dict[str, tuple[str, ...]] = {
    "mre": ("f1", "precision", "recall", "accuracy"),
    "mner": ("f1", "precision", "recall", "accuracy", "f1_macro", "strict_f1", "strict_precision", "strict_recall"),
}


@both_tasks
def test_the_log_has_the_documented_names(finished: Any, task: str) -> None:
    columns = set(metrics(finished.folder)[0])
    on_validation = {f"val/{name.removeprefix('train/')}" for name in TRAINING_SCALARS}
    assert columns >= {*TRAINING_SCALARS, *on_validation}
    assert columns >= {f"{split}/{score}" for split in ("val", "test") for score in SCORES[task]}
    for name in TRAINING_SCALARS:
        assert len(logged(finished.folder, name)) == 2, f"{name} once an epoch"
        assert all(map(math.isfinite, logged(finished.folder, name)))


@both_tasks
def test_the_logged_terms_add_up_to_the_logged_loss(finished: Any) -> None:
    """L = L_task + beta * KL + gamma * L_align; validation is one batch."""
    values = {name: logged(finished.folder, f"val/{name}") for name in ("loss", "task", "align/loss")}
    kl_text, kl_image = (logged(finished.folder, f"val/ib/kl_{modality}") for modality in ("text", "image"))
    for number, loss in enumerate(values["loss"]):
        bottleneck = 0.002 * kl_text[number] + 0.004 * kl_image[number]
        expected = values["task"][number] + 0.5 * values["align/loss"][number] + bottleneck
        assert loss == pytest.approx(expected, rel=1e-4)


@both_tasks
def test_the_logged_score_matches_the_summary(finished: Any, task: str) -> None:
    for score in SCORES[task]:
        assert logged(finished.folder, f"test/{score}") == [pytest.approx(finished.summary["test"][score], abs=1e-6)]


# The saved configuration


def test_the_saved_configuration_is_complete(finished: Any) -> None:
    saved = yaml.safe_load((finished.folder / "config.yaml").read_text(encoding="utf-8"))
    assert saved["seed_everything"] == 1
    assert saved["model"]["init_args"]["gamma"] == 0.5
    assert saved["model"]["init_args"]["backbone"]["init_args"]["alignment"]["init_args"]["temperature"] == 0.07
    assert saved["data"]["init_args"]["max_length"] == 80
    assert "include" not in saved


@pytest.mark.smoke
@both_tasks
def test_the_saved_configuration_scores_the_checkpoint_again(finished: Any, start: Start, workspace: Any) -> None:
    config = str(finished.folder / "config.yaml")
    again = start("test", "--config", config, "--ckpt_path", finished.checkpoint("best"))
    assert again.folder != finished.folder
    assert again.summary["test"] == finished.summary["test"]
    assert again.summary["levels"]["hard"]["test"] == finished.summary["levels"]["hard"]["test"]
    assert again.summary["val"] is None
    assert again.summary["selected"] is None
    assert again.summary["checkpoint"] == finished.checkpoint("best")
    assert [record["predicted"] for record in again.predictions("test")] == [
        record["predicted"] for record in finished.predictions("test")
    ]
    validated = start("validate", "--config", config, "--ckpt_path", finished.checkpoint("best"))
    assert validated.summary["val"] == finished.summary["val"]
    assert validated.summary["test"] is None
    # Training items are known from the checkpoint's run, whatever is scored.
    assert again.summary["slices"] == {**finished.summary["slices"], "val": None}
    assert validated.summary["slices"] == {**finished.summary["slices"], "test": None}
    assert validated.output.splitlines()[-1] == f"summary: {validated.folder / 'summary.json'}"


@pytest.mark.parametrize("task", ["mre"])
def test_a_run_with_old_class_paths_is_scored_and_exported(
    finished: Any, start: Start, workspace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    config = run / "config.yaml"
    text = config.read_text(encoding="utf-8")
    old = text.replace("mmib.datamodules.", "datamodules.").replace(
        "mmib.callbacks.LatentSpace", "mmib.latents.LatentSpace"
    )
    assert all(name in old for name in (" datamodules.demo.module.", " mmib.latents.LatentSpace"))
    config.write_text(old, encoding="utf-8")
    again = start("test", "--config", str(config), "--ckpt_path", str(run / "checkpoints" / "best.ckpt"))
    assert again.summary["test"] == finished.summary["test"]
    assert again.errors.count("since version 0.2\n") == 1
    assert f"mmib: {config}: datamodules.demo.module.Demo" in again.errors
    assert main(["export", str(run), "-o", str(tmp_path / "exports")]) == 0
    assert "Traceback" not in capsys.readouterr().err


@both_tasks
def test_predictions_need_no_gold_labels(finished: Any, start: Start, task: str) -> None:
    config = str(finished.folder / "config.yaml")
    predicted = start("predict", "--config", config, "--ckpt_path", finished.checkpoint("best"))
    records = predicted.predictions("test")
    assert [record["predicted"] for record in records] == [
        record["predicted"] for record in finished.predictions("test")
    ]
    for record, reference in zip(records, finished.predictions("test"), strict=True):
        assert set(record) == set(reference) - {"gold"}
        assert (record["words"], record["image"], record["boxes"]) == (
            reference["words"],
            reference["image"],
            reference["boxes"],
        )
        assert record["kl"] == pytest.approx(reference["kl"], abs=2e-4)


@both_tasks
@pytest.mark.parametrize("images", ["none", "shuffled"])
def test_a_checkpoint_can_be_scored_without_images_and_with_shuffled_ones(
    finished: Any, start: Start, task: str, images: str
) -> None:
    options = ("--ckpt_path", finished.checkpoint("best"), "--data.images", images)
    run = start("test", "--config", str(finished.folder / "config.yaml"), *options)
    original, other = finished.summary["images"]["test"], run.summary["images"]["test"]
    if images == "none":
        assert all((record["image"], record["boxes"]) == (None, []) for record in run.predictions("test"))
    else:
        pictures = [[record["image"] for record in each.predictions("test")] for each in (finished, run)]
        assert set(pictures[0]) == set(pictures[1])
        assert all(before != after for before, after in zip(*pictures, strict=True) if before)
    assert original == other if images == "shuffled" else re.match(r"0 of (\d+) images, 0 of (\d+) rows$", other)
    assert not original.startswith("0 of")
    known = {"mre": "scores", "mner": "confidence"}[task]
    pairs = list(zip(finished.predictions("test"), run.predictions("test"), strict=True))
    assert all(before["gold"] == after["gold"] for before, after in pairs)
    assert any(before[known] != after[known] for before, after in pairs)


# Repeated and resumed


def test_only_the_same_seed_gives_the_same_predictions(finished: Any, start: Start, workspace: Any) -> None:
    again = start("fit", "--config", str(workspace.experiment))
    other = start("fit", "--config", str(workspace.experiment), "--seed_everything", "2", "--trainer.max_epochs", "1")
    assert again.predictions("test") == finished.predictions("test")
    assert again.summary["val"] == finished.summary["val"]
    assert logged(again.folder, "train/loss") == logged(finished.folder, "train/loss")
    assert other.predictions("test") != finished.predictions("test")
    assert other.folder.name.endswith("-seed2")


def test_a_resumed_run_continues_with_the_next_epoch_in_a_new_folder(
    finished: Any, start: Start, workspace: Any
) -> None:
    options = ("--ckpt_path", finished.checkpoint("last"), "--trainer.max_epochs", "3")
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    resumed = start("fit", "--config", str(workspace.experiment), *options)
    assert {int(row["epoch"]) for row in metrics(resumed.folder) if row["train/loss"]} == {2}
    assert torch.load(resumed.checkpoint("last"), weights_only=True)["epoch"] == 2
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before
    # It selects among its own epochs, independently of the other run's scores.
    assert resumed.summary["selected"]["value"] == pytest.approx(logged(resumed.folder, "val/f1")[0], abs=1e-6)
    assert resumed.summary["selected"]["epoch"] == 2


def test_resuming_a_finished_run_scores_its_best_checkpoint_even_in_a_renamed_folder(
    finished: Any, tmp_path: Path
) -> None:
    renamed = Run(tmp_path / "renamed", "")
    shutil.copytree(finished.folder, renamed.folder)
    assert main(["fit", "--run", str(renamed.folder), "--ckpt_path", "last"]) == 0
    assert renamed.summary["selected"] == {**finished.summary["selected"], "checkpoint": renamed.checkpoint("best")}
    assert renamed.summary["test"] == finished.summary["test"]


# Data without a test split


@dataclass(frozen=True)
class RealLayout:
    """Only training and validation text in a real set's layout, as on a developer's machine."""

    root: Path
    validation: Path
    arguments: list[str]


@pytest.fixture
def real_layout(finished: Any, workspace: Any, encoder_files: Any, tmp_path: Path, task: str) -> RealLayout:
    files, experiment = {
        "mre": (("txt/ours_train.txt", "txt/ours_val.txt"), "mre-mnre-offline"),
        "mner": (("twitter2017/train.txt", "twitter2017/valid.txt"), "mner-twitter2017-offline"),
    }[task]
    root = tmp_path / "real"
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(workspace.root / "demo" / file, root / file)
    arguments = [
        *("fit", "--config", experiment, *encoder_files.options(), "--data.root", str(root)),
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--runs", str(workspace.root / "runs"), "--wandb", "off"),
    ]
    return RealLayout(root, root / files[1], arguments)


@both_tasks
def test_without_a_test_split_test_is_null_and_reported_in_log_and_table(
    real_layout: RealLayout, start: Start, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = start(*real_layout.arguments)
    assert run.summary["test"] is None
    assert points(run.summary["val"]) == pytest.approx(scored(task, run.predictions("val")))
    assert "ceiling" not in run.summary
    assert "levels" not in run.summary
    assert "test: no test split was scored" in run.output
    assert "test: there is no test split" in caplog.text.partition("model: ")[0]  # reported before the training
    assert (
        run.summary["images"]["train"]
        == {"mre": "0 of 60 images, 0 of 128 rows", "mner": "0 of 65 images, 0 of 65 rows"}[task]
    )
    assert not (run.folder / "predictions" / "test.jsonl").exists()


def test_evaluation_after_fit_can_be_skipped(real_layout: RealLayout, start: Start) -> None:
    run = start(*real_layout.arguments, "--evaluate", "false")
    assert not (run.folder / "summary.json").exists()
    assert (run.folder / "checkpoints" / "best.ckpt").exists()


def test_evaluation_can_skip_the_test_split(workspace: Any, start: Start) -> None:
    run = start("fit", "--config", str(workspace.experiment), "--trainer.max_epochs", "1", "--evaluate", "val")
    assert run.summary["val"]["f1"] >= 0.0
    assert run.summary["test"] is None
    assert not (run.folder / "predictions" / "test.jsonl").exists()


@both_tasks
@pytest.mark.parametrize("wrong", ["a bad line", "no data", "too many missing images"])
def test_bad_data_is_a_single_error_message(real_layout: RealLayout, refused: Refused, wrong: str, task: str) -> None:
    options = []
    if wrong == "a bad line":
        lines = real_layout.validation.read_text(encoding="utf-8").count("\n")
        with real_layout.validation.open("a", encoding="utf-8") as file:
            file.write("{'token': []\n")
        problem = {"mre": "not a Python literal", "mner": "expected a word, one tab and its tag"}[task]
        expected = f"{real_layout.validation.name}:{lines + 1}: {problem}"
    elif wrong == "no data":
        shutil.rmtree(real_layout.root)
        expected = f"mmib: the data folder {real_layout.root} does not exist; expected below the root"
    else:
        options = ["--data.max_missing_images", "0.05"]
        expected = {"mre": "60 of 60", "mner": "65 of 65"}[task] + " images are missing or unreadable"
    assert expected in refused(*real_layout.arguments, *options)


# Label sets


LABELS_OF_THE_DATA = {"mre": "/per/per/peer", "mner": "MISC"}


@both_tasks
def test_a_label_missing_from_the_configuration_names_file_line_and_label(
    real_layout: RealLayout, refused: Refused, task: str
) -> None:
    label = LABELS_OF_THE_DATA[task]
    known = {"names": [name for name in LABELS[task].names if name != label], "negative": LABELS[task].negative}
    message = refused(*real_layout.arguments, f"--data.labels={json.dumps(known)}")
    assert re.search(rf"train\.txt:\d+: the label '{label}' is not one of the {len(LABELS[task]) - 1} of data", message)
    assert len(message.strip().splitlines()) == 1


@both_tasks
def test_a_run_with_custom_labels_trains_and_records_them(real_layout: RealLayout, start: Start, task: str) -> None:
    """The same data and cache, with reordered labels and an additional one: results by name are the same."""
    names = ["unused", *reversed(LABELS[task].names)]
    labels = {"names": names, **({"negative": "None"} if task == "mre" else {})}
    run = start(*real_layout.arguments, f"--data.labels={json.dumps(labels)}")
    assert run.summary["labels"] == labels
    gold = [record["gold"] for record in run.predictions("val")]
    assert gold == gold_labels(task, real_layout.root, "val")
    assert points(run.summary["val"]) == pytest.approx(scored(task, run.predictions("val")))
    head = torch.load(run.checkpoint("best"), weights_only=True)["state_dict"]
    width = {"mre": len(names), "mner": 1 + 2 * len(names)}[task]
    assert {len(tensor) for name, tensor in head.items() if name.startswith("head.") and "bias" in name} == {width}
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["labels"] == labels
    scores = start("validate", "--config", str(run.folder / "config.yaml"), "--ckpt_path", run.checkpoint("best"))
    assert scores.summary["val"] == run.summary["val"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[PER, LOC, PER]", "the label set names PER more than once"),
        ("[]", "the label set is empty"),
        ("{names: [PER], negative: O}", "the negative class 'O' is not one of the labels PER"),
        ("persons", "the label set 'persons' is neither a known one (mnre, twitter) nor a file"),
        ("nowhere/labels.json", "nowhere/labels.json does not exist"),
    ],
)
def test_an_invalid_label_set_is_a_single_error_message(
    refused: Refused, workspace: Any, labels: str, message: str
) -> None:
    before = workspace.folders()
    found = refused("fit", "--config", str(workspace.experiments["mner"]), f"--data.labels={labels}")
    assert message in found
    assert workspace.folders() == before


PLUGIN = """
from pathlib import Path
from typing import Any

from mmib.backbone import MultimodalIB
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import LabelSource, label_set
from mmib.datamodules.mnre_files import MNREReader
from mmib.modules import ExtractionModule
from mmib.tasks.mre import RelationNetwork


class FixedData(PostDataModule):
    task_name = "mre"

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(MNREReader(Path(root)), labels="mnre", **options)


class Untasked(ExtractionModule):
    def __init__(self, backbone: MultimodalIB, labels: LabelSource = "mnre", **options: Any) -> None:
        super().__init__(RelationNetwork(backbone, label_set(labels)), **options)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The option that imports custom classes from the working directory."""
    (tmp_path / "fixed_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "--plugin", "fixed_plugin"
    sys.modules.pop("fixed_plugin", None)


def test_a_custom_data_module_may_fix_its_labels(
    real_layout: RealLayout, plugin: tuple[str, str], start: Start
) -> None:
    """The configuration then has no labels, and the checkpoint is compared with the model's."""
    data = json.dumps({"class_path": "fixed_plugin.FixedData", "init_args": {"max_missing_images": 1.0}})
    run = start(*real_layout.arguments, *plugin, f"--data={data}", "--data.root", str(real_layout.root))
    assert "labels" not in yaml.safe_load((run.folder / "config.yaml").read_text())["data"]["init_args"]
    again = start(
        "validate", "--config", str(run.folder / "config.yaml"), "--ckpt_path", run.checkpoint("best"), *plugin
    )
    assert again.summary["val"] == run.summary["val"]
    assert LabelSet.from_dict(again.summary["labels"]) == LABELS["mre"]


def test_a_custom_model_without_a_task_is_refused(workspace: Any, plugin: tuple[str, str], refused: Refused) -> None:
    message = refused("fit", "--config", str(workspace.experiment), *plugin, "--model", "fixed_plugin.Untasked")
    assert "fixed_plugin.Untasked has no task: give the class an attribute `task`" in message


# Checkpoints


@both_tasks
def test_a_valid_checkpoint_is_accepted(finished: Any, task: str) -> None:
    check_checkpoint(Path(finished.checkpoint("best")), task, LABELS[task])
    check_checkpoint(Path(finished.checkpoint("last")), task, LABELS[task], resume=True)


@pytest.mark.parametrize(("task", "other"), [("mre", "mner"), ("mner", "mre")])
@pytest.mark.parametrize("command", ["test", "fit"])
def test_a_checkpoint_of_the_other_task_is_refused(
    finished: Any, refused: Refused, workspace: Any, task: str, other: str, command: str
) -> None:
    path = finished.checkpoint("last")
    before = workspace.folders()
    message = refused(command, "--config", str(workspace.experiments[other]), "--ckpt_path", path)
    assert f"{path} was made by the task {task!r}, this configuration is for {other!r}: use the config" in message
    assert workspace.folders() == before


@both_tasks
@pytest.mark.parametrize("command", ["test", "validate", "fit"])
def test_a_checkpoint_of_another_label_set_is_refused_and_both_shown(
    finished: Any, refused: Refused, workspace: Any, task: str, command: str
) -> None:
    """With the same number of labels, weights would not reveal it, and each prediction would get a wrong name."""
    first, second, *rest = LABELS[task].names
    swapped = {"names": [second, first, *rest], **({"negative": "None"} if task == "mre" else {})}
    path, before = finished.checkpoint("last"), workspace.folders()
    options = ("--ckpt_path", path, f"--data.labels={json.dumps(swapped)}")
    message = refused(command, "--config", str(finished.folder / "config.yaml"), *options)
    assert f"{path} was trained on other labels than the configuration names" in message
    for shown in (str(LABELS[task]), str(LabelSet.from_dict(swapped)), "another order", "config.yaml"):
        assert shown in message
    assert workspace.folders() == before


@both_tasks
def test_the_labels_of_the_checkpoint_may_be_given_in_another_form(
    finished: Any, start: Start, task: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(LABELS[task].to_dict()))
    options = ("--ckpt_path", finished.checkpoint("best"), "--data.labels", str(tmp_path / "labels.json"))
    again = start("validate", "--config", str(finished.folder / "config.yaml"), *options)
    assert again.summary["val"] == finished.summary["val"]
    assert again.summary["labels"] == finished.summary["labels"]


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("kind", ["missing", "garbage", "malicious", "of something else"])
def test_an_invalid_checkpoint_is_refused_before_anything_is_loaded(
    refused: Refused, workspace: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.ckpt"
    expected = {
        "missing": f"there is no checkpoint {path}",
        "garbage": f"{path} is no checkpoint, or is damaged",
        "malicious": f"{path} is no checkpoint, or is damaged",
        "of something else": f"{path} was made by something else",
    }
    if kind == "garbage":
        path.write_bytes(b"PK\x03\x04 no checkpoint")
    elif kind == "malicious":
        torch.save({"mmib_task": "mre", "state_dict": Malicious(tmp_path / "hacked")}, path)
    elif kind == "of something else":
        torch.save([1, 2, 3], path)
    before = workspace.folders()
    message = refused("test", "--config", str(workspace.experiment), "--ckpt_path", str(path))
    assert message.strip().splitlines()[-1].startswith(f"mmib: {expected[kind]}")
    assert not (tmp_path / "hacked").exists()
    assert workspace.folders() == before


def test_a_run_cannot_be_resumed_from_weights_alone(finished: Any, refused: Refused, workspace: Any) -> None:
    message = refused("fit", "--config", str(workspace.experiment), "--ckpt_path", finished.checkpoint("best"))
    assert "best.ckpt contains weights only: resume the run from its last.ckpt" in message


@pytest.mark.parametrize("before", ["good", "damaged too", "not there"])
def test_an_error_about_a_damaged_last_checkpoint_names_an_earlier_valid_one(
    finished: Any, refused: Refused, tmp_path: Path, before: str
) -> None:
    run = tmp_path / "run"
    last, previous = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "previous.ckpt"
    whole = Path(finished.checkpoint("last")).read_bytes()
    last.parent.mkdir(parents=True)
    shutil.copy(finished.folder / "config.yaml", run)
    last.write_bytes(whole[: len(whole) // 2])
    if before != "not there":
        previous.write_bytes(whole if before == "good" else whole[:1000])
    message = refused("fit", "--run", str(run), "--ckpt_path", "last")
    assert f"{last} is no checkpoint, or is damaged" in message
    remedy = f"resume from the one before it: mmib fit --run {run} --ckpt_path {previous}"
    assert (remedy in message) == (before == "good")


@pytest.mark.parametrize("arguments", [("fit",), ("test", "--ckpt_path", "last")])
def test_a_run_is_never_restarted_in_its_own_folder(
    finished: Any, refused: Refused, workspace: Any, arguments: tuple[str, ...]
) -> None:
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    message = refused(*arguments, "--run", str(finished.folder))
    assert f"mmib fit --run {finished.folder} --ckpt_path last" in message
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before


class ParsedError(Exception):
    """Ends a command after it has parsed its options."""


class ParsedCommand(MMIBCommand):
    def before_instantiate_classes(self) -> None:
        raise ParsedError(self.config["fit"]["run"], self._begun)


def test_a_requeued_slurm_job_resumes_the_run_of_each_of_its_commands(
    finished: Any, workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def continued(*options: str) -> tuple[Path | None, Path | None]:
        arguments = ["fit", "--config", str(workspace.experiment), "--runs", str(tmp_path), *options]
        with pytest.raises(ParsedError) as parsed:
            execute(expand_configs(arguments), ParsedCommand)
        resumed, begun = parsed.value.args
        return resumed and Path(resumed), begun

    for name, value in {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    settings = yaml.safe_load((finished.folder / "config.yaml").read_text())
    saved, killed = (tmp_path / "tiny-mre" / name for name in ("slurm-17", "slurm-17-2"))
    shutil.copytree(finished.folder, saved)
    killed.mkdir()
    for run, seed in ((saved, 1), (killed, 2)):
        text = yaml.safe_dump({**settings, "runs": str(tmp_path), "seed_everything": seed})
        (run / "config.yaml").write_text(text, encoding="utf-8")
    elsewhere = ("--trainer.devices", "2", "--data.cache_dir", "elsewhere")
    assert continued(*elsewhere) == (saved, saved), "it may have other nodes"
    assert continued("--seed_everything", "2") == (None, killed)
    assert continued("--seed_everything", "3") == (None, None)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--data.batch_size", "32"), "had 8 batches per epoch and would resume with 4"),
        (("--data.batch_size", "17"), r"had data\.batch_size 16 and would resume with 17"),
        (("--data.max_tokens", "100000"), r"had data\.max_tokens None and would resume with 100000"),
        (("--data.train_share", "0.99"), "had training rows 128 and would resume with 127"),
        (("--seed_everything", "2"), "had seed_everything 1 and would resume with 2"),
        (("--trainer.accumulate_grad_batches", "2"), "had accumulate_grad_batches 1 and would resume with 2"),
        (
            ("--model.optimizer.other_lrs", "{head: 1.0e-3}"),
            r"head: \d.*the patterns of optimizer.other_lrs, that it began",
        ),
        (("--model.backbone.text_encoder.trainable_layers", "0"), r"trained \d+ tensors .* this configuration trains"),
    ],
)
def test_a_run_cannot_be_resumed_with_settings_incompatible_with_its_checkpoint(
    finished: Any, refused: Refused, option: tuple[str, ...], message: str
) -> None:
    files = [finished.folder / "checkpoints" / "last.ckpt", finished.folder / "config.yaml"]
    before = [file.read_bytes() for file in files]
    more = ("--trainer.max_epochs", "3", *option)
    assert re.search(message, refused("fit", "--run", str(finished.folder), "--ckpt_path", "last", *more))
    assert [file.read_bytes() for file in files] == before


def test_the_configuration_of_a_resumed_run_can_be_reused(
    finished: Any, workspace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not contain the checkpoint that was resumed, so it can score a checkpoint or start a new run."""
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    assert main(["fit", "--run", str(run), "--ckpt_path", "last", "--trainer.max_epochs", "3"]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["run"], config["ckpt_path"], config["trainer"]["max_epochs"]) == (None, None, 3)
    capsys.readouterr()
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", best, "--runs", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--data.batch_size", "0"), "batch_size is 0: a batch has at least one row"),
        (("--data.eval_batch_size", "-1"), "eval_batch_size is -1: a batch has at least one row"),
        (("--trainer.devices", "0"), "invalid trainer options: "),
        (("--trainer.accelerator", "tpu"), "invalid trainer options: "),
    ],
)
def test_invalid_settings_are_refused(refused: Refused, workspace: Any, option: tuple[str, str], message: str) -> None:
    assert message in refused("fit", "--config", str(workspace.experiment), *option)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes everything that reads weights or data fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights or data were read before the configuration was checked")

    monkeypatch.setattr("mmib.encoders.text_model.AutoModel.from_pretrained", refuse)
    monkeypatch.setattr("mmib.encoders.pretrained.file_sha256", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    monkeypatch.setattr("mmib.datamodules.base.PostDataModule.setup", refuse)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.batch_size", "0"], "a batch has at least one row"),
        (["--data.max_tokens", "70", "--data.max_length", "80"], "max_tokens is 70"),
        (["--data.max_length", "5000"], "max_length is 5000: the text encoder takes"),
        (["--model.beta_text", "-1"], "beta_text is -1"),
        (["--data", "mmib.datamodules.demo.module.DemoMNERDataModule"], "a model for the task 'mre', but DemoMNERData"),
        (["--model.backbone.text_encoder.trainable_layers", "99"], "trainable_layers is 99"),
        (["--model.optimizer.other_lrs", "{nothing: 1e-3}"], "the learning rate pattern 'nothing' matches no"),
        (["--model.backbone.image_encoder.name", "no_such_network"], "timm has no image model 'no_such_network'"),
        (["--trainer.devices", "[7]", "--trainer.accelerator", "gpu"], "invalid trainer options"),
    ],
)
def test_a_configuration_is_checked_before_weights_or_data_are_read(
    refused: Refused, workspace: Any, options: list[str], message: str
) -> None:
    assert message in refused("fit", "--config", str(workspace.experiments["mre"]), *options)


@pytest.mark.usefixtures("untouched")
def test_packaged_weights_are_not_looked_up(refused: Refused, tmp_path: Path) -> None:
    options = ["--data.root", str(tmp_path), "--model.gamma", "-1", "--runs", str(tmp_path / "runs")]
    assert "gamma is -1" in refused("fit", "--config", "mre-demo", *options)
    assert not (tmp_path / "runs").exists()


def test_checking_a_configuration_does_not_change_the_random_state(
    workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def stop(*_: Any) -> None:
        states.append((torch.random.get_rng_state().tolist(), random.getstate()))
        raise ConfigError("enough")

    monkeypatch.setattr("pytorch_lightning.cli.LightningCLI.instantiate_classes", stop)
    arguments = ["fit", "--config", str(workspace.experiments["mre"])]
    assert main(arguments) == 2
    monkeypatch.setattr("mmib.training.cli.MMIBCommand._rehearse", lambda self: None)
    assert main(arguments) == 2
    assert states[0] == states[1]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_nothing_is_scored_without_a_checkpoint(refused: Refused, workspace: Any, command: str) -> None:
    before = workspace.folders()
    message = refused(command, "--config", str(workspace.experiment))
    assert f"mmib {command} needs a trained model" in message
    assert "--ckpt_path RUN/checkpoints/best.ckpt" in message
    assert workspace.folders() == before


@pytest.mark.parametrize("arguments", [("fit", "last"), ("fit", "best"), ("test", "best"), ("validate", "last")])
def test_lightnings_keywords_for_checkpoints_are_refused(
    refused: Refused, workspace: Any, arguments: tuple[str, str]
) -> None:
    command, word = arguments
    message = refused(command, "--config", str(workspace.experiment), "--ckpt_path", word)
    assert f"--ckpt_path {word} names no file" in message


def test_a_run_without_a_checkpoint_cannot_be_resumed(finished: Any, refused: Refused, tmp_path: Path) -> None:
    shutil.copy(finished.folder / "config.yaml", tmp_path)
    message = refused("fit", "--run", str(tmp_path), "--ckpt_path", "last")
    assert f"the run {tmp_path} has no checkpoint to resume from" in message


def test_a_full_disk_ends_the_run_with_the_reason_and_keeps_saved_files(
    finished: Any, refused: Refused, workspace: Any, tmp_path: Path
) -> None:
    """There is room for the checkpoints of one epoch, but not for a second `last.ckpt`."""
    sizes = {path.name: path.stat().st_size for path in (finished.folder / "checkpoints").iterdir()}
    disk = tmp_path / "disk"
    disk.mkdir()
    room = sizes["best.ckpt"] + sizes["last.ckpt"] * 3 // 2
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        message = refused("fit", "--config", str(workspace.experiment), "--runs", str(disk))
        (run,) = disk.glob("*/*")
        check_checkpoint(run / "checkpoints" / "last.ckpt", "mre", LABELS["mre"], resume=True)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert re.search(r"cannot be written: .*No space left on device.*; files saved earlier are kept", message)
    assert f"resume with mmib fit --run {run} --ckpt_path last" in message


def test_damaged_checkpoints_raise_no_other_error(finished: Any, tmp_path: Path) -> None:
    """On damaged input the unpickler raises errors of many types, such as IndexError and KeyError."""
    torch.save({"mmib_task": "mre", "epoch": 3}, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    start = whole.index(b"mmib_task") - 20
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[start + rng.randrange(60)] = rng.randrange(256)
        (tmp_path / "x.ckpt").write_bytes(damaged)
        try:
            check_checkpoint(tmp_path / "x.ckpt", "mre", LABELS["mre"])
        except CheckpointError:
            refused += 1
    assert refused > 100
