"""A whole run: what it leaves behind, and how it is scored again, repeated, resumed."""

from __future__ import annotations

import csv
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from datamodules.demo import read_ceilings, read_levels
from mmib.schema import NO_RELATION, RELATIONS, CheckpointError
from mmib.training import check_checkpoint

# Runs in this process must start like the one in a process of its own.
pytestmark = pytest.mark.fresh_weights

Start = Callable[..., Any]
Refused = Callable[..., str]


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logged(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in metrics(folder) if row[name]]


def scored(records: list[dict[str, Any]]) -> dict[str, float]:
    """Scores of a predictions file, by scikit-learn."""
    gold, predicted = ([record[key] for record in records] for key in ("gold", "predicted"))
    relations = [name for name in RELATIONS if name != NO_RELATION]
    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, predicted, labels=relations, average="micro", zero_division=0
    )
    return {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy_score(gold, predicted)}


def points(scores: dict[str, float]) -> dict[str, float]:
    """The scores of a summary without their standard error."""
    return {name: value for name, value in scores.items() if name != "f1_se"}


# What a run leaves behind


def test_a_run_leaves_everything_in_a_folder_of_its_own(finished: Any, workspace: Any) -> None:
    files = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "predictions/val.jsonl",
        "predictions/test.jsonl",
        "summary.json",
    }
    assert finished.folder.parent == workspace.root / "runs" / "tiny"
    assert finished.folder.name.endswith("-seed1")
    assert {path.name for path in workspace.root.iterdir()} == {"runs", "cache", "demo", "tiny.yaml"}


def test_the_last_line_names_the_summary(finished: Any) -> None:
    assert finished.output.splitlines()[-1] == f"summary: {finished.folder / 'summary.json'}"
    assert "Traceback" not in finished.errors


def test_the_summary_tells_what_was_run_on_what(finished: Any, workspace: Any) -> None:
    summary = finished.summary
    assert (summary["task"], summary["corpus"], summary["seed"]) == ("mre", "demo-tiny", 1)
    assert summary["command"] == f"mmib fit --config {workspace.experiment}"
    assert summary["versions"].keys() >= {"python", "mmib", "torch", "pytorch-lightning", "transformers", "timm"}
    assert {split: described["rows"] for split, described in summary["data"].items()}.keys() == {"train", "val", "test"}
    assert all(len(described["sha256"]) == 64 for described in summary["data"].values())
    assert summary["images"]["test"].endswith("rows")


