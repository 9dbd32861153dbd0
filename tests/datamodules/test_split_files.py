"""Which file contains a split, and which posts are held out if there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.split_files import HoldOut, Notes, SplitFiles
from mmib.schema import ConfigError, DataError

ENDINGS = (".txt", ".conll")
SPLITS = ("train", "val", "test")


def folder(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        (root / name).touch()
    return root


def files(root: Path, val: float = 0.1, test: float = 0.0, seed: int = 0) -> SplitFiles:
    return SplitFiles(root, ENDINGS, HoldOut(val, test, seed))


def split_of(found: SplitFiles, text: str) -> str:
    """The single split that contains a post of the training file."""
    (split,) = [split for split in ("train", *found.shares) if found.holds(split, text.split())]
    return split


@pytest.mark.parametrize("val", ["val.txt", "valid.txt", "dev.conll", "dev.CONLL", "validation.txt"])
def test_each_split_has_its_file(tmp_path: Path, val: str) -> None:
    found = files(folder(tmp_path, "train.txt", val, "test.txt", "notes.txt", "more.txt"), test=0.2)
    assert [found.file(split).name for split in SPLITS] == ["train.txt", val, "test.txt"]
    assert found.shares == {}
    assert found.holds("train", ["any"])
    assert found.holds("val", ["any"])


@pytest.mark.parametrize(
    ("names", "root", "train"),
    [
        (["train.txt"], "", "train.txt"),
        (["posts.conll"], "", "posts.conll"),
        (["posts.conll"], "posts.conll", "posts.conll"),
        (["a.txt", "b.txt"], "b.txt", "b.txt"),
        (["a.data"], "a.data", "a.data"),
    ],
)
def test_one_file_may_contain_all_splits(tmp_path: Path, names: list[str], root: str, train: str) -> None:
    found = files(folder(tmp_path, *names) / root, test=0.2)
    assert {found.file(split) for split in SPLITS} == {tmp_path / train}
    assert found.folder == tmp_path
    assert found.shares == {"val": 0.1, "test": 0.2}


@pytest.mark.parametrize(
    ("root", "val"), [("train.txt", "dev.CONLL"), ("posts.conll", "dev.CONLL"), ("dev.CONLL", "val.txt")]
)
def test_other_splits_of_a_training_file_have_their_files(tmp_path: Path, root: str, val: str) -> None:
    found = files(folder(tmp_path, "train.txt", "posts.conll", "test.conll", root, val) / root, test=0.2)
    assert [found.file(split).name for split in SPLITS] == [root, val, "test.conll"]
    assert found.shares == {}


def test_only_splits_without_a_file_are_held_out(tmp_path: Path) -> None:
    found = files(folder(tmp_path, "posts.txt", "test.txt"), test=0.2)
    assert [found.file(split).name for split in SPLITS] == ["posts.txt", "posts.txt", "test.txt"]
    assert found.shares == {"val": 0.1}


def test_without_held_out_posts_the_missing_file_is_named(tmp_path: Path) -> None:
    found = files(folder(tmp_path, "train.txt"), val=0.0)
    assert [found.file(split).name for split in SPLITS] == ["train.txt", "val.txt", "test.txt"]


@pytest.mark.parametrize("root", ["", "nowhere", "nowhere/posts.txt"])
def test_a_missing_file_is_named_with_its_expected_location(tmp_path: Path, root: str) -> None:
    named = files(tmp_path / root).file("train")
    assert named == (tmp_path / root if root.endswith(".txt") else tmp_path / root / "train.txt")


@pytest.mark.parametrize(("names", "split"), [(["valid.txt", "dev.txt"], "val"), (["test.txt", "test.conll"], "test")])
def test_two_files_for_one_split_are_refused(tmp_path: Path, names: list[str], split: str) -> None:
    found = files(folder(tmp_path, "train.txt", *names))
    with pytest.raises(DataError, match=f"are both there for the split {split}: keep one"):
        found.file("train")


TEXTS = [f"post number {number}" for number in range(2_000)]


def test_held_out_shares_have_the_requested_size(tmp_path: Path) -> None:
    found = files(folder(tmp_path, "train.txt"), val=0.1, test=0.2)
    split = [split_of(found, text) for text in TEXTS]
    # Within four standard errors of the binomial.
    assert split.count("val") == pytest.approx(200, abs=54)
    assert split.count("test") == pytest.approx(400, abs=72)


def test_a_larger_share_only_adds_held_out_posts(tmp_path: Path) -> None:
    """So does a test share: validation posts stay the same."""
    root = folder(tmp_path, "train.txt")
    small, large, tested = files(root, 0.05), files(root, 0.2), files(root, 0.2, 0.3)
    held = [{text for text in TEXTS if split_of(found, text) == "val"} for found in (small, large, tested)]
    assert held[0] < held[1] == held[2]


def test_another_seed_holds_out_other_posts(tmp_path: Path) -> None:
    root = folder(tmp_path, "train.txt")
    held = [{text for text in TEXTS if split_of(files(root, seed=seed), text) == "val"} for seed in (1, 2)]
    assert len(held[0] & held[1]) < 60  # 20 of 200 by chance


def test_held_out_posts_are_the_same_in_every_version(tmp_path: Path) -> None:
    """Otherwise an update would train on held-out posts."""
    found = files(folder(tmp_path, "train.txt"))
    assert [number for number, text in enumerate(TEXTS[:60]) if split_of(found, text) == "val"] == [
        8,
        9,
        17,
        22,
        27,
        48,
        51,
    ]


@given(st.text(min_size=1, max_size=20), st.data())
def test_the_split_of_a_text_is_independent_of_its_tokenisation(text: str, data: st.DataObject) -> None:
    found = files(Path(__file__), val=0.4, test=0.3)
    cut = data.draw(st.integers(0, len(text)))
    whole, parts = [text], [text[:cut], " ", text[cut:]]
    assert [found.holds(split, whole) for split in SPLITS] == [found.holds(split, parts) for split in SPLITS]


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.1, -0.2), (0.5, 0.5), (1.0, 0.0), (float("nan"), 0.0)])
def test_invalid_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"holdout is .* and test_holdout .*: give shares from 0"):
        HoldOut(*shares)


def test_notes_give_a_count_and_the_first_location() -> None:
    notes = Notes()
    notes.add("tags converted", "a.txt:1", 1_000)
    notes.add("tags converted", "a.txt:9", 5)
    notes.add("entities left out", "a.txt:3", 0)
    notes.add("odd lines", "a.txt:4")
    assert str(notes) == "tags converted: 1,005 (first: a.txt:1); odd lines: 1 (first: a.txt:4)"
    assert str(Notes()) == ""
