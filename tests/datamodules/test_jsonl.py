"""Posts as JSON lines: rows of both tasks, held-out posts, images, and the resulting batches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmib.datamodules.files import Malformed
from mmib.datamodules.jsonl import JSONLinesDataModule
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.split_files import HoldOut
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.labels import LabelSet
from mmib.schema import ConfigError, DataError
from mmib.tagging import entities

RELATIONS = LabelSet(("none", "plays-for", "made_by"), "none", {"plays-for": ("PERSON", "TEAM")})
NO_HOLDOUT = HoldOut(0.0)


def post(text: str, *found: tuple[str, str], relations: Any = (), **more: Any) -> dict[str, Any]:
    """A post whose entities are given by their words and type."""
    listed = [{"start": text.index(part), "end": text.index(part) + len(part), "type": name} for part, name in found]
    links = [{"head": head, "tail": tail, "type": name} for head, tail, name in relations]
    return {"text": text, "entities": listed, "relations": links, **more}


ADA = post("Ada joins Foo United", ("Ada", "PERSON"), ("Foo United", "TEAM"), relations=[(0, 1, "plays-for")])


def write(path: Path, *posts: Any, start: str = "", end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False) for entry in posts]
    path.write_text(start + "".join(line + end for line in lines), encoding="utf-8", newline="")
    return path


def reader(root: Path, task: str = "mner", *args: Any, **options: Any) -> JSONLinesReader:
    return JSONLinesReader(root, task, *args, **{"hold_out": NO_HOLDOUT, **options})


def tagged(*posts: Any, tmp_path: Path) -> tuple[list[TaggedPost], str]:
    """The posts of a file and the reader's note."""
    reading = reader(write(tmp_path / "posts.jsonl", *posts))
    found = [post for post in reading.posts("train") if isinstance(post, TaggedPost)]
    return found, reading.note("train")


def related(
    *posts: Any, tmp_path: Path, labels: LabelSet | None = RELATIONS, negatives: bool | None = None
) -> tuple[list[tuple[str, str, str]], str]:
    """Head words, tail words and relation of each row of a file, and the reader's note."""
    reading = reader(write(tmp_path / "posts.jsonl", *posts), "mre", labels, negatives)
    rows = [row for row in reading.posts("train") if isinstance(row, RelationPost)]
    named = [
        (" ".join(row.words[slice(*row.head)]), " ".join(row.words[slice(*row.tail)]), row.relation) for row in rows
    ]
    return named, reading.note("train")


# Entity recognition


@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("\n\n", "\n \n")])
def test_a_post_is_tagged_with_its_entities(tmp_path: Path, start: str, end: str) -> None:
    path = write(tmp_path / "posts.jsonl", {**ADA, "image": "1.jpg"}, start=start, end=end)
    (found,) = reader(path).posts("train")
    line = 3 if start == "\n\n" else 1
    words, tags = ["Ada", "joins", "Foo", "United"], ["B-PERSON", "O", "B-TEAM", "I-TEAM"]
    assert found == TaggedPost(words=words, tags=tags, image="1.jpg", place=f"{path}:{line}")


def test_adjacent_entities_stay_separate(tmp_path: Path) -> None:
    found, note = tagged({"tokens": ["a", "b", "c"], "entities": [TWO, ONE]}, tmp_path=tmp_path)
    assert found[0].tags == ["B-X", "B-X", "I-X"]
    assert note == ""


ONE = {"start": 0, "end": 1, "type": "X"}
TWO = {"start": 1, "end": 3, "type": "X"}


