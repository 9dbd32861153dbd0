"""Which data sets a folder contains, and how unexpected layouts are reported."""

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


def test_a_root_is_recognised_by_its_texts(mnre: Any, twitter: Any) -> None:
    mnre.row("val")
    twitter.write(("1", "a/O"), year=2015)
    twitter.write(("1", "a/O"), year=2017, split="test")
    assert names(mnre.root) == [("mnre", mnre.root)]
    assert names(twitter.root) == [("twitter2015", twitter.root), ("twitter2017", twitter.root)]


def test_a_folder_of_roots_contains_all_of_them(mnre: Any, twitter: Any, tmp_path: Path) -> None:
    mnre.row()
    twitter.write(("1", "a/O"))
    assert names(tmp_path) == [("mnre", mnre.root), ("twitter2017", twitter.root)]


def test_the_folder_of_the_texts_is_resolved_to_its_parent(mnre: Any, twitter: Any) -> None:
    mnre.row()
    twitter.write(("1", "a/O"), year=2015)
    twitter.write(("1", "a/O"), year=2017)
    assert names(mnre.root / "txt") == [("mnre", mnre.root)]
    assert names(twitter.root / "twitter2015") == [("twitter2015", twitter.root)]


def test_the_demo_corpus_is_recognised_and_has_both_layouts(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "demo", DemoSettings(size="tiny"))
    found = find_sets(tmp_path / "demo")
    assert [(files.name, files.is_demo) for files in found] == [("mnre", True), ("twitter2017", True)]


def test_texts_under_other_names_get_a_hint_where_to_move_them(mnre: Any, twitter: Any, tmp_path: Path) -> None:
    mnre.row(img_id="x.jpg")
    mnre.image("x.jpg")
    release = tmp_path / "release"
    (release / "mnre_txt").mkdir(parents=True)
    mnre.text("train").rename(release / "mnre_txt" / "mnre_dev.txt")
    shutil.copy(release / "mnre_txt" / "mnre_dev.txt", release / "mnre_txt" / "mnre_val.txt")  # with the same images
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


def test_an_unrecognised_folder_error_lists_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing of the sort")
    with pytest.raises(DataError, match=r"holds no data that mmib can train on.* It reads MNRE's layout, .*JSON lines"):
        find_sets(tmp_path)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "does not exist"), ("a file", "holds no data")])
def test_a_missing_path_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(DataError, match=message):
        find_sets(tmp_path / path)


POST = {
    "text": "Ada joined Acme",
    "entities": [{"start": 0, "end": 3, "type": "PER"}, {"start": 11, "end": 15, "type": "TEAM"}],
    "relations": [{"head": 0, "tail": 1, "type": "joins"}],
}


def test_data_of_custom_formats_is_read_as_by_mmib_init(tmp_path: Path) -> None:
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


def test_unrelated_pairs_are_rows_if_the_label_set_has_a_negative_class(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(POST) + "\n")
    rows = []
    for labels in (None, LabelSet(("no", "joins"), "no")):
        (files,) = find_sets(tmp_path, Given("mre"), labels)
        rows.append([files.labels_of(post) for post in files.read("train").posts.values()])
    assert rows == [[["joins"]], [["joins"], ["no"]]]


def test_cyclic_links_do_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    with pytest.raises(DataError, match="holds no data"):
        find_sets(tmp_path)
