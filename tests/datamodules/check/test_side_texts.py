"""Side texts compared with the posts of their images: missing ones, shared words, and leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmib.cli import main
from mmib.datamodules.check import Finding, SetReport, check_set, every_finding, find_sets, status
from mmib.datamodules.check.side_texts import excuse_other_sets
from mmib.datamodules.side_texts import SideTexts

POSTS = (("1", "Ada/B-PER Byron/I-PER met/O a/O dog/O"), ("2", "Acme/B-ORG sells/O a/O cat/O"), ("3", "hello/O"))


@pytest.fixture
def check(twitter: Any, tmp_path: Path) -> Any:
    twitter.write(*POSTS)
    twitter.write(("4", "bob/B-PER"), split="valid")

    def checked(*lines: Any, allowed: float = 1.0) -> tuple[SetReport, dict[tuple[str, str], Finding]]:
        file = tmp_path / "captions.jsonl"
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        (files,) = find_sets(twitter.root)
        report = check_set(files, None, allowed, None, SideTexts(file))
        return report, {(split, finding.code): finding for split, finding in every_finding([report])}

    return checked


def test_shared_words_are_counted_against_those_of_another_image(check: Any) -> None:
    texts = [
        {"image": "1.jpg", "captions": {"a": "ada byron with a dog", "b": "two people"}},
        {"image": "2.jpg", "text": "ACME sells a cat!"},
    ]
    report, found = check(*texts)
    counts = report.splits[0].side_texts
    assert counts
    assert (counts.images, counts.with_text, counts.texts) == (3, 2, 3)
    # Of "ada byron with a dog" four of five words, of the others none and all; when swapped, only "a" is in the post.
    assert counts.shared_words == pytest.approx((0.8 + 0.0 + 1.0) / 3)
    assert counts.shared_words_by_chance == pytest.approx((0.25 + 0.2 + 0.0) / 3)
    assert (counts.quoting, counts.quoting_by_chance) == (pytest.approx(1 / 3), 0.0)
    assert (counts.naming, counts.naming_by_chance) == (pytest.approx(2 / 3), 0.0)
    assert found["train", "missing_side_texts"].items == ["3.jpg"]
    leak = found["train", "side_text_names"]
    assert leak.severity == "problem"
    assert "66.7% of the side texts contain the name of an entity" in leak.text
    assert found["val", "missing_side_texts"].severity == "note"


def test_side_texts_that_mention_few_entities_are_a_note_and_missing_ones_may_stop_training(check: Any) -> None:
    lines = [{"image": f"{number}.jpg", "text": "a dog"} for number in (1, 2)]
    _, found = check(*lines, {"image": "1.jpg", "text": "ada"}, {"image": "9.jpg", "text": " "}, allowed=0.4)
    assert found["train", "side_text_names"].severity == "note"
    assert found["train", "missing_side_texts"].severity == "note"
    assert found["val", "missing_side_texts"].severity == "problem"
    assert "training allows 40%" in found["val", "missing_side_texts"].text
    assert "1 image named more than once with different texts" in found["", "side_texts"].text
    assert "1 empty left out" in found["", "side_texts"].text


def test_side_texts_of_another_set_cannot_be_compared(check: Any) -> None:
    report, found = check({"image": "other.jpg", "text": "a dog"})
    assert status([report]) == 2
    assert "it names other.jpg, the posts 1.jpg" in found["", "other_side_texts"].text
    assert report.splits[0].side_texts is None
    excuse_other_sets([report])
    assert status([report]) == 2


def test_side_texts_of_one_set_in_a_folder_are_no_problem_for_the_others(check: Any) -> None:
    text = {"image": "1.jpg", "text": "a dog"}
    whole, _ = check(text)
    other, _ = check({"image": "other.jpg", "text": "a dog"})
    excuse_other_sets([whole, other])
    assert status([whole, other]) == 0


def test_the_command_compares_side_texts_and_locates_a_malformed_line(
    twitter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twitter.write(*POSTS)
    file = tmp_path / "captions.jsonl"
    options = ["check-data", str(twitter.root), "--tokenizer", "none", "--side-text", str(file)]
    file.write_text('{"image": "1.jpg", "captions": {"a": "a dog", "b": "a cat"}}\n')
    main([*options, "--side-text-models", "b"])
    shown = capsys.readouterr().out
    assert "side texts" in shown
    assert "1 of 3" in shown
    assert "1 text of 1 image in captions.jsonl" in shown
    file.write_text('{"image": "1.jpg", "text": "a dog"}\n{"image": "2.jpg"\n')
    assert main(options) == 2
    assert "captions.jsonl:2: not JSON" in capsys.readouterr().err