def test_the_longest_of_overlapping_entities_is_kept_and_the_others_are_counted(tmp_path: Path) -> None:
    nested = post("University of Foo", ("Foo", "PLACE"), ("University of Foo", "ORG"), ("of", "X"))
    crossing = {
        "tokens": ["a", "b", "c", "d"],
        "entities": [{"start": start, "end": start + 2, "type": f"T{start}"} for start in (1, 0, 2)],
    }
    found, note = tagged({**ADA, "relations": []}, nested, crossing, tmp_path=tmp_path)
    assert [[entity.type for entity in entities(post.tags)] for post in found] == [["PERSON", "TEAM"], ["ORG"], ["T1"]]
    place = f"{tmp_path / 'posts.jsonl'}:2"
    assert note == (
        "entities left out for a longer one that they overlap, or an earlier one of the same length: 4 "
        f"(first: {place})"
    )


def test_entities_in_chinese_text_may_be_any_substring(tmp_path: Path) -> None:
    found, _ = tagged(post("我在南京大学读书", ("南京大学", "ORG")), tmp_path=tmp_path)
    assert found[0].words == list("我在南京大学读书")
    assert found[0].tags == ["O", "O", "B-ORG", "I-ORG", "I-ORG", "I-ORG", "O", "O"]


def test_types_may_contain_hyphens_and_be_numerous(tmp_path: Path) -> None:
    names = [f"fine-grained/type-{number}" for number in range(50)]
    found, _ = tagged(*(post("Foo won", ("Foo", name)) for name in names), tmp_path=tmp_path)
    assert [entities(post.tags)[0].type for post in found] == names


# Relation extraction


def test_rows_are_made_of_relations_and_of_all_other_pairs_that_may_have_one(tmp_path: Path) -> None:
    """`made_by` may hold between any two."""
    found, note = related(ADA, tmp_path=tmp_path)
    assert found == [("Ada", "Foo United", "plays-for"), ("Foo United", "Ada", "none")]
    assert note == ""


def test_argument_types_determine_which_pairs_are_negative_rows(tmp_path: Path) -> None:
    labels = LabelSet(("plays-for", "none"), "none", {"plays-for": ("PERSON", "TEAM")})
    three = post("Ada and Bob left Foo", ("Ada", "PERSON"), ("Bob", "PERSON"), ("Foo", "TEAM"))
    found, _ = related(three, tmp_path=tmp_path, labels=labels)
    assert found == [("Ada", "Foo", "none"), ("Bob", "Foo", "none")]


@pytest.mark.parametrize(
    ("labels", "negatives"), [(RELATIONS, False), (LabelSet(("plays-for", "made_by")), None), (None, None)]
)
def test_negative_rows_need_a_negative_class_and_can_be_excluded(
    tmp_path: Path, labels: LabelSet | None, negatives: bool | None
) -> None:
    found, _ = related(ADA, tmp_path=tmp_path, labels=labels, negatives=negatives)
    assert found == [("Ada", "Foo United", "plays-for")]


def test_an_annotated_negative_pair_is_one_row(tmp_path: Path) -> None:
    annotated = post("Ada Bob", ("Ada", "X"), ("Bob", "X"), relations=[(0, 1, "none")])
    found, _ = related(annotated, tmp_path=tmp_path)
    assert found == [("Ada", "Bob", "none"), ("Bob", "Ada", "none")]


def test_posts_without_rows_and_pairs_with_several_are_counted(tmp_path: Path) -> None:
    twice = post("Ada Bob", ("Ada", "X"), ("Bob", "X"), relations=[(0, 1, "made_by"), (0, 1, "plays-for")])
    lonely = post("Ada left", ("Ada", "PERSON"))
    found, note = related(twice, lonely, lonely, tmp_path=tmp_path)
    assert found == [("Ada", "Bob", "made_by"), ("Ada", "Bob", "plays-for"), ("Bob", "Ada", "none")]
    path = tmp_path / "posts.jsonl"
    assert note == (
        f"rows of a pair that has another relation too: 1 (first: {path}:1); "
        f"posts without a row: they have no relation and no pair that may have one: 2 (first: {path}:2)"
    )


