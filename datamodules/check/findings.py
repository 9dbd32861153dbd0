"""What a check finds: counts of each split, and findings with how much they matter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmib.labels import shown

Severity = Literal["note", "problem", "unreadable"]

# In order: the place is the exit status of a check whose worst finding is of this severity.
SEVERITIES: tuple[Severity, ...] = ("note", "problem", "unreadable")
ITEMS_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """Something worth knowing about a data set.

    Attributes:
        severity: `note`: the project knows and handles it; `problem`: a training would stop at it or hide it;
            `unreadable`: what was asked for cannot be read at all.
        code: a short name, for programs.
        text: what it is, for people.
        items: each place or name that it concerns; not only the few that are shown.
    """

    severity: Severity
    code: str
    text: str
    items: list[str] = field(default_factory=list)

    def below(self, root: str) -> Finding:
        """The same with places below a folder told from there."""
        items = [item.replace(f"{root}/", "") for item in self.items]
        return replace(self, text=self.text.replace(f"{root}/", ""), items=items)

    def __str__(self) -> str:
        return f"{self.text}{': ' if self.items else ''}{shown(self.items, ITEMS_SHOWN)}"


@dataclass(frozen=True)
class FileCounts:
    """How many of the files that the rows of a split name are there.

    Attributes:
        named: distinct files.
        found: those that are there and can be read.
        missing: those that are not there.
        unreadable: those that are there and cannot be read.
        rows: rows that have at least one that is found.
    """

    named: int
    found: int
    missing: int
    unreadable: int
    rows: int


@dataclass(frozen=True)
class SideTextCounts:
    """What the side texts of a split's images have in common with its posts.

    Texts count once for each post of their image. What is the same "by chance" compares each post with the texts of
    another image.

    Attributes:
        images: distinct images that the posts name.
        with_text: those that have a side text.
        texts: pairs of a post and a text of its image.
        shared_words: share of a text's words that occur in the post, averaged over texts.
        shared_words_by_chance: the same with another image's texts.
        quoting: share of the texts that have four words in a row in common with the post.
        quoting_by_chance: the same with another image's texts.
        naming: share of the texts that contain the name of a gold entity of the post, among posts that have any; None
            where none has.
        naming_by_chance: the same with another image's texts.
    """

    images: int
    with_text: int
    texts: int
    shared_words: float
    shared_words_by_chance: float
    quoting: float
    quoting_by_chance: float
    naming: float | None
    naming_by_chance: float | None


@dataclass
class SplitReport:
    """What is known of a split.

    Attributes:
        split: `train`, `val` or `test`.
        file: its text file, below the root.
        there: whether that file is there.
        sha256: its checksum, to tell versions apart.
        counts: posts (or rows); entities in both readings, or rows of the negative class.
        expected: the same as released, as far as known.
        labels: how often each label stands in it.
        longest: word pieces of its longest post, special tokens (and markers) included; None without a tokenizer.
        images: its whole images.
        crop_layout: where its object crops are listed, or None.
        crops: its object crops.
        side_texts: the side texts of its images, where they are checked.
        findings: what concerns this split alone.
    """

    split: str
    file: str
    there: bool
    sha256: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    longest: int | None = None
    images: FileCounts | None = None
    crop_layout: str | None = None
    crops: FileCounts | None = None
    side_texts: SideTextCounts | None = None
    findings: list[Finding] = field(default_factory=list)


@dataclass
class SetReport:
    """What is known of a data set.

    Attributes:
        name: such as `mnre`, `twitter2015` or `twitter2017`.
        title: what it is, for people.
        task: name of the task that it is for.
        root: the folder that `--data.root` is to name.
        splits: train, val, test.
        labels: the label set that it is checked against (`mmib.labels.LabelSet.to_dict`); None where nothing is
            labelled.
        label_source: where the label set comes from.
        findings: what concerns the set as a whole.
    """

    name: str
    title: str
    task: str
    root: str
    splits: list[SplitReport]
    labels: dict[str, Any] | None = None
    label_source: str = ""
    findings: list[Finding] = field(default_factory=list)


def status(reports: Iterable[SetReport]) -> int:
    """The exit status: 0 fine, 1 problems, 2 something cannot be read."""
    return max((SEVERITIES.index(finding.severity) for _, finding in every_finding(reports)), default=0)


def every_finding(reports: Iterable[SetReport]) -> list[tuple[str, Finding]]:
    """All findings, each with the split that it concerns, or an empty name."""
    found = []
    for report in reports:
        found += [("", finding) for finding in report.findings]
        found += [(part.split, finding) for part in report.splits for finding in part.findings]
    return found
