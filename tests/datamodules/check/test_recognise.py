"""Which sets a folder holds, and what to do with one that is arranged otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.check import find_sets
from mmib.datamodules.columns_files import ColumnsReader
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.init.recognise import Given
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.labels import LabelSet
from mmib.schema import ConfigError, DataError


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
    shutil.copy(release / "mnre_txt" / "mnre_dev.txt", release / "mnre_txt" / "mnre_val.txt")  # of the same images
    (mnre.root / "img_org" / "train").rename(release / "pictures")
    (release / "mner_txt").mkdir()
    twitter.write(("7", "x/B-OTHER")).rename(release / "mner_txt" / "train_15.txt")
    with pytest.raises(DataError) as error:
        find_sets(release)
    text = str(error.value).replace(f"{release}/", "")
    assert len(text.splitlines()) == len(set(text.splitlines()))
    assert "mnre_txt/mnre_dev.txt holds rows in the format of MNRE: move it to ROOT/txt/ours_val.txt" in text
    assert "pictures/ holds images of it: move it to ROOT/img_org/val/" in text
    assert (
        "mner_txt/train_15.txt holds posts in the format of Twitter-2015: move it to ROOT/twitter2015/train.txt" in text
    )


def test_a_folder_of_something_else_is_told_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing of the sort")
    with pytest.raises(DataError, match=r"holds no data that mmib can train on.* It reads MNRE's layout, .*JSON lines"):
        find_sets(tmp_path)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "does not exist"), ("a file", "holds no data")])
def test_a_path_that_holds_nothing_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(DataError, match=message):
        find_sets(tmp_path / path)


POST = {
    "text": "Ada joined Acme",
    "entities": [{"start": 0, "end": 3, "type": "PER"}, {"start": 11, "end": 15, "type": "TEAM"}],
    "relations": [{"head": 0, "tail": 1, "type": "joins"}],
}


def test_data_of_other_formats_is_read_as_mmib_init_does(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for split in ("train", "val"):
        (tmp_path / "own" / f"{split}.jsonl").write_text(json.dumps(POST) + "\n")
    with pytest.raises(ConfigError, match="choose with --task mner or --task mre"):
        find_sets(tmp_path / "own")
    for task in ("mner", "mre"):
        (files,) = find_sets(tmp_path / "own", Given(task))
        assert (files.task, files.title) == (task, "posts as JSON lines")
        assert isinstance(files.reader, JSONLinesReader)
    (tmp_path / "columns.conll").write_text("Ada B-PER\njoined O\n\nAcme B-TEAM\n" * 9)
    (files,) = find_sets(tmp_path / "columns.conll")
    assert isinstance(files.reader, ColumnsReader)
    assert "20% for val and 20% for test" in files.remarks[-1]


def test_pairs_without_a_relation_are_rows_where_the_label_set_has_a_negative_class(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(POST) + "\n")
    rows = []
    for labels in (None, LabelSet(("no", "joins"), "no")):
        (files,) = find_sets(tmp_path, Given("mre"), labels)
        rows.append([files.labels_of(post) for post in files.read("train").posts.values()])
    assert rows == [[["joins"]], [["joins"], ["no"]]]


def test_a_loop_of_links_is_no_trap(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    with pytest.raises(DataError, match="holds no data"):
        find_sets(tmp_path)