def test_nested_entities_may_be_related(tmp_path: Path) -> None:
    nested = post("Foo United", ("Foo United", "TEAM"), ("Foo", "PLACE"), relations=[(0, 1, "made_by")])
    found, _ = related(nested, tmp_path=tmp_path, negatives=False)
    assert found == [("Foo United", "Foo", "made_by")]


def test_a_file_without_relations_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.jsonl", post("Ada left", ("Ada", "PERSON")))
    with pytest.raises(DataError, match=rf"{path} holds no relations: put those of the split train in there"):
        list(reader(path, "mre", RELATIONS).posts("train"))


@pytest.mark.parametrize("labels", [None, LabelSet(("a",))])
def test_negative_rows_without_a_negative_class_are_refused(tmp_path: Path, labels: LabelSet | None) -> None:
    with pytest.raises(ConfigError, match=r"the label set has none: name it as 'negative' in data\.labels"):
        reader(tmp_path, "mre", labels, True)


def test_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for the tasks mner and mre, not for 'ner'"):
        reader(tmp_path, "ner")


# Splits


MANY = [post(f"Ada joins Foo{number} today", ("Ada", "PERSON"), (f"Foo{number}", "TEAM")) for number in range(60)]


def splits(root: Path, task: str = "mner") -> dict[str, list[str]]:
    reading = JSONLinesReader(root, task, RELATIONS, hold_out=HoldOut(0.2, 0.1, seed=3))
    return {split: [" ".join(post.words) for post in reading.posts(split)] for split in ("train", "val", "test")}


@pytest.mark.parametrize("task", ["mner", "mre"])
def test_each_post_is_in_one_split_with_all_its_rows(tmp_path: Path, task: str) -> None:
    found = splits(write(tmp_path / "posts.jsonl", *MANY), task)
    texts = [set(texts) for texts in found.values()]
    assert all(texts)
    assert sum(map(len, texts)) == len(set.union(*texts)) == len(MANY)
    if task == "mre":
        assert all(len(listed) == 2 * len(set(listed)) for listed in found.values())


def test_posts_with_the_same_text_are_always_in_the_same_split(tmp_path: Path) -> None:
    before = splits(write(tmp_path / "a.jsonl", *MANY))
    # Other annotations split the text into other words, and new posts are inserted.
    others = [{**entry, "entities": []} for entry in MANY]
    new = [post(f"Bob leaves {number}") for number in range(30)]
    after = splits(write(tmp_path / "b" / "b.jsonl", *new, *reversed(others), *MANY))
    for split, texts in before.items():
        assert [text for text in after[split] if not text.startswith("Bob")] == [*reversed(texts), *texts]


def test_a_malformed_post_is_reported_in_every_split_that_shares_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.jsonl", *MANY[:30], "{", *MANY[30:])
    reading = JSONLinesReader(path, "mner", hold_out=HoldOut(0.2))
    for split in ("train", "val"):
        (bad,) = [entry for entry in reading.scan(split) if isinstance(entry, Malformed)]
        assert bad.line == 31
        assert str(bad.error).startswith(f"{path}:31: not JSON")
        with pytest.raises(DataError, match=rf"{path}:31: not JSON .* mmib check-data lists all"):
            list(reading.posts(split))


def test_an_empty_split_error_names_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.jsonl", ADA)
    message = (
        rf"{path} holds no posts for the split (train|val) with the shares 0.5 for val and the seed 0: add posts"
        ".*held out again"
    )
    reading = JSONLinesReader(path, "mner", hold_out=HoldOut(0.5))
    with pytest.raises(DataError, match=message):
        list(itertools.chain(*map(reading.posts, ("train", "val"))))


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "val"), ("test", "test")])
def test_a_missing_file_error_names_the_expected_files(tmp_path: Path, split: str, name: str) -> None:
    reading = reader(tmp_path)
    assert not reading.has_split(split)
    with pytest.raises(DataError, match=rf"{tmp_path / name}.jsonl does not exist; expected: a folder with train"):
        reading.check(split)


