"""Results of a check: counts of each split, and findings with their severities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmib.labels import shown

Severity = Literal["note", "problem", "unreadable"]

# The index of a severity is the exit status of a check whose worst finding has this severity.
SEVERITIES: tuple[Severity, ...] = ("note", "problem", "unreadable")
ITEMS_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """Something worth knowing about a data set.

    Attributes:
        severity: `note`: mmib handles it; `problem`: it would stop a training run or go unnoticed in it; `unreadable`:
            a requested file cannot be read at all.
        code: a short machine-readable name.
        text: description of the finding.
        items: all places or names that it concerns, not only the few that are shown.
    """

    severity: Severity
    code: str
    text: str
    items: list[str] = field(default_factory=list)

    def below(self, root: str) -> Finding:
        """Return the finding with paths relative to a folder."""
        items = [item.replace(f"{root}/", "") for item in self.items]
        return replace(self, text=self.text.replace(f"{root}/", ""), items=items)

    def __str__(self) -> str:
        return f"{self.text}{': ' if self.items else ''}{shown(self.items, ITEMS_SHOWN)}"


@dataclass(frozen=True)
class FileCounts:
    """Counts of the files that the rows of a split name.

    Attributes:
        named: distinct files.
        found: files that exist and can be read.
        missing: files that do not exist.
        unreadable: files that exist but cannot be read.
        rows: rows with at least one found file.
    """

    named: int
    found: int
    missing: int
    unreadable: int
    rows: int


@dataclass(frozen=True)
class SideTextCounts:
    """Overlap of the side texts of a split's images with its posts.

    A text counts once for each post of its image. The values "by chance" compare each post with the texts of another
    image.

    Attributes:
        images: distinct images that the posts name.
        with_text: images that have a side text.
        texts: pairs of a post and a text of its image.
        shared_words: share of a text's words that occur in the post, averaged over texts.
        shared_words_by_chance: the same with another image's texts.
        quoting: share of the texts that share four consecutive words with the post.
        quoting_by_chance: the same with another image's texts.
        naming: share of the texts that contain the name of a gold entity of the post, among posts with entities; None
            if no post has any.
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
    """Results for a split.

    Attributes:
        split: `train`, `val` or `test`.
        file: its text file, below the root.
        there: whether that file exists.
        sha256: its checksum, to identify versions.
        counts: numbers of posts (or rows), of entities in seqeval's default mode and in strict IOB2, or of rows of the
            negative class.
        expected: the released counts, as far as they are known.
        labels: number of occurrences of each label.
        longest: word pieces of its longest post, special tokens (and markers) included; None without a tokenizer.
        images: counts of its whole images.
        crop_layout: paths of the list and the folder of its object crops, or None.
        crops: counts of its object crops.
        side_texts: counts of the side texts of its images, if they are checked.
        findings: findings that concern only this split.
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
    """Results for a data set.

    Attributes:
        name: such as `mnre`, `twitter2015` or `twitter2017`.
        title: its name in reports.
        task: name of its task.
        root: its folder, the value for `--data.root`.
        splits: reports of train, val and test.
        labels: the label set that it is checked against (`mmib.labels.LabelSet.to_dict`); None if nothing is labelled.
        label_source: source of the label set.
        findings: findings that concern the whole data set.
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
    """Return the exit status: 0 fine, 1 problems, 2 something cannot be read."""
    return max((SEVERITIES.index(finding.severity) for _, finding in every_finding(reports)), default=0)


def every_finding(reports: Iterable[SetReport]) -> list[tuple[str, Finding]]:
    """Return all findings, each with the name of its split, which is empty for findings of the whole data set."""
    found = []
    for report in reports:
        found += [("", finding) for finding in report.findings]
        found += [(part.split, finding) for part in report.splits for finding in part.findings]
    return found
