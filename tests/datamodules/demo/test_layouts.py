"""The corpus on disk, in MNRE's layout and in Twitter-2017's."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from mmib.datamodules.demo import SPLITS, layouts
from mmib.datamodules.released import MNRE


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def listed(crops: dict[Any, list[str]]) -> set[str]:
    return {name for names in crops.values() for name in names}


@pytest.mark.parametrize("split", SPLITS)
def test_rows_read_back_as_mnre(corpus: Any, split: str) -> None:
    for row in corpus.rows(split):
        assert list(row) == ["token", "h", "t", "img_id", "relation"]
        assert row["relation"] in MNRE.names
        for mention in (row["h"], row["t"]):
            start, end = mention["pos"]
            assert " ".join(row["token"][start:end]) == mention["name"] != ""
    assert json.loads((corpus.root / "ours_rel2id.json").read_text()) == {
        name: number for number, name in enumerate(MNRE.names)
    }


@pytest.mark.parametrize("split", SPLITS)
def test_a_twitter_file_has_the_format_of_the_real_ones(corpus: Any, split: str) -> None:
    post = r"IMGID:demo_[0-9a-f]{12}\n([^\s]+\t(O|[BI]-(PER|LOC|ORG|MISC))\n)+\n"
    assert re.fullmatch(f"({post})+", corpus.twitter_text(split))


@pytest.mark.parametrize("split", SPLITS)
def test_tagged_entities_are_the_gold_entities(corpus: Any, split: str) -> None:
    posts, records = corpus.posts(split), corpus.records(f"{split}.jsonl")
    assert list(posts) == [record["id"] for record in records]
    for record in records:
        tokens, tags = posts[record["id"]]
        assert tokens == record["tokens"]
        found = [[start, last + 1, entity_type] for entity_type, start, last in get_entities(tags)]
        assert found == sorted(record["entities"])


@pytest.mark.parametrize("split", SPLITS)
def test_an_id_refers_to_the_same_post_in_both_formats(corpus: Any, split: str) -> None:
    posts = corpus.posts(split)
    for row in corpus.rows(split):
        tokens, tags = posts[row["img_id"].removesuffix(".jpg")]
        assert tokens == row["token"]
        spans = [(start, last + 1) for _, start, last in get_entities(tags)]
        assert tuple(row["h"]["pos"]) in spans
        assert tuple(row["t"]["pos"]) in spans


@pytest.mark.parametrize("split", SPLITS)
def test_posts_without_entities_are_in_the_twitter_files_only(corpus: Any, split: str) -> None:
    chatter = {identity for identity, (_, tags) in corpus.posts(split).items() if set(tags) == {"O"}}
    with_rows = {row["img_id"].removesuffix(".jpg") for row in corpus.rows(split)}
    assert chatter
    assert chatter == set(corpus.posts(split)) - with_rows
    kept = names_in(corpus.root / "img_org" / split)
    assert not {f"{identity}.jpg" for identity in chatter} & kept
    shown = [identity for identity in chatter if f"{identity}.jpg" in corpus.crops_by_image(split)]
    crops = [name for identity in shown for name in corpus.crops_by_image(split)[f"{identity}.jpg"]]
    assert not set(crops) & names_in(corpus.root / "img_vg" / split / "crops")


def test_a_token_that_a_tokenizer_drops_occurs(corpus: Any) -> None:
    tagged = [pair for tokens, tags in corpus.posts("train").values() for pair in zip(tokens, tags, strict=True)]
    assert ("\ufe0f", "O") in tagged


@pytest.mark.parametrize("split", SPLITS)
def test_mnre_images_and_crops_exist_unless_missing(corpus: Any, split: str) -> None:
    rows, crops = corpus.rows(split), corpus.crops_by_row(split)
    boxes = json.loads((corpus.root / "img_vg" / split / "boxes.json").read_text())
    there = names_in(corpus.root / "img_org" / split)
    assert names_in(corpus.root / "img_vg" / split / "crops") == set(boxes) == listed(crops)
    for number, row in enumerate(rows):
        assert (row["img_id"] in there) == (number in crops)
        assert len(crops.get(number, ["-"])) >= 1
    Image.open(corpus.root / "img_org" / split / sorted(there)[0]).verify()


def test_twitter_images_and_crops_exist_unless_missing(corpus: Any) -> None:
    there = names_in(corpus.root / "twitter2017_images")
    records = [record for split in SPLITS for record in corpus.records(f"{split}.jsonl")]
    assert {record["image"] for record in records if record["image"]} == there
    for split in SPLITS:
        crops = corpus.crops_by_image(split)
        folder = corpus.root / "twitter2017_aux_images" / split
        assert set(crops) == {f"{identity}.jpg" for identity in corpus.posts(split)} & there
        assert names_in(folder / "crops") == set(json.loads((folder / "boxes.json").read_text())) == listed(crops)


@pytest.mark.parametrize("split", SPLITS)
def test_both_formats_list_the_same_crops_and_boxes(corpus: Any, split: str) -> None:
    by_image, rows = corpus.crops_by_image(split), corpus.rows(split)
    for number, names in corpus.crops_by_row(split).items():
        assert names == by_image[rows[number]["img_id"]]
    mnre, twitter = (
        json.loads((corpus.root / folder / split / "boxes.json").read_text())
        for folder in ("img_vg", "twitter2017_aux_images")
    )
    assert mnre.items() <= twitter.items()


@pytest.mark.parametrize("split", SPLITS)
def test_each_image_is_stored_once(corpus: Any, split: str) -> None:
    mnre, twitter = layouts.mnre_folders(corpus.root, split), layouts.twitter_folders(corpus.root, split)
    for one, other in ((mnre.images, twitter.images), (mnre.crops, twitter.crops)):
        for path in one.iterdir():
            assert path.samefile(other / path.name)


def test_file_systems_without_hard_links_get_copies(
    corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(layouts.os, "link", refuse)
    copied = corpus.again(tmp_path / "copied")
    assert copied.content() == corpus.content()
    assert {path.stat().st_nlink for path in (copied.root / "img_org" / "val").iterdir()} == {1}


def test_shared_images_are_stored_once(corpus: Any) -> None:
    rows = corpus.rows("train")
    assert len({row["img_id"] for row in rows}) == corpus.settings.posts("train") < len(rows)


def test_posts_with_the_same_drawing_share_a_file_and_its_crops(corpus: Any) -> None:
    folder = corpus.root / "twitter2017_images"
    crops = corpus.crops_by_image("train")
    drawings = Counter(path.stat().st_ino for path in folder.iterdir() if path.name in crops)
    assert len(crops) == drawings.total()
    assert len(drawings) == len({tuple(names) for names in crops.values()})
    for image, names in crops.items():
        same = [other for other in crops if (folder / other).samefile(folder / image)]
        assert all(crops[other] == names for other in same)
    assert max(drawings.values()) == corpus.settings.posts_per_image


def test_no_image_occurs_in_two_splits(corpus: Any) -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(corpus.posts(one)) & set(corpus.posts(other))


def test_no_name_occurs_in_two_splits(corpus: Any) -> None:
    def names(split: str) -> set[str]:
        posts = corpus.posts(split).values()
        return {token for tokens, tags in posts for token, tag in zip(tokens, tags, strict=True) if tag != "O"}

    for one, other in itertools.combinations(SPLITS, 2):
        assert names(one)
        assert not names(one) & names(other)