def test_settings_that_determine_which_posts_are_read_are_in_the_options(tmp_path: Path) -> None:
    """A cache that ignored one of these would return the wrong posts."""
    write(tmp_path / "train.jsonl", *MANY)
    variants = [
        JSONLinesReader(tmp_path, "mre", RELATIONS, hold_out=HoldOut(0.2)),
        JSONLinesReader(tmp_path, "mre", RELATIONS, hold_out=HoldOut(0.1)),
        JSONLinesReader(tmp_path, "mre", RELATIONS, hold_out=HoldOut(0.1, 0.1)),
        JSONLinesReader(tmp_path, "mre", RELATIONS, hold_out=HoldOut(0.2, seed=1)),
        JSONLinesReader(tmp_path, "mre", RELATIONS, negatives=False, hold_out=HoldOut(0.2)),
    ]
    assert len({json.dumps(variant.options()) for variant in variants}) == len(variants)
    write(tmp_path / "val.jsonl", *MANY)  # now all posts of the training file are used for training
    with_file = [JSONLinesReader(tmp_path, "mre", RELATIONS, hold_out=HoldOut(share)) for share in (0.1, 0.2)]
    assert with_file[0].options() == with_file[1].options() == {"negatives": True}


# Images


@pytest.mark.parametrize("folder", ["images", "", "elsewhere"])
def test_images_are_found_in_their_folder(tmp_path: Path, folder: str) -> None:
    root = write(tmp_path / "data" / "train.jsonl", ADA).parent
    (root / folder / "a").mkdir(parents=True)
    (root / folder / "a" / "1.PNG").touch()
    images = root / folder if folder == "elsewhere" else None
    (pictures, none, missing) = reader(root, images=images).pictures("train", ["a/1.jpg", "", "2.jpg"], 4)
    assert [picture.file for picture in pictures] == [root / folder / "a" / "1.PNG"]
    assert none == missing == ()


def test_an_image_outside_its_folder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.jsonl", {**ADA, "image": "../1.jpg"})
    with pytest.raises(DataError, match=rf"{path}:1: the file name '\.\./1\.jpg' is not inside"):
        list(reader(path).posts("train"))


# The data module


@pytest.fixture
def load(text_encoder: TextEncoder, image_encoder: ImageEncoder, tmp_path: Path) -> Callable[..., JSONLinesDataModule]:
    def make(root: Path, task: str, labels: Any, **options: Any) -> JSONLinesDataModule:
        settings = {"text_encoder": text_encoder, "image_encoder": image_encoder, "cache_dir": str(tmp_path / "cache")}
        module = JSONLinesDataModule(str(root), task, labels, max_missing_images=1.0, **{**settings, **options})
        module.setup("fit")
        return module

    return make


def with_images(root: Path, count: int) -> list[dict[str, Any]]:
    """Posts, every second of which has an image."""
    (root / "images").mkdir(parents=True)
    for number in range(0, count, 2):
        Image.new("RGB", (8, 8), (number * 4, 0, 0)).save(root / "images" / f"{number}.png")
    return [
        {**entry, "image": f"{number}.jpg"} if number % 2 == 0 else entry for number, entry in enumerate(MANY[:count])
    ]


def test_posts_become_batches_of_entity_recognition(tmp_path: Path, load: Callable[..., JSONLinesDataModule]) -> None:
    root = tmp_path / "teams"
    write(root / "posts.jsonl", *with_images(root, 40))
    module = load(root, "mner", ["TEAM", "PERSON"], holdout=0.2, batch_size=64)
    assert module.corpus == "teams"
    (train,), (val,) = module.train_dataloader(), module.val_dataloader()
    assert len(train) + len(val) == 40
    assert len(val) > 0
    # O, B-TEAM, I-TEAM, B-PERSON, I-PERSON
    assert sorted(train.gold[0].tolist()) == [0, 0, 1, 3]
    pictured = sum(int(batch.region_mask.any(dim=1).sum()) for batch in (train, val))
    assert pictured == 20


