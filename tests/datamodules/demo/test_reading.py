"""A report reads back what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.demo import SPLITS, read_ceilings, read_levels
from mmib.datamodules.demo.posts import LEVELS
from mmib.schema import DataError


@pytest.mark.parametrize("split", SPLITS)
def test_levels_have_one_entry_per_row_or_post(corpus: Any, split: str) -> None:
    level_of = {record["id"]: record["level"] for record in corpus.records(f"{split}.jsonl")}
    rows = [level_of[row["img_id"].removesuffix(".jpg")] for row in corpus.rows(split)]
    assert read_levels(corpus.root, split, "mre") == rows
    assert read_levels(corpus.root, split, "mner") == [level_of[identity] for identity in corpus.posts(split)]


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_ceilings_are_those_of_the_task(corpus: Any, task: Any) -> None:
    stored = json.loads((corpus.root / "demo.json").read_text())["splits"]["test"][task]
    found = read_ceilings(corpus.root, "test", task)
    assert found is not None
    assert {view: found[view] for view in ("text", "multimodal")} == stored["ceiling"]
    levels = read_levels(corpus.root, "test", task) or []
    for level in LEVELS:
        assert found["levels"][level] == {
            "rows": levels.count(level),
            "ceiling": stored["levels"][level]["ceiling"],
        }


def test_a_folder_without_a_demo_corpus_has_neither_levels_nor_ceilings(tmp_path: Path) -> None:
    assert read_levels(tmp_path, "val", "mre") is None
    assert read_ceilings(tmp_path, "val", "mner") is None


def test_a_task_that_the_corpus_lacks_has_no_ceilings(corpus: Any) -> None:
    assert read_ceilings(corpus.root, "test", "relevance") is None


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(DataError, match=r"demo\.json: not JSON"):
        read_levels(tmp_path, "test", "mre")
