"""Which sets a folder holds, and what to do with one that is arranged otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.check import find_sets
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.schema import DataError


def names(path: Path) -> list[tuple[str, Path]]:
    return [(files.name, files.root) for files in find_sets(path)]


def test_a_root_is_known_by_its_texts(mnre: Any, twitter: Any) -> None:
    mnre.row("val")
    twitter.write(("1", "a/O"), year=2015)
    twitter.write(("1", "a/O"), year=2017, split="test")
    assert names(mnre.root) == [("mnre", mnre.root)]
    assert names(twitter.root) == [("twitter2015", twitter.root), ("twitter2017", twitter.root)]


def test_a_folder_of_roots_holds_all_of_them(mnre: Any, twitter: Any, tmp_path: Path) -> None:
    mnre.row()
    twitter.write(("1", "a/O"))
    assert names(tmp_path) == [("mnre", mnre.root), ("twitter2017", twitter.root)]


def test_the_folder_of_the_texts_stands_for_the_one_above(mnre: Any, twitter: Any) -> None:
    mnre.row()
    twitter.write(("1", "a/O"), year=2015)
    twitter.write(("1", "a/O"), year=2017)
    assert names(mnre.root / "txt") == [("mnre", mnre.root)]
    assert names(twitter.root / "twitter2015") == [("twitter2015", twitter.root)]


def test_the_demo_corpus_is_both_layouts_and_known_as_drawn(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "demo", DemoSettings(size="tiny"))
    found = find_sets(tmp_path / "demo")
    assert [(files.name, files.is_demo) for files in found] == [("mnre", True), ("twitter2017", True)]


def test_texts_under_other_names_are_told_where_to_go(mnre: Any, twitter: Any, tmp_path: Path) -> None:
    mnre.row(img_id="x.jpg")
    mnre.image("x.jpg")
    release = tmp_path / "release"
    (release / "mnre_txt").mkdir(parents=True)
    mnre.text("train").rename(release / "mnre_txt" / "mnre_dev.txt")
    (mnre.root / "img_org" / "train").rename(release / "pictures")
    twitter.write(("7", "x/B-OTHER")).rename(release / "train_15.txt")
    with pytest.raises(DataError) as error:
        find_sets(release)
    text = str(error.value).replace(f"{release}/", "")
    assert "mnre_txt/mnre_dev.txt holds rows in the format of MNRE: move it to ROOT/txt/ours_val.txt" in text
    assert "pictures/ holds images of it: move it to ROOT/img_org/val/" in text
    assert "train_15.txt holds posts in the format of Twitter-2015: move it to ROOT/twitter2015/train.txt" in text


def test_a_folder_of_something_else_is_told_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of that kind")
    with pytest.raises(DataError) as error:
        find_sets(tmp_path)
    for part in ("no data set in a known layout", "txt/ours_train.txt", "twitter<2015 or 2017>_images/<IMGID>.jpg"):
        assert part in str(error.value)


@pytest.mark.parametrize("wrong", ["nowhere", "a file"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(DataError, match="does not exist" if wrong == "nowhere" else "is a file"):
        find_sets(tmp_path / wrong)


def test_a_loop_of_links_is_no_trap(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    with pytest.raises(DataError, match="no data set"):
        find_sets(tmp_path)