@pytest.mark.parametrize(
    ("root", "file", "corpus"),
    [
        ("posts.2024-05.jsonl", "posts.2024-05.jsonl", "posts.2024-05"),
        ("corpus-1.0.3", "corpus-1.0.3/posts.jsonl", "corpus-1.0.3"),
    ],
)
def test_splits_of_a_data_set_with_a_dot_in_its_name_have_their_own_posts(
    tmp_path: Path, load: Callable[..., JSONLinesDataModule], root: str, file: str, corpus: str
) -> None:
    write(tmp_path / file, *MANY[:40])
    module = load(tmp_path / root, "mner", ["TEAM", "PERSON"], holdout=0.2, test_holdout=0.2)
    module.setup("test")
    assert module.corpus == corpus
    words = {split: [tuple(row.words) for row in module.examples[split]] for split in ("train", "val", "test")}
    assert all(words.values())
    assert len({row for rows in words.values() for row in rows}) == 40 == sum(map(len, words.values()))


def test_images_are_described_by_their_path_relative_to_the_data_or_image_folder(
    tmp_path: Path, load: Callable[..., JSONLinesDataModule]
) -> None:
    root = tmp_path / "teams"
    path = write(root / "posts.jsonl", *with_images(root, 20))
    module = load(path, "mner", ["TEAM", "PERSON"])
    assert {module.describe("train", row)["image"] for row in range(16)} >= {"images/2.png", None}
    (root / "images").rename(tmp_path / "pictures")
    module = load(path, "mner", ["TEAM", "PERSON"], image_folder=str(tmp_path / "pictures"))
    assert {module.describe("train", row)["image"] for row in range(16)} >= {"2.png", None}


def test_posts_become_batches_of_relation_extraction(tmp_path: Path, load: Callable[..., JSONLinesDataModule]) -> None:
    root = tmp_path / "teams"
    path = write(root / "posts.jsonl", *({**entry, "relations": ADA["relations"]} for entry in MANY[:20]))
    module = load(path, "mre", RELATIONS.to_dict(), holdout=0.2, batch_size=64)
    (train,) = module.train_dataloader()
    labels = train.label_ids.tolist()
    # Each post has its relation and, in the opposite order, none.
    assert labels.count(1) == labels.count(0) == len(train) // 2
    assert module.fingerprint("train")["held_out"] == {"val": 0.2}


def test_a_label_missing_from_the_configuration_is_named_with_its_line(
    tmp_path: Path, load: Callable[..., JSONLinesDataModule]
) -> None:
    path = write(tmp_path / "posts.jsonl", *MANY)
    with pytest.raises(DataError, match=rf"{path}:\d+: the label 'PERSON' is not one of the 1 of data.labels"):
        load(path, "mner", ["TEAM"])


def test_another_held_out_share_is_not_read_from_the_cache(
    tmp_path: Path, load: Callable[..., JSONLinesDataModule]
) -> None:
    path = write(tmp_path / "posts.jsonl", *MANY)
    sizes = [len(load(path, "mner", ["TEAM", "PERSON"], holdout=share).examples["train"]) for share in (0.1, 0.4, 0.1)]
    assert sizes[0] == sizes[2] > sizes[1]


def test_changes_by_the_reader_are_reported(
    tmp_path: Path, load: Callable[..., JSONLinesDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    overlapping = post("Foo United won", ("Foo United", "TEAM"), ("Foo", "TEAM"))
    write(tmp_path / "train.jsonl", overlapping)
    write(tmp_path / "dev.jsonl", ADA)
    with caplog.at_level("INFO"):
        load(tmp_path, "mner", ["TEAM", "PERSON"])
    assert (
        "entities left out for a longer one that they overlap, or an earlier one of the same length: 1" in caplog.text
    )
