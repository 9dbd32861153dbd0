"""A repaired copy: clean, complete, and changed only as reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.datamodules.check import check_set, every_finding, find_sets, status, write_repaired
from mmib.datamodules.crops import read_crop_dictionary, row_number
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.twitter_files import TwitterReader
from mmib.labels import LabelSet
from mmib.schema import DataError


def repaired(root: Path, out: Path) -> list[str]:
    return write_repaired(find_sets(root), out)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def problems(root: Path) -> list[str]:
    reports = [check_set(files, None, 1.0) for files in find_sets(root)]
    found = [str(finding) for _, finding in every_finding(reports) if finding.severity != "note"]
    assert status(reports) == bool(found)
    return found


@pytest.fixture
def broken(mnre: Any) -> Any:
    """All kinds of faults in MNRE's layout; rows 0, 3 and 5 of training are valid."""
    mnre.row(img_id="a.jpg")
    mnre.row(head=(3, 3))
    mnre.line("")
    mnre.row(h={"name": "bob", "pos": [0, 1]})
    mnre.row(img_id="b.jpg")
    mnre.row(img_id="../../out.jpg")
    mnre.row(img_id="c.jpg")
    mnre.row("val", token=["x", "y", "z"], img_id="v.jpg", h={"pos": [0, 1]}, t={"pos": [2, 3]})
    for name in ("a.jpg", "b.jpg", "orphan.jpg"):
        mnre.image(name)
    mnre.image("v.jpg", split="val")
    (mnre.image("c.jpg")).write_bytes(b"no image")
    for name in ("first.jpg", "second.jpg", "third.jpg"):
        mnre.crop(name)
    mnre.crop("bad.jpg").write_bytes(b"")
    mnre.crops(
        {0: ["first.jpg", "bad.jpg"], 1: ["first.jpg"], 3: ["gone.jpg", "../x.jpg", "second.jpg"], 5: ["third.jpg"]}
    )
    (mnre.root / "img_vg" / "train" / "boxes.json").write_text(json.dumps({"first.jpg": [0, 0, 1, 0.5]}))
    (mnre.root / "ours_rel2id.json").write_text("{}")
    return mnre


def test_the_copy_is_clean_and_the_original_unchanged(broken: Any, tmp_path: Path) -> None:
    before = contents(broken.root)
    assert len(problems(broken.root)) >= 6
    changes = repaired(broken.root, tmp_path / "copy")
    assert contents(broken.root) == before
    assert problems(tmp_path / "copy") == []
    assert [row.image for row in MNREReader(tmp_path / "copy").posts("train")] == ["a.jpg", "b.jpg", "c.jpg"]
    for part in (
        "ours_train.txt:2: the span [3, 3) of 'h' is empty",
        "ours_train.txt:4: the span [0, 1) of the head holds 'ada', named 'bob'",
        "ours_train.txt:6: the file name '../../out.jpg'",
        "img_org/train/c.jpg: it is no image",
        "img_vg/train/crops/bad.jpg",
        "mre_train_dict.pth: missing or unreadable crops: ../x.jpg, bad.jpg, gone.jpg",
        "ours_rel2id.json: the label set is empty",
    ):
        assert len([change for change in changes if part in change]) == 1, part
    assert len(changes) == 7


def test_crops_keep_their_rows_when_rows_are_removed(broken: Any, tmp_path: Path) -> None:
    repaired(broken.root, tmp_path / "copy")
    crops = read_crop_dictionary(tmp_path / "copy" / "txt" / "mre_train_dict.pth", row_number)
    assert crops == {0: ["first.jpg"], 1: ["second.jpg"], 2: ["third.jpg"]}
    boxes = tmp_path / "copy" / "img_vg" / "train" / "boxes.json"
    assert json.loads(boxes.read_text()) == {"first.jpg": [0, 0, 1, 0.5]}


def test_valid_files_are_copied_byte_for_byte_and_not_linked(mnre: Any, tmp_path: Path) -> None:
    mnre.row(token=["caf\u00e9\u2028", "met", "bob"], h={"pos": [0, 1]})
    mnre.row("val")
    for split in ("train", "val"):
        mnre.image("a.jpg", split=split)
    mnre.image("orphan.jpg")
    assert repaired(mnre.root, tmp_path / "copy") == []
    assert contents(tmp_path / "copy") == contents(mnre.root)
    copy = tmp_path / "copy" / "img_org" / "train" / "a.jpg"
    assert not copy.samefile(mnre.root / "img_org" / "train" / "a.jpg")


