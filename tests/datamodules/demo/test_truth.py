"""Stored records of posts, rows and splits agree with the files."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from mmib.datamodules.demo import SPLITS, expected_best_f1
from mmib.datamodules.demo.posts import LEVELS


@pytest.mark.parametrize("split", SPLITS)
def test_records_agree_with_the_rows(corpus: Any, split: str) -> None:
    rows, row_records, posts = (
        corpus.rows(split),
        corpus.records(f"rows_{split}.jsonl"),
        corpus.records(f"{split}.jsonl"),
    )
    assert [record["row"] for record in row_records] == list(range(len(rows)))
    assert [record["relation"] for record in row_records] == [row["relation"] for row in rows]
    assert [number for post in posts for number in post["rows"]] == list(range(len(rows)))
    for post in posts:
        for number, (head, tail, relation) in zip(post["rows"], post["relations"], strict=True):
            assert row_records[number]["post"] == post["id"]
            assert rows[number]["token"] == post["tokens"]
            assert rows[number]["h"]["pos"] == post["entities"][head][:2]
            assert rows[number]["t"]["pos"] == post["entities"][tail][:2]
            assert rows[number]["relation"] == relation


@pytest.mark.parametrize("split", SPLITS)
def test_posts_without_entities_are_recorded(corpus: Any, split: str) -> None:
    chatter = [record for record in corpus.records(f"{split}.jsonl") if not record["entities"]]
    assert chatter
    for record in chatter:
        assert record["rows"] == record["relations"] == record["entity_posteriors_text"] == []
        assert record["picture"]["scene"] or record["picture"]["people"]


def labels(corpus: Any, task: str, view: str, level: str | None) -> list[dict[str, float]]:
    """The stored posteriors of the test split."""
    if task == "mre":
        stored = [(row["level"], [row[f"posterior_{view}"]]) for row in corpus.records("rows_test.jsonl")]
    else:
        stored = [(post["level"], post[f"entity_posteriors_{view}"]) for post in corpus.records("test.jsonl")]
    return [posterior for post_level, posteriors in stored if level in (None, post_level) for posterior in posteriors]


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_ceilings_match_the_stored_posteriors(corpus: Any, task: str) -> None:
    found = json.loads((corpus.root / "demo.json").read_text())["splits"]["test"][task]
    for level in (None, *LEVELS):
        part = found if level is None else found["levels"][level]
        text, multimodal = (labels(corpus, task, view, level) for view in ("text", "multimodal"))
        assert part["ceiling"]["text"] == pytest.approx(expected_best_f1(text))
        assert part["ceiling"]["multimodal"] == pytest.approx(expected_best_f1(multimodal))
        assert part["ceiling"]["text"] < part["ceiling"]["multimodal"] <= 1.0
        assert part["labels"] == len(text)
        assert part["open"] == sum(max(posterior.values()) < 1 - 1e-9 for posterior in text)


def test_missing_bindings_matter_at_the_hard_level_only(corpus: Any) -> None:
    for parts in json.loads((corpus.root / "demo.json").read_text())["splits"]["train"].values():
        easy, hard = (parts["levels"][level] for level in LEVELS)
        assert easy["unbound"] == easy["ceiling"]["multimodal"]
        assert hard["ceiling"]["text"] < hard["unbound"] < hard["ceiling"]["multimodal"]


@pytest.mark.parametrize("split", SPLITS)
def test_the_kind_of_each_image_is_recorded(noisy_corpus: Any, split: str) -> None:
    posts = noisy_corpus.records(f"{split}.jsonl")
    named = [post for post in posts if post["entities"]]
    for post in named:
        unrelated = post["picture"]["unrelated"]
        assert unrelated == (post["noise"] if post["noise"] != "scene" else None)
        assert (post["relevance_posterior"] is None) == (post["image"] is None)
        if post["image"] and post["noise"] is None:
            assert post["relevance_posterior"] > 0
    assert {post["noise"] for post in named} == {None, "scene", "meme", "food"}
    assert {(post["noise"], post["relevance_posterior"]) for post in posts if not post["entities"]} == {(None, None)}
    found = json.loads((noisy_corpus.root / "demo.json").read_text())["splits"][split]["mner"]
    assert found["noise"] == Counter(post["noise"] for post in named if post["noise"] and post["image"])


def test_counts_of_rows_and_images_match_the_task(corpus: Any) -> None:
    found = json.loads((corpus.root / "demo.json").read_text())["splits"]["train"]
    assert found["mre"]["rows"] == len(corpus.rows("train"))
    assert found["mner"]["rows"] == len(corpus.posts("train"))
    assert found["mre"]["images"] == len(list((corpus.root / "img_org" / "train").iterdir()))
    assert found["mner"]["images"] == len(corpus.crops_by_image("train"))
