"""docs/reference/formats.md: its examples can be read as documented, and models train on data in its formats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.cli import main
from mmib.datamodules.columns_files import ColumnsReader
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.split_files import HoldOut
from mmib.labels import LabelSet
from mmib.tagging import entities

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
QUICK = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--wandb=off"]


def block(language: str) -> str:
    """The first block of the page in the given language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert found is not None
    return found.group(1)


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_json_lines_of_the_page_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", block("json"))
    tagged: Any = list(JSONLinesReader(path, "mner", hold_out=HoldOut(0.0)).posts("train"))
    marked = [[" ".join(post.words[found.start : found.end]) for found in entities(post.tags)] for post in tagged]
    assert marked == [["Ada", "Foo United"], ["Foo United"]]
    assert [post.image for post in tagged] == ["p1.jpg", ""]
    labels = LabelSet(("none", "plays_for"), "none")
    related: Any = list(JSONLinesReader(path, "mre", labels, hold_out=HoldOut(0.0)).posts("train"))
    assert [(row.words[row.head[0]], row.relation) for row in related] == [("Ada", "plays_for"), ("Foo", "none")]


def test_columns_of_the_page_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", block("text"))
    posts: Any = list(ColumnsReader(path, hold_out=HoldOut(0.0)).posts("train"))
    assert [post.image for post in posts] == ["p1.jpg", "p2"]
    assert [[found.type for found in entities(post.tags)] for post in posts] == [["PERSON", "TEAM"], ["TEAM"]]


def test_settings_of_the_page_match_the_schemes() -> None:
    rows = re.findall(r"^\| `([A-Z0-9]+)` ", PAGE, re.M)
    assert rows == ["BIO", "IOB1", "BIOES", "BMES", "BARE"]


def json_lines(types: list[str], relations: list[str]) -> str:
    """A post with two entities for each type and relation."""
    posts = []
    for number in range(max(24, len(types))):
        first, second = types[number % len(types)], types[-1]
        posts.append(
            {
                "text": f"Ada{number} joins Foo",
                "entities": [
                    {"start": 0, "end": len(f"Ada{number}"), "type": first},
                    {"start": len(f"Ada{number} joins "), "end": len(f"Ada{number} joins Foo"), "type": second},
                ],
                "relations": [{"head": 0, "tail": 1, "type": relations[number % len(relations)]}],
            }
        )
    return "".join(json.dumps(post) + "\n" for post in posts)


FINE_GRAINED = [f"/object/type-{number}" for number in range(50)]
WNUT = ["person", "location", "corporation", "group", "product", "creative-work"]
CHINESE = "".join(f"我 O\n在 O\n南 B-ORG\n京 M-ORG\n大 M-ORG\n学 E-ORG\n{chr(0x4E00 + n)} S-LOC\n\n" for n in range(24))
COLUMNS = "".join(f"Foo{n}\tB-{WNUT[n % 6]}\nBar\tI-{WNUT[n % 6]}\nwon\tO\n\n" for n in range(24))


@pytest.mark.parametrize(
    ("task", "file", "content", "labels"),
    [
        ("mner", "posts.jsonl", json_lines(FINE_GRAINED, ["r"]), FINE_GRAINED),
        ("mner", "posts.conll", COLUMNS, WNUT),
        ("mner", "posts.bio", CHINESE, ["LOC", "ORG"]),
        ("mre", "posts.jsonl", json_lines(["A", "B"], ["fan of", "owns"]), ["fan of", "owns"]),
        (
            "mre",
            "posts.jsonl",
            json_lines(["A", "B"], ["no_relation", "owns"]),
            {"names": ["owns", "no_relation"], "negative": "no_relation", "arguments": {"owns": ["A", "B"]}},
        ),
    ],
    ids=["fifty types", "types with hyphens", "Chinese in BMES", "relations", "relations with a negative class"],
)
def test_models_are_trained_and_tested_on_data_in_these_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_files: Any, task: str, file: str, content: str, labels: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "posts").mkdir()
    write(tmp_path / "posts" / file, content)
    lines = file.endswith(".jsonl")
    pieces = ["base.yaml", f"model/{task}.yaml", "model/offline.yaml", f"data/{'jsonl' if lines else 'columns'}.yaml"]
    data = {"root": "posts", "labels": labels, "holdout": 0.2, "test_holdout": 0.2, **({"task": task} if lines else {})}
    write(tmp_path / "mine.yaml", yaml.safe_dump({"include": pieces, "name": "mine", "data": {"init_args": data}}))
    assert main(["fit", "--config", "mine.yaml", *encoder_files.options(), *QUICK, "--runs=runs"]) == 0
    (summary,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/summary.json"))
    counts = {split: found["rows"] for split, found in summary["data"].items()}
    assert counts.keys() == {"train", "val", "test"}
    assert min(counts.values()) > 0
