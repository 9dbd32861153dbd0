"""Generated predictions of both tasks and of `mmib extract`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mmib.labels import LabelSet

WORDS = ["🙂", "Ada", "Lovelace", "joins", "Foo", "United"]
TEXT = " ".join(WORDS)
BOXES = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.4, 0.9]]
LABELS = {"mner": LabelSet(("PERSON", "TEAM")), "mre": LabelSet(("none", "plays_for", "leaves"), "none")}
MakePredictions = Callable[..., Path]


def entity_records() -> list[dict[str, Any]]:
    """Three posts; the second has the least certain word, which is not in an entity."""
    tags = ["O", "B-PERSON", "I-PERSON", "O", "B-TEAM", "O"]
    attention = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5], [0.7, 0.3], None]
    rows = []
    for row, least in enumerate((0.8, 0.3, 0.6)):
        confidence = [0.9, 0.95, 0.9, least, 0.9, 0.0]
        evidence = {"boxes": BOXES, "attention": attention, "kl": [9.0, 5.0, 4.0, 2.0, 6.0, None], "similarity": 0.25}
        rows.append(
            {
                "id": row,
                "words": WORDS,
                "image": f"{row % 2}.png",
                "predicted": tags,
                "confidence": confidence,
                **evidence,
            }
        )
    return rows


def relation_records() -> list[dict[str, Any]]:
    """Two rows of one post, with the same entities in both orders, and a row of another post."""
    attention = [[0.2, 0.8], [0.6, 0.4]]
    pairs = [((1, 3), (4, 6), [0.0, 3.0, 0.0]), ((4, 6), (1, 3), [1.0, 0.9, 0.0])]
    rows = []
    for row, (head, tail, scores) in enumerate([*pairs, ((1, 2), (3, 5), [0.0, 0.0, 5.0])]):
        words = WORDS if row < len(pairs) else ["so", *WORDS[1:]]
        predicted = LABELS["mre"].names[scores.index(max(scores))]
        spans = {"head": list(head), "tail": list(tail)}
        rows.append(
            {
                "id": row,
                "words": words,
                **spans,
                "image": "0.png",
                "boxes": BOXES,
                "predicted": predicted,
                "scores": scores,
                "attention": attention,
            }
        )
    return rows


RECORDS = {"mner": entity_records, "mre": relation_records}


@pytest.fixture
def make_predictions(tmp_path: Path) -> MakePredictions:
    """Writes the predictions and images of a run of a task; returns the file."""

    def make(task: str, summary: bool = True) -> Path:
        folder, root = tmp_path / f"run-{task}", tmp_path / "data"
        (folder / "predictions").mkdir(parents=True)
        root.mkdir(exist_ok=True)
        for number in range(2):
            Image.new("RGB", (40, 30), (90 * number, 120, 60)).save(root / f"{number}.png")
        labels = LABELS[task].to_dict()
        if summary:
            content = {"task": task, "labels": labels, "experiment": "toy", "seed": 1, "val": None, "test": None}
            (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
        config = {"data": {"class_path": "d.D", "init_args": {"root": str(root)}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "predictions" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
        path = folder / "predictions" / "test.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[task]()), encoding="utf-8")
        return path

    return make


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """Output of `mmib extract` for three posts, one of which could not be read; the posts are in `posts.jsonl`."""
    evidence = {
        "tokens": [[0, 3], [4, 10], [11, 19]],
        "kl": [3.0, 2.0, None],
        "regions": BOXES,
        "kl_image": [1.0, 1.0],
        "attention": [[0.2, 0.8], [0.5, 0.5], None],
        "similarity": 0.5,
    }
    entities = [
        {"text": "Ada", "start": 0, "end": 3, "type": "PERSON", "confidence": 0.9},
        {"text": "Foo Town", "start": 11, "end": 19, "type": "TEAM", "confidence": 0.6},
    ]
    relation = {"label": "plays_for", "head": 0, "tail": 1, "confidence": 0.7, "compatible": True}
    found = {
        "text": "Ada joined Foo Town",
        "entities": entities,
        "relations": [relation],
        "notes": [],
        "evidence": evidence,
    }
    nothing = {"text": "nothing here", "entities": [], "relations": [], "notes": []}
    lines = [{"row": 1, "id": 1, **nothing}, {"row": 2, "id": "b", **found}, {"row": 3, "id": 3, "error": "empty"}]
    path = tmp_path / "found.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    posts = [{"text": "nothing here"}, {"text": "Ada joined Foo Town", "image": "ada.png"}, {"text": ""}]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts), encoding="utf-8")
    return path
