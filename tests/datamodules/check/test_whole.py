"""Findings of a check: planted faults, each with its kind and severity."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmib.datamodules.check import Finding, Pieces, SetReport, check_set, every_finding, find_sets, status
from mmib.datamodules.check.sets import SPLITS
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.released import RELEASED
from mmib.encoders.text import WordTokenizer

ROW = {"rows": 1, "negative": 0}
REAL = Path(__file__).parents[4] / "shared" / "data"


def check(root: Path, tokenizer: WordTokenizer | None = None, max_length: int = 64, allowed: float = 1.0) -> SetReport:
    (files,) = find_sets(root)
    return check_set(files, Pieces(tokenizer, "tiny", max_length) if tokenizer else None, allowed)


def found(report: SetReport) -> dict[tuple[str, str], Finding]:
    return {(split, finding.code): finding for split, finding in every_finding([report])}


def fill(mnre: Any, *splits: str) -> None:
    """A valid row with its own text and image in each split."""
    for number, split in enumerate(splits):
        mnre.row(split, token=["ada", split, "bob"], img_id=f"{split}.jpg")
        mnre.image(f"{split}.jpg", colour=("red", "blue", "green")[number], split=split)


def test_a_valid_set_has_no_findings(mnre: Any) -> None:
    fill(mnre, *SPLITS)
    report = check(mnre.root)
    assert status([report]) == 0
    assert [part.counts for part in report.splits] == [ROW] * 3
    assert [part.labels for part in report.splits] == [{"/per/per/peer": 1}] * 3
    images = report.splits[0].images
    assert images
    assert (images.named, images.found, images.missing, images.unreadable, images.rows) == (1, 1, 0, 0, 1)
    # A custom corpus in MNRE's layout is not compared with MNRE.
    assert set(found(report)) == {("", "counts"), ("", "unused_labels")}


@pytest.mark.parametrize(("missing", "expected"), [("test", 0), ("val", 1), ("train", 1)])
def test_a_missing_split_is_reported(mnre: Any, missing: str, expected: int) -> None:
    fill(mnre, *(split for split in SPLITS if split != missing))
    report = check(mnre.root)
    assert status([report]) == expected
    assert f"txt/ours_{missing}.txt is not there" in found(report)[missing, "missing_split"].text


def test_a_copy_of_a_released_set_must_have_the_released_counts(mnre: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(mnre, *SPLITS)
    monkeypatch.setitem(RELEASED, "mnre", {"train": ROW, "val": ROW, "test": {"rows": 2, "negative": 1}})
    report = check(mnre.root)
    assert found(report)["test", "counts"].text == "not the released split: 1 rows, released 2; 0 negative, released 1"
    assert status([report]) == 1


@pytest.mark.parametrize(("words", "differs"), [("a/I-PER b/O", False), ("a/B-PER b/O", False), ("a/O b/O", True)])
def test_a_released_split_with_repaired_tags_is_still_recognised(
    twitter: Any, monkeypatch: pytest.MonkeyPatch, words: str, differs: bool
) -> None:
    twitter.write(("1", words))
    twitter.write(("2", "x/O"), split="valid")
    entity, nothing = ({"posts": 1, "entities": count, "entities_strict": 0} for count in (1, 0))
    monkeypatch.setitem(RELEASED, "twitter2017", {"train": entity, "val": nothing, "test": nothing})
    assert (("train", "counts") in found(check(twitter.root))) == differs


def test_all_malformed_rows_are_listed_and_the_others_counted(mnre: Any) -> None:
    fill(mnre, "val")
    mnre.row()
    mnre.row(head=(2, 2))
    mnre.row(tail=(1, 9))
    mnre.line("{'token': [")
    mnre.row(img_id="../../a.jpg")
    report = check(mnre.root)
    finding = found(report)["train", "malformed"]
    assert [item.split(": ")[0] for item in finding.items] == [f"txt/ours_train.txt:{line}" for line in (2, 3, 4, 5)]
    assert report.splits[0].counts["rows"] == 1
    assert finding.severity == "problem"


def test_a_text_that_is_not_utf8_cannot_be_read_but_the_others_are(mnre: Any) -> None:
    fill(mnre, "val")
    mnre.text("train").write_bytes(b"{'token': ['\xff']}\n")
    report = check(mnre.root)
    assert status([report]) == 2
    assert "is not UTF-8: byte 12" in found(report)["train", "text"].text
    assert report.splits[1].counts == ROW


def test_a_span_that_does_not_match_its_name_is_reported(mnre: Any) -> None:
    fill(mnre, "val")
    mnre.row()
    mnre.row(h={"name": "bob", "pos": [0, 1]})
    mnre.row(token=["New", "York", "x"], h={"name": "NewYork", "pos": [0, 2]}, t={"name": "x", "pos": [2, 3]})
    (item,) = found(check(mnre.root))["train", "doubtful"].items
    assert item == "txt/ours_train.txt:2: the span [0, 1) of the head holds 'ada', named 'bob'"


def test_entities_are_counted_in_both_readings_by_type(twitter: Any) -> None:
    twitter.write(("1", "a/I-PER b/I-PER c/O d/B-ORG e/I-LOC"), ("2", "f/B-OTHER"), ("2", "g/O"))
    report = check(twitter.root)
    assert report.splits[0].counts == {"posts": 3, "entities": 4, "entities_strict": 2}
    assert report.splits[0].labels == {"PER": 1, "ORG": 1, "LOC": 1, "MISC": 1}
    findings = found(report)
    assert findings["train", "stray_tags"].text.startswith("2 stray I- tags in 1 post: each opens")
    assert findings["train", "stray_tags"].items == ["twitter2017/train.txt:1"]
    assert findings["train", "repeated_images"].items == ["2.jpg"]


def test_empty_words_and_overlong_posts_are_reported(twitter: Any, tokenizer: WordTokenizer) -> None:
    twitter.write(("1", "ab/O \ufe0f/O \u200b/O"), ("2", "abcd/O abcd/O"))
    report = check(twitter.root, tokenizer, max_length=8)
    assert report.splits[0].longest == 10
    findings = found(report)
    assert "U+FE0F 1" in findings["train", "vanishing"].text
    assert findings["train", "vanishing"].text.startswith("2 words")
    assert findings["train", "too_long"].items == ["twitter2017/train.txt:6"]
    assert findings["train", "too_long"].severity == "problem"


def test_long_rows_that_keep_both_entities_are_accepted(mnre: Any, tokenizer: WordTokenizer) -> None:
    fill(mnre, "val")
    mnre.row(token=["a"] * 40)
    mnre.row(token=["a"] * 40, tail=(38, 39))
    findings = found(check(mnre.root, tokenizer, max_length=20))
    assert findings["train", "shortened"].items == ["txt/ours_train.txt:1"]
    assert findings["train", "shortened"].severity == "note"
    assert findings["train", "too_long"].items == ["txt/ours_train.txt:2"]
    assert findings["train", "too_long"].severity == "problem"


def test_missing_unreadable_duplicate_shared_and_orphan_images_are_reported(mnre: Any) -> None:
    fill(mnre, "val")
    for name in ("good.jpg", "copy.jpg", "broken.jpg", "empty.jpg", "loop.jpg", "gone.jpg"):
        mnre.row(img_id=name)
    mnre.image("good.jpg")
    mnre.image("copy.jpg")
    mnre.image("orphan.jpg", colour="green")
    folder = mnre.image("broken.jpg").parent
    (folder / "broken.jpg").write_bytes((folder / "good.jpg").read_bytes()[:300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (mnre.root / "img_org" / "val" / "val.jpg").write_bytes((folder / "good.jpg").read_bytes())
    report = check(mnre.root)
    images = report.splits[0].images
    assert images
    assert (images.named, images.found, images.missing, images.unreadable, images.rows) == (6, 2, 1, 3, 2)
    findings = found(report)
    unreadable = findings["train", "unreadable_images"]
    assert unreadable.severity == "problem"
    assert [item.split(" ")[0] for item in unreadable.items] == ["broken.jpg", "empty.jpg", "loop.jpg"]
    assert "a broken link" in unreadable.items[2]
    assert findings["train", "missing_images"].items == ["gone.jpg"]
    assert findings["", "orphans"].items == ["orphan.jpg"]
    assert findings["", "duplicate_images"].items == ["copy.jpg = good.jpg = val.jpg"]
    assert findings["", "shared_images"].items == ["copy.jpg (train, val)"]


def test_images_with_another_extension_are_found_and_are_no_orphans(mnre: Any) -> None:
    fill(mnre, "val")
    for name in ("a.jpg", "b.jpg", "c", "d.jpg"):
        mnre.row(img_id=name)
    for name, colour in (("a.png", "red"), ("b.JPG", "blue"), ("c.jpg", "green"), ("d.jpg", "yellow")):
        mnre.image(name, colour=colour)
    report = check(mnre.root)
    assert report.splits[0].images
    assert (report.splits[0].images.found, report.splits[0].images.rows) == (4, 4)
    assert found(report)["train", "renamed_images"].items == ["a.jpg = a.png", "b.jpg = b.JPG", "c = c.jpg"]
    assert ("", "orphans") not in found(report)


def test_rows_without_an_image_are_not_missing_one(mnre: Any) -> None:
    fill(mnre, "train", "val")
    mnre.row(img_id="")
    images = check(mnre.root, allowed=0.0).splits[0].images
    assert images
    assert (images.named, images.found, images.rows) == (1, 1, 1)


def test_artefacts_of_editors_are_noted(mnre: Any) -> None:
    fill(mnre, "train", "val")
    text = mnre.text("train").read_text()
    for content, expected in (
        (f"\ufeff{text}", "the file has a byte-order mark: they are not read as part of its text"),
        (text.replace("\n", "\r\n"), "the file has carriage returns before its line feeds: they"),
        (f"\ufeff{text}".replace("\n", "\r\n"), "the file has a byte-order mark and carriage returns before"),
    ):
        mnre.text("train").write_bytes(content.encode())
        report = check(mnre.root)
        assert found(report)["train", "line_ends"].text.startswith(expected)
        assert (report.splits[0].counts, status([report])) == (ROW, 0)


@pytest.mark.parametrize(("allowed", "severity"), [(0.5, "note"), (0.49, "problem")])
def test_missing_images_are_a_problem_only_if_training_refuses_them(mnre: Any, allowed: float, severity: str) -> None:
    fill(mnre, "val")
    mnre.row(img_id="a.jpg")
    mnre.row(img_id="b.jpg")
    mnre.image("a.jpg")
    assert found(check(mnre.root, allowed=allowed))["train", "missing_images"].severity == severity


def test_new_texts_shared_between_splits_are_a_problem(mnre: Any) -> None:
    for number in range(8):
        for split in ("train", "val", "test"):
            mnre.row(split, token=["ada", "met" if split == "test" else str(number), "bob"])
        report = check(mnre.root)
        shared = found(report)["", "shared_texts"] if number else None
        if shared is not None:
            assert shared.text == f"{number + 1} texts in both train and val (5 as released)"
            assert shared.severity == ("problem" if number + 1 > 5 else "note")
            assert shared.items[0] == "txt/ours_train.txt:1 = txt/ours_val.txt:1"


def test_the_three_crop_layouts_are_distinguished(mnre: Any, twitter: Any) -> None:
    fill(mnre, "train", "val")
    mnre.crop("c.jpg")
    mnre.crops({0: ["c.jpg", "gone.jpg"], 5: ["c.jpg"]})
    report = check(mnre.root)
    part = report.splits[0]
    assert part.crops
    assert (part.crop_layout, part.crops.named, part.crops.found) == (
        "txt/mre_train_dict.pth with img_vg/train/crops/",
        2,
        1,
    )
    assert found(report)["train", "missing_crops"].items == ["gone.jpg"]
    assert found(report)["train", "crops_of_nothing"].items == ["5"]

    twitter.write(("1", "a/O"))
    twitter.picture("twitter2017_crop_images", "1", "crop_person_1.jpg")
    assert check(twitter.root).splits[0].crop_layout == "twitter2017_crop_images/"
    twitter.picture("twitter2017_aux_images", "train", "crops", "z.jpg")
    torch.save({"1.jpg": ["z.jpg"]}, twitter.root / "twitter2017" / "twitter2017_train_dict.pth")
    assert check(twitter.root).splits[0].crop_layout == (
        "twitter2017/twitter2017_train_dict.pth with twitter2017_aux_images/train/crops/"
    )


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_malicious_crop_files_are_problems(mnre: Any, tmp_path: Path) -> None:
    fill(mnre, "train", "val")
    mnre.crops({0: ["../../../../secret.jpg"]})
    mnre.crops({0: Malicious(tmp_path / "hacked")}, split="val")
    findings = found(check(mnre.root))
    assert findings["train", "crops_outside"].items == ["../../../../secret.jpg"]
    assert "is not a plain crop dictionary and was not loaded" in findings["val", "crops"].text
    assert not (tmp_path / "hacked").exists()


def test_different_relation_ids_are_a_problem(mnre: Any) -> None:
    fill(mnre, *SPLITS)
    (mnre.root / "ours_rel2id.json").write_text('{"None": 1}')
    report = check(mnre.root)
    assert "the 1 labels do not have the ids 0 to 0" in found(report)["", "labels"].text
    assert status([report]) == 1
    (mnre.root / "ours_rel2id.json").write_text('{"None": 0}')
    assert "names other labels than data.labels" in found(check(mnre.root))["", "labels"].text


def test_the_demo_corpus_is_valid_and_has_the_documented_size(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "demo", DemoSettings(size="tiny"))
    for files in find_sets(tmp_path / "demo"):
        report = check_set(files, None, 0.1)  # a few images are missing on purpose
        assert report.title.startswith("demo corpus")
        rows = files.reader.rows
        assert all(part.expected[rows] == part.counts[rows] for part in report.splits)
        assert not [finding for _, finding in every_finding([report]) if finding.code in ("counts", "malformed")]
        assert status([report]) == 0


# The real files


@pytest.mark.skipif(not (REAL / "mnre").is_dir(), reason=f"the real sets are not at {REAL}")
@pytest.mark.parametrize("name", RELEASED)
def test_the_real_sets_have_the_released_counts_but_no_test_splits(name: str) -> None:
    (files,) = find_sets(REAL / name)
    assert files.name == name
    report = check_set(files, None, 0.05)
    for part in report.splits[:2]:
        assert part.counts == RELEASED[name][part.split]
    findings = found(report)
    assert ("", "counts") not in findings
    assert {kind for split, kind in findings if split == "test"} == {"missing_split"}
    assert findings["", "shared_texts"].severity == "note"
    images = SimpleNamespace(**{part.split: part.images.found for part in report.splits[:2] if part.images})
    assert (images.train, images.val) == ((28, 0) if name == "mnre" else (0, 0))
