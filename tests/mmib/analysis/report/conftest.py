"""Generated run folders that look like those of finished runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from mmib.datamodules.released import MNRE, TWITTER
from mmib.labels import LabelSet

MakeRun = Callable[..., Path]
WORDS = ["Anna", "meets", "Bob", "Smith", "in", "Paris"]
BOXES = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.4, 0.9], [0.5, 0.1, 0.9, 0.8]]


def class_record(row: int, labels: LabelSet, random: np.random.Generator) -> dict[str, Any]:
    """A class of a post, correct in two of three cases; all runs have the same posts."""
    share = np.array([0.5, 0.2, 0.1, 0.1, 0.1])[: len(labels)]
    gold = labels.names[int(np.random.default_rng(row).choice(len(share), p=share / share.sum()))]
    scores = random.normal(size=len(labels))
    scores[labels.id_of(gold)] += 3.0 if row % 3 else -3.0
    predicted = labels.names[int(scores.argmax())]
    attention = random.dirichlet(np.ones(len(BOXES)), size=1).round(4).tolist()
    return {"gold": gold, "predicted": predicted, "scores": scores.round(6).tolist(), "attention": attention}


def relation_record(row: int, labels: LabelSet, random: np.random.Generator) -> dict[str, Any]:
    """A relation between two entities of a post."""
    found = class_record(row, labels, random)
    attention = random.dirichlet(np.ones(len(BOXES)), size=2).round(4).tolist()
    return {**found, "head": [0, 1], "tail": [2, 4], "attention": attention}


def entity_record(row: int, labels: LabelSet, random: np.random.Generator) -> dict[str, Any]:
    """Three entities of a post; every third post misses one, every fifth has a wrong type."""
    del labels
    gold = ["B-PER", "O", "B-PER", "I-PER", "O", "B-LOC"]
    predicted = list(gold)
    if row % 3 == 0:
        predicted[0] = "O"
    if row % 5 == 0:
        predicted[5] = "B-ORG"
    attention = random.dirichlet(np.ones(len(BOXES)), size=len(WORDS)).round(4).tolist()
    confidence = random.uniform(0.5, 1.0, size=len(WORDS)).round(6).tolist()
    return {"gold": gold, "predicted": predicted, "confidence": confidence, "attention": attention}


RECORDS = {"mre": relation_record, "mner": entity_record}
LABELS = {"mre": MNRE, "mner": TWITTER}


def write_run(
    folder: Path,
    task: str = "mre",
    *,
    rows: int = 12,
    seed: int = 1,
    config: dict[str, Any] | None = None,
    labels: LabelSet | None = None,
    **changes: Any,
) -> Path:
    """A run folder with all that a report shows.

    Args:
        folder: the folder; its images lie in `data` beside it.
        task: mre, mner, or a task that labels posts.
        rows: in the test split.
        seed: of the run and of everything made up.
        config: options of the model that differ.
        labels: the label set; without one that of the task's released data set.
        changes: entries of the summary.
    """
    random = np.random.default_rng(seed)
    labels = labels or LABELS[task]
    root = folder.parent / "data"
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "0.jpg").is_file():
        for number in range(3):
            Image.new("RGB", (320, 200), (90 * number, 120, 60)).save(root / f"{number}.jpg")
    (folder / "predictions").mkdir(parents=True)
    (folder / "latents").mkdir()
    scores = {"precision": 0.7, "recall": 0.6, "f1": 0.6 + seed / 100, "accuracy": 0.8, "f1_se": 0.02}
    classes = {name: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "gold": 7} for name in labels.scored[:2]}
    ceiling = {"text": 0.6, "multimodal": 0.95}
    data = {split: {"rows": rows, "sha256": f"{split}-{task}"} for split in ("train", "val", "test")}
    summary = {
        "task": task,
        "labels": labels.to_dict(),
        "corpus": "demo-tiny",
        "experiment": "toy",
        "data": data,
        "images": {"test": "11 of 12 images, 11 of 12 rows"},
        "seed": seed,
        "command": f"mmib fit --config toy --data.root {root}",
        "versions": {"python": "3.11", "mmib": "0.1.0"},
        "selected": {
            "split": "val",
            "metric": "val/f1",
            "value": 0.6,
            "epoch": 1,
            "checkpoint": str(folder / "best.ckpt"),
        },
        "val": {**scores, "classes": classes},
        "test": {**scores, "classes": classes},
        "ceiling": {"split": "test", **ceiling},
        "levels": {"easy": {"rows": rows, "ceiling": ceiling, "val": None, "test": {**scores, "classes": classes}}},
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    options = {"beta_text": 0.001, "optimizer": {"lr": 1e-4}, **(config or {})}
    model = {"class_path": "mmib.modules.Toy", "init_args": options}
    content = {"seed_everything": seed, "model": model, "data": {"class_path": "d.D", "init_args": {"root": str(root)}}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**content, "name": "toy"}), encoding="utf-8")
    records = []
    for row in range(rows):
        kl = random.gamma(2.0, 20.0, size=len(WORDS)).round(4).tolist()
        evidence = {"image": f"{row % 3}.jpg", "boxes": BOXES, "kl": kl, "kl_image": [3.0, 2.0, 1.0]}
        labelled = RECORDS.get(task, class_record)(row, labels, random)
        records.append({"id": row, "words": WORDS, **evidence, **labelled})
    write_records(folder, "test", records)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, METRICS)
        writer.writeheader()
        writer.writerows(logged(random))
    points = [{"step": 4 * n, "rate_text": 900.0 - n, "rate_image": 90.0 - n, "distortion": 3.0 / n} for n in (1, 2, 3)]
    (folder / "information_plane.json").write_text(json.dumps(points), encoding="utf-8")
    for name, shift in (("start", 3.0), ("selected", 1.0)):
        text = random.normal(size=(40, 8))
        image = text + random.normal(size=(40, 8)) + shift
        tensors = {"text": text.astype(np.float32), "image": image.astype(np.float32), "rows": np.arange(40)}
        tensors["labels"] = np.arange(40)[:, None] % len(labels) == np.arange(len(labels))
        tensors["image_ids"] = np.arange(40) // 2
        save_file(tensors, folder / "latents" / f"{name}.safetensors")
    return folder


METRICS = [
    "epoch",
    "step",
    "train/loss_step",
    "train/loss",
    "ib/kl_text",
    "ib/kl_image",
    "align/mi_bound",
    "val/loss",
    "val/f1",
]


def logged(random: np.random.Generator) -> list[dict[str, float]]:
    """Two epochs of ten steps, validation after each, and finally the scores of the selected checkpoint."""
    rows: list[dict[str, float]] = []
    for epoch in range(2):
        last = 10 * epoch + 9
        rows += [
            {"epoch": epoch, "step": step, "train/loss_step": 3 - step / 10 + random.normal() / 10}
            for step in range(10 * epoch, last + 1)
        ]
        rows.append({"epoch": epoch, "step": last, "val/loss": 2.5 - epoch, "val/f1": 0.4 + epoch / 10})
        values = {"ib/kl_text": 50.0 - epoch, "ib/kl_image": 40.0 - epoch, "align/mi_bound": 0.5 + epoch}
        rows.append({"epoch": epoch, "step": last, "train/loss": 2.4 - epoch, **values})
    rows.append({"epoch": 2, "step": 20, "val/loss": 9.0, "val/f1": 0.999})
    return rows


def write_records(folder: Path, split: str, records: list[dict[str, Any]]) -> None:
    """A prediction file."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "predictions" / f"{split}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Writes a run folder; see `write_run`."""
    return write_run


@pytest.fixture(scope="session")
def edit_records() -> Callable[..., None]:
    """Changes each record of a run's test predictions."""

    def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        lines = (folder / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        for record in records:
            change(record)
        write_records(folder, "test", records)

    return edit