def test_rows_with_a_label_missing_from_the_label_set_are_kept(mnre: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        mnre.row(split, token=["ada", split, "bob"])
        mnre.row(split, token=["ada", split, "x"], t={"pos": [2, 3]}, relation="likes")
    (mnre.root / "ours_rel2id.json").write_text('{"/per/per/peer": 0}')
    labels = LabelSet(("/per/per/peer",))
    assert write_repaired(find_sets(mnre.root), tmp_path / "copy", labels) == []
    assert contents(tmp_path / "copy") == contents(mnre.root)
    (change,) = write_repaired(find_sets(mnre.root), tmp_path / "other", LabelSet(("/per/per/peer", "likes")))
    assert "ours_rel2id.json names other labels than data.labels" in change
    assert not (tmp_path / "other" / "ours_rel2id.json").exists()


def test_a_text_with_windows_line_ends_is_copied_unchanged(twitter: Any, tmp_path: Path) -> None:
    path = twitter.write(("1", "a/I-PER b/O"))
    twitter.write(("2", "b/O"), split="valid")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (change,) = repaired(twitter.root, tmp_path / "copy")
    assert "train.txt:2: the stray tag I-PER became B-PER" in change
    expected = path.read_bytes().replace(b"\tI-", b"\tB-")
    assert (tmp_path / "copy" / "twitter2017" / "train.txt").read_bytes() == expected


@pytest.mark.parametrize("marks", ["\ufeff", "\ufeff\ufeff"])
def test_concatenated_files_keep_their_first_posts(twitter: Any, tmp_path: Path, marks: str) -> None:
    path = twitter.write(("1", "a/O"))
    one = path.read_text()
    path.write_text("".join(marks + one.replace("IMGID:1", f"IMGID:{number}") for number in range(3)))
    twitter.write(("9", "b/O"), split="valid")
    before = path.read_bytes()
    assert repaired(twitter.root, tmp_path / "copy") == []
    assert (tmp_path / "copy" / "twitter2017" / "train.txt").read_bytes() == before
    assert [post.image for post in TwitterReader(tmp_path / "copy", 2017).posts("train")] == ["0.jpg", "1.jpg", "2.jpg"]


def test_all_removed_lines_are_named(twitter: Any, tmp_path: Path) -> None:
    """The header of a post is damaged, and the post before it cannot be read either."""
    path = twitter.write(("1", "a/O b/O"), ("2", "c/O"), ("3", "d/O"))
    twitter.write(("9", "b/O"), split="valid")
    path.write_text(path.read_text().replace("IMGID:2", "IMG ID:2"))
    (change,) = repaired(twitter.root, tmp_path / "copy")
    assert "train.txt:5: expected a word, one tab and its tag, got 'IMG ID:2' (lines 1 to 6)" in change


def test_stray_tags_become_b_tags_and_nothing_else_changes(twitter: Any, tmp_path: Path) -> None:
    path = twitter.write(("1", "a/I-OTHER b/I-OTHER c/O"), ("2", "d/S-PER"), ("3", "e/B-PER f/I-LOC"))
    twitter.write(("4", "x/O"), split="valid")
    twitter.picture("twitter2017_images", "1.jpg")
    changes = repaired(twitter.root, tmp_path / "copy")
    text = (tmp_path / "copy" / "twitter2017" / "train.txt").read_text()
    assert text == path.read_text().replace("a\tI-", "a\tB-").replace("f\tI-", "f\tB-").replace(
        "IMGID:2\nd\tS-PER\n\n", ""
    )
    expected = ["2: the stray tag I-MISC became B-MISC", "7: the tag 'S-PER'", "11: the stray tag I-LOC became B-LOC"]
    for change, part in zip(changes, expected, strict=True):
        assert f"train.txt:{part}" in change
    assert problems(tmp_path / "copy") == []


def test_an_unreadable_dictionary_is_removed_with_its_crops(twitter: Any, tmp_path: Path) -> None:
    twitter.write(("1", "a/O"))
    twitter.write(("2", "b/O"), split="valid")
    torch.save([1], twitter.root / "twitter2017" / "twitter2017_train_dict.pth")
    (change,) = repaired(twitter.root, tmp_path / "copy")
    assert change.startswith("left out, with the crops of train: ")
    assert problems(tmp_path / "copy") == []


def test_several_sets_keep_their_folders(mnre: Any, twitter: Any, tmp_path: Path) -> None:
    mnre.row()
    twitter.write(("1", "a/O"), year=2015)
    twitter.write(("1", "a/O"))
    write_repaired(find_sets(tmp_path), tmp_path.with_name(f"{tmp_path.name}-copy"))
    roots = {files.name: files.root.name for files in find_sets(tmp_path.with_name(f"{tmp_path.name}-copy"))}
    assert roots == {"mnre": "mnre", "twitter2015": "twitter", "twitter2017": "twitter"}


@pytest.mark.parametrize("target", ["same", "inside", "around", "full", "file"])
def test_nothing_is_repaired_in_place_or_overwritten(mnre: Any, tmp_path: Path, target: str) -> None:
    mnre.row()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    out = {"same": mnre.root, "inside": mnre.root / "copy", "around": tmp_path}.get(target, tmp_path / target)
    before = contents(tmp_path)
    with pytest.raises(DataError, match="is there already" if target != "inside" else "lies within"):
        repaired(mnre.root, out)
    assert contents(tmp_path) == before


def test_a_failed_copy_leaves_nothing_behind(mnre: Any, tmp_path: Path) -> None:
    mnre.row(head=(5, 6))
    with pytest.raises(DataError, match="no row can be read"):
        repaired(mnre.root, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnre"]


def test_the_demo_corpus_is_regenerated_instead(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "demo", DemoSettings(size="tiny"))
    with pytest.raises(DataError, match="mmib demo-data"):
        repaired(tmp_path / "demo", tmp_path / "copy")