def test_the_summary_names_the_epoch_that_validation_selected(finished: Any) -> None:
    selected = finished.summary["selected"]
    history = logged(finished.folder, "val/f1")[:2]  # of both epochs; then comes the final scoring
    assert selected["split"] == "val"
    assert selected["metric"] == "val/f1"
    assert selected["epoch"] == history.index(max(history))
    assert selected["value"] == pytest.approx(max(history), abs=1e-6)
    assert finished.summary["val"]["f1"] == pytest.approx(selected["value"], abs=1e-6)
    content = torch.load(selected["checkpoint"], weights_only=True)
    assert content["epoch"] == selected["epoch"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_are_those_of_the_predictions_file(finished: Any, split: str) -> None:
    records = finished.predictions(split)
    assert [record["id"] for record in records] == list(range(finished.summary["data"][split]["rows"]))
    assert points(finished.summary[split]) == pytest.approx(scored(records))
    assert 0 <= finished.summary[split]["f1_se"] < 0.2
    assert len({record["predicted"] for record in records}) > 1
    best = [max(range(len(RELATIONS)), key=record["scores"].__getitem__) for record in records]
    assert [RELATIONS[number] for number in best] == [record["predicted"] for record in records]


def test_gold_labels_of_the_predictions_are_those_of_the_file(finished: Any, workspace: Any) -> None:
    lines = (workspace.root / "demo" / "txt" / "ours_test.txt").read_text(encoding="utf-8").splitlines()
    for line, record in zip(lines, finished.predictions("test"), strict=True):
        assert repr(record["gold"]) in line


def test_levels_and_ceilings_stand_beside_the_scores(finished: Any, workspace: Any) -> None:
    summary, demo = finished.summary, workspace.root / "demo"
    ceilings = read_ceilings(demo, "test", "mre")
    assert ceilings is not None
    assert summary["ceiling"] == {"split": "test", "text": ceilings["text"], "multimodal": ceilings["multimodal"]}
    for split in ("val", "test"):
        levels = read_levels(demo, split, "mre") or []
        for level in ("easy", "hard"):
            own = [record for record in finished.predictions(split) if levels[record["id"]] == level]
            assert points(summary["levels"][level][split]) == pytest.approx(scored(own))
    for level in ("easy", "hard"):
        assert summary["levels"][level]["ceiling"] == ceilings["levels"][level]["ceiling"]
        assert set(summary["levels"][level]["ceiling"]) == {"text", "multimodal"}
        assert summary["levels"][level]["rows"] == (read_levels(demo, "test", "mre") or []).count(level)


def test_the_table_shows_what_the_summary_holds(finished: Any) -> None:
    summary = finished.summary
    row = next(line for line in finished.output.splitlines() if line.lstrip("│ ").startswith("test, hard"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    shown = [summary["levels"]["hard"]["test"][key] for key in ("precision", "recall", "f1", "f1_se", "accuracy")]
    shown += [summary["levels"]["hard"]["ceiling"][key] for key in ("text", "multimodal")]
    assert cells == ["test, hard", *(f"{100 * value:.1f}" for value in shown)]
    for path in (finished.checkpoint("best"), "metrics.csv", "config.yaml", summary["images"]["test"]):
        assert path in finished.output


# Scalars


TRAINING_SCALARS = (
    *("train/loss", "train/task", "align/loss", "align/mi_bound", "align/temperature"),
    *("align/accuracy_t2i", "align/accuracy_i2t"),
    *(f"ib/{name}_{modality}" for name in ("kl", "kl_std", "std", "beta") for modality in ("text", "image")),
)
SCORES = ("f1", "precision", "recall", "accuracy")


def test_the_log_has_the_documented_names(finished: Any) -> None:
    columns = set(metrics(finished.folder)[0])
    on_validation = {f"val/{name.removeprefix('train/')}" for name in TRAINING_SCALARS}
    assert columns >= {*TRAINING_SCALARS, *on_validation}
    assert columns >= {f"{split}/{score}" for split in ("val", "test") for score in SCORES}
    for name in TRAINING_SCALARS:
        assert len(logged(finished.folder, name)) == 2, f"{name} once an epoch"
        assert all(map(math.isfinite, logged(finished.folder, name)))


def test_the_logged_terms_add_up_to_the_logged_loss(finished: Any) -> None:
    """L = L_task + beta * KL averaged over dimensions (24 of them) + gamma * L_align; validation is one batch."""
    values = {name: logged(finished.folder, f"val/{name}") for name in ("loss", "task", "align/loss")}
    kl_text, kl_image = (logged(finished.folder, f"val/ib/kl_{modality}") for modality in ("text", "image"))
    for number, loss in enumerate(values["loss"]):
        bottleneck = 0.05 * kl_text[number] / 24 + 0.1 * kl_image[number] / 24
        expected = values["task"][number] + 0.5 * values["align/loss"][number] + bottleneck
        assert loss == pytest.approx(expected, rel=1e-4)


def test_the_score_in_the_log_is_the_score_in_the_summary(finished: Any) -> None:
    for score in SCORES:
        assert logged(finished.folder, f"test/{score}") == [pytest.approx(finished.summary["test"][score], abs=1e-6)]


# The saved configuration


def test_the_saved_configuration_is_complete(finished: Any) -> None:
    saved = yaml.safe_load((finished.folder / "config.yaml").read_text(encoding="utf-8"))
    assert saved["seed_everything"] == 1
    assert saved["model"]["init_args"]["gamma"] == 0.5
    assert saved["model"]["init_args"]["backbone"]["init_args"]["alignment"]["init_args"]["temperature"] == 0.07
    assert saved["data"]["init_args"]["max_length"] == 80
    assert "include" not in saved


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
    assert validated.output.splitlines()[-1] == f"summary: {validated.folder / 'summary.json'}"


def test_predictions_need_no_gold_labels(finished: Any, start: Start) -> None:
    config = str(finished.folder / "config.yaml")
    predicted = start("predict", "--config", config, "--ckpt_path", finished.checkpoint("best"))
    records = predicted.predictions("test")
    assert [record["predicted"] for record in records] == [
        record["predicted"] for record in finished.predictions("test")
    ]
    assert all(set(record) == {"id", "predicted", "scores"} for record in records)


# Repeated and resumed


def test_the_same_seed_gives_the_same_predictions_and_another_does_not(
    finished: Any, start: Start, workspace: Any
) -> None:
    again = start("fit", "--config", str(workspace.experiment))
    other = start("fit", "--config", str(workspace.experiment), "--seed_everything", "2", "--trainer.max_epochs", "1")
    assert again.predictions("test") == finished.predictions("test")
    assert again.summary["val"] == finished.summary["val"]
    assert logged(again.folder, "train/loss") == logged(finished.folder, "train/loss")
    assert other.predictions("test") != finished.predictions("test")
    assert other.folder.name.endswith("-seed2")


def test_a_resumed_run_goes_on_at_the_next_epoch_in_a_new_folder(finished: Any, start: Start, workspace: Any) -> None:
    options = ("--ckpt_path", finished.checkpoint("last"), "--trainer.max_epochs", "3")
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    resumed = start("fit", "--config", str(workspace.experiment), *options)
    assert {int(row["epoch"]) for row in metrics(resumed.folder) if row["train/loss"]} == {2}
    assert torch.load(resumed.checkpoint("last"), weights_only=True)["epoch"] == 2
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before
    # The best epoch is the best of all three, whichever folder holds it.
    best_before = finished.summary["selected"]["value"]
    new = logged(resumed.folder, "val/f1")[0]
    selected = resumed.summary["selected"]
    assert selected["value"] == pytest.approx(max(new, best_before), abs=1e-6)
    assert selected["epoch"] == (2 if new > best_before else finished.summary["selected"]["epoch"])


def test_resuming_a_run_that_is_over_scores_its_best_checkpoint(finished: Any, start: Start, workspace: Any) -> None:
    resumed = start("fit", "--config", str(workspace.experiment), "--ckpt_path", finished.checkpoint("last"))
    assert resumed.summary["selected"] == finished.summary["selected"]
    assert resumed.summary["test"] == finished.summary["test"]


# Data without a test split


@pytest.fixture
def real_layout(finished: Any, workspace: Any, tmp_path: Path) -> Path:
    """Training and validation text of the demo corpus, and nothing else: as MNRE lies on a developer's machine."""
    root = tmp_path / "mnre"
    (root / "txt").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copy(workspace.root / "demo" / "txt" / f"ours_{split}.txt", root / "txt")
    return root


def tiny_real(workspace: Any, encoder_files: Any, root: Path, *options: str) -> list[str]:
    return [
        *("fit", "--config", "mre-mnre-offline", *encoder_files.options(), "--data.root", str(root)),
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--runs", str(workspace.root / "runs"), "--wandb", "off", *options),
    ]


def test_without_a_test_split_test_is_null_and_the_table_says_so(
    real_layout: Path, start: Start, workspace: Any, encoder_files: Any
) -> None:
    run = start(*tiny_real(workspace, encoder_files, real_layout))
    assert run.summary["test"] is None
    assert points(run.summary["val"]) == pytest.approx(scored(run.predictions("val")))
    assert "ceiling" not in run.summary
    assert "levels" not in run.summary
    assert "test: no test split was scored" in run.output
    assert run.summary["images"]["train"] == "0 of 60 images, 0 of 125 rows"
    assert not (run.folder / "predictions" / "test.jsonl").exists()


def test_evaluation_after_the_fit_can_be_left_out(
    real_layout: Path, start: Start, workspace: Any, encoder_files: Any
) -> None:
    run = start(*tiny_real(workspace, encoder_files, real_layout, "--evaluate", "false"))
    assert not (run.folder / "summary.json").exists()
    assert (run.folder / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize("wrong", ["a bad row", "no data", "too many missing images"])
def test_bad_data_is_one_message(
    real_layout: Path, refused: Refused, workspace: Any, encoder_files: Any, wrong: str
) -> None:
    options = []
    if wrong == "a bad row":
        with (real_layout / "txt" / "ours_val.txt").open("a", encoding="utf-8") as file:
            file.write("{'token': []\n")
        expected = "ours_val.txt:46: not a Python literal"
    elif wrong == "no data":
        shutil.rmtree(real_layout)
        expected = f"mmib: the data folder {real_layout} does not exist; expected below the root:"
    else:
        options = ["--data.max_missing_images", "0.05"]
        expected = "60 of 60 images are missing or unreadable"
    assert expected in refused(*tiny_real(workspace, encoder_files, real_layout, *options))


# Checkpoints


def test_a_good_checkpoint_passes(finished: Any) -> None:
    check_checkpoint(Path(finished.checkpoint("best")), "mre")
    check_checkpoint(Path(finished.checkpoint("last")), "mre", resume=True)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("kind", ["missing", "garbage", "malicious", "of another task", "of something else"])
def test_a_bad_checkpoint_is_refused_before_anything_is_loaded(
    finished: Any, refused: Refused, workspace: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.ckpt"
    expected = {
        "missing": f"there is no checkpoint {path}",
        "garbage": f"{path} is no checkpoint, or is damaged",
        "malicious": f"{path} is no checkpoint, or is damaged",
        "of another task": f"{path} was made by the task 'mner', this configuration is for 'mre': use the config.yaml",
        "of something else": f"{path} was made by something else",
    }
    if kind == "garbage":
        path.write_bytes(b"PK\x03\x04 no checkpoint")
    elif kind == "malicious":
        torch.save({"mmib_task": "mre", "state_dict": Malicious(tmp_path / "hacked")}, path)
    elif kind == "of another task":
        torch.save({**torch.load(finished.checkpoint("best"), weights_only=True), "mmib_task": "mner"}, path)
    elif kind == "of something else":
        torch.save([1, 2, 3], path)
    before = workspace.folders()
    message = refused("test", "--config", str(workspace.experiment), "--ckpt_path", str(path))
    assert message.strip().splitlines()[-1].startswith(f"mmib: {expected[kind]}")
    assert not (tmp_path / "hacked").exists()
    assert workspace.folders() == before


def test_a_run_cannot_be_resumed_from_weights_alone(finished: Any, refused: Refused, workspace: Any) -> None:
    message = refused("fit", "--config", str(workspace.experiment), "--ckpt_path", finished.checkpoint("best"))
    assert "best.ckpt holds weights only: a run can be resumed from its last.ckpt" in message


def test_damaged_checkpoints_raise_no_other_error(finished: Any, tmp_path: Path) -> None:
    """The unpickler answers damage with errors of many kinds (IndexError and KeyError have been seen)."""
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
            check_checkpoint(tmp_path / "x.ckpt", "mre")
        except CheckpointError:
            refused += 1
    assert refused > 100
