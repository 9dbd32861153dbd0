"""Labels missing from the label set, labels that differ between splits, and inferred label sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.check import Finding, SetReport, check_set, every_finding, find_sets, status
from mmib.datamodules.check.sets import SetFiles
from mmib.datamodules.posts import LabelledPost
from mmib.datamodules.readers import Reader
from mmib.datamodules.released import MNRE, RELEASED, TWITTER
from mmib.labels import LabelSet


def check(root: Path, labels: LabelSet | None = None) -> SetReport:
    (files,) = find_sets(root)
    return check_set(files, None, 1.0, labels)


def found(report: SetReport) -> dict[tuple[str, str], Finding]:
    return {(split, finding.code): finding for split, finding in every_finding([report])}


def fill(mnre: Any, **splits: str) -> None:
    """Write rows of the given relations (separated by blanks) to each split."""
    for split, relations in splits.items():
        for number, relation in enumerate(relations.split()):
            mnre.row(split, token=["ada", f"{split}{number}", "bob"], relation=relation)


def test_the_label_set_of_a_release_is_recognised(mnre: Any, twitter: Any) -> None:
    fill(mnre, train="None", val="None")
    twitter.write(("1", "a/B-OTHER"))
    for root, labels, source in ((mnre.root, MNRE, "MNRE"), (twitter.root, TWITTER, "Twitter-2017")):
        report = check(root)
        assert (report.labels, report.label_source) == (labels.to_dict(), f"as released with {source}")


def test_the_labels_of_a_custom_corpus_are_those_that_occur(mnre: Any) -> None:
    fill(mnre, train="likes owns None", val="owns likes None")
    report = check(mnre.root)
    assert status([report]) == 0
    assert (report.labels, report.label_source) == (
        {"names": ["likes", "owns", "None"]},
        "those that occur in the data",
    )
    assert report.splits[0].counts == {"rows": 3}
    assert report.splits[0].labels == {"likes": 1, "owns": 1, "None": 1}


def test_the_labels_of_a_custom_corpus_are_those_of_its_label_file(mnre: Any) -> None:
    fill(mnre, train="likes", val="likes owns")
    (mnre.root / "ours_rel2id.json").write_text('{"no": 0, "likes": 1}')
    report = check(mnre.root)
    assert (report.labels, report.label_source) == ({"names": ["no", "likes"]}, "ours_rel2id.json")
    assert found(report)["val", "unknown_labels"].items == ["txt/ours_val.txt:2: 'owns'"]
    (mnre.root / "ours_rel2id.json").write_text("[")
    report = check(mnre.root)
    assert report.label_source == "those that occur in the data"
    assert "cannot be read as JSON" in found(report)["", "labels"].text


def test_an_unknown_label_in_a_copy_of_a_release_is_a_problem(mnre: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(mnre, train="None /per/per/peer /per/per/friend")
    monkeypatch.setitem(RELEASED["mnre"], "train", {"rows": 3, "negative": 1})
    report = check(mnre.root)
    assert report.label_source == "as released with MNRE"
    assert found(report)["train", "unknown_labels"].items == ["txt/ours_train.txt:3: '/per/per/friend'"]


def test_labels_missing_from_the_label_set_are_listed_with_their_locations(twitter: Any) -> None:
    twitter.write(("1", "a/B-PER b/I-GPE c/B-GPE"), ("2", "d/B-PER"), ("3", "e/B-TEAM"))
    twitter.write(("4", "x/B-PER"), split="valid")
    report = check(twitter.root, LabelSet(("PER", "LOC")))
    finding = found(report)["train", "unknown_labels"]
    assert finding.text.startswith("2 labels in 2 places missing from the label set: training stops at the first")
    assert finding.items == ["twitter2017/train.txt:3: 'GPE'", "twitter2017/train.txt:10: 'TEAM'"]
    assert (finding.severity, report.label_source) == ("problem", "as given with --labels")
    assert report.splits[0].labels == {"PER": 2, "GPE": 2, "TEAM": 1}
    assert found(report)["", "unused_labels"].items == ["LOC"]


def test_labels_missing_from_the_training_split_cannot_be_learnt(mnre: Any) -> None:
    fill(mnre, train="a b b c", val="a d d", test="d e")
    report = check(mnre.root)
    assert found(report)["", "unlearnt_labels"].items == [
        "d (val 2, test 1, first at txt/ours_val.txt:2)",
        "e (test 1, first at txt/ours_test.txt:2)",
    ]
    assert found(report)["", "unlearnt_labels"].severity == "problem"
    assert found(report)["", "unmeasured_labels"].items == ["b (val)", "c (val)", "a (test)", "b (test)", "c (test)"]
    assert found(report)["", "unmeasured_labels"].severity == "note"
    assert status([report]) == 1


def test_without_a_training_split_unlearnable_labels_are_not_reported(mnre: Any) -> None:
    fill(mnre, val="a")
    assert not {"unlearnt_labels", "unmeasured_labels"} & {name for _, name in found(check(mnre.root))}


def test_posts_without_any_label_have_no_label_set(twitter: Any) -> None:
    twitter.write(("1", "a/O"), year=2015)
    (files,) = find_sets(twitter.root)
    reads = {"train": files.read("train")}
    assert files.labelling(reads).labels == TWITTER
    assert SetFiles(Titles(twitter.root), "relevance").labelling({}).labels is None


class Titles(Reader):
    """A reader of a custom format: `label TAB words`."""

    corpus = "mnre"  # the name of a released set, which this is not
    layout = "expected: titles.txt"

    def text_file(self, split: str) -> Path:
        return self.root / f"{split}.tsv"

    def image_folder(self, split: str) -> Path:
        return self.root

    def scan(self, split: str) -> Iterator[LabelledPost]:
        lines = self.text_file(split).read_text().splitlines()
        for number, line in enumerate(lines, start=1):
            label, _, text = line.partition("\t")
            yield LabelledPost(
                words=text.split(), image=f"{number}.jpg", place=f"{self.text_file(split)}:{number}", label=label
            )

    def note(self, split: str) -> str:
        return f"read {split}"


class Relevance:
    """A stub of a task."""

    @staticmethod
    def labels_of(post: Any) -> list[str]:
        return [post.label]


def test_custom_readers_can_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmib.datamodules.check.sets.task_named", {"relevance": Relevance}.__getitem__)
    (tmp_path / "train.tsv").write_text("yes\tada met bob\nno\tx\n")
    (tmp_path / "val.tsv").write_text("no\ty\nmaybe\tz\n")
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "2.jpeg").write_bytes(b"no image")
    report = check_set(SetFiles(Titles(tmp_path), "relevance", "titles"), None, 1.0)
    train, val, test = report.splits
    assert (report.title, report.task, train.there, test.there) == ("titles", "relevance", True, False)
    assert (train.counts, train.labels) == ({"posts": 2}, {"yes": 1, "no": 1})
    assert (val.file, val.expected) == ("val.tsv", {})
    assert (train.images.missing, train.images.unreadable) == (0, 2) if train.images else False
    findings = found(report)
    assert findings["train", "reading"].text == "changes on reading: read train"
    assert findings["", "unlearnt_labels"].items == ["maybe (val 1, first at val.tsv:2)"]
    assert findings["train", "renamed_images"].items == ["1.jpg = 1.png", "2.jpg = 2.jpeg"]
    assert ("", "orphans") not in findings  # the root also contains files that are not images
