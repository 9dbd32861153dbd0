"""Checks a data set as a whole: each split, and what the splits share."""

from __future__ import annotations

import itertools
from pathlib import Path

from mmib.base.files import checksum
from mmib.datamodules.check.findings import Finding, SetReport, Severity, SplitReport
from mmib.datamodules.check.pictures import Decoded, check_crops, check_folders, check_images
from mmib.datamodules.check.sets import SPLITS, ReadSplit, SetFiles
from mmib.datamodules.check.texts import Pieces, check_text, texts_of
from mmib.datamodules.mnre_files import check_relation_ids
from mmib.datamodules.released import SHARED_TEXTS
from mmib.schema import DataError

# Where it is not known how many texts two splits share, so many of the smaller one are no accident any more.
SHARED_SHARE = 0.01


def check_set(files: SetFiles, pieces: Pieces | None, max_missing: float) -> SetReport:
    """Read all of a data set.

    Args:
        files: where it lies.
        pieces: how long a post may be, in which tokenizer's pieces; None leaves lengths out.
        max_missing: largest share of images that a training lets be missing.
    """
    title = f"demo corpus in the layout of {files.title}" if files.is_demo else files.title
    report = SetReport(files.name, title, files.task, str(files.root), [])
    decoded = Decoded()
    reads: dict[str, ReadSplit] = {}
    images: dict[str, dict[str, Path]] = {}
    for split in SPLITS:
        part = _open(files, split)
        report.splits.append(part)
        if not part.there:
            continue
        try:
            read = reads[split] = files.read(split)
        except DataError as error:
            part.findings.append(Finding("unreadable", "text", str(error)))
            continue
        check_text(files, read, pieces, part)
        images[split] = check_images(files, read, decoded, part, max_missing)
        check_crops(files, read, decoded, part)
    try:
        if files.labels_file is not None:
            check_relation_ids(files.labels_file)
    except DataError as error:
        report.findings.append(Finding("problem", "labels", str(error)))
    _compare_counts(report)
    report.findings += _shared_texts(files, reads)
    named = {split: {row.image for row in read.rows.values()} for split, read in reads.items()}
    report.findings += check_folders(files, named, images, decoded)
    _shorten(report)
    return report


def _shorten(report: SetReport) -> None:
    """Tell places below the root, which the report names once."""
    report.findings = [finding.below(report.root) for finding in report.findings]
    for part in report.splits:
        part.findings = [finding.below(report.root) for finding in part.findings]


def _open(files: SetFiles, split: str) -> SplitReport:
    """The report of a split before it is read."""
    path = files.text_file(split)
    report = SplitReport(split, path.relative_to(files.root).as_posix(), path.is_file())
    report.expected = files.expected(split)
    if report.there:
        report.sha256 = checksum(path)
    else:
        needed = split != "test"
        text = f"the {split} split is missing: {path} is not there" + ("" if needed else ", and nothing can be tested")
        report.findings.append(Finding("problem" if needed else "note", "missing_split", text))
    return report


def _compare_counts(report: SetReport) -> None:
    """Counts that are not the released ones: of a damaged copy, or of another corpus in the same layout."""
    read = [part for part in report.splits if part.counts]
    differ = [part for part in read if _differs(part)]
    if not differ:
        return
    if len(differ) == len(read):
        text = f"no split has the counts of {report.title}: another version of it, or another corpus in its layout"
        report.findings.append(Finding("note", "counts", text))
        return
    for part in differ:
        pairs = [f"{part.counts[key]:,} {key}, released {value:,}" for key, value in part.expected.items()]
        part.findings.append(Finding("problem", "counts", f"not the released split: {'; '.join(pairs)}"))


def _differs(part: SplitReport) -> bool:
    """Whether a split is another than the released one, with stray tags as they were or repaired."""
    wrong = {key for key, value in part.expected.items() if part.counts[key] != value}
    repaired = part.counts.get("entities_strict") == part.counts.get("entities")
    return bool(wrong - ({"entities_strict"} if repaired else set()))


def _shared_texts(files: SetFiles, reads: dict[str, ReadSplit]) -> list[Finding]:
    """Texts that stand in two splits, so that a score on the one has been trained on in the other."""
    texts = {split: texts_of(files, read) for split, read in reads.items()}
    findings = []
    for one, other in itertools.combinations(texts, 2):
        shared = [f"{texts[one][text]} = {texts[other][text]}" for text in texts[one] if text in texts[other]]
        if not shared:
            continue
        known = SHARED_TEXTS[files.name] if (one, other) == ("train", "val") and not files.is_demo else None
        usual = known or SHARED_SHARE * min(len(texts[one]), len(texts[other]))
        text = f"{len(shared):,} texts stand in {one} and in {other}" + (f" ({known} as released)" if known else "")
        # Drawn texts are few, and drawn for each split anew.
        severity: Severity = "problem" if len(shared) > usual and not files.is_demo else "note"
        findings.append(Finding(severity, "shared_texts", text, shared))
    return findings
