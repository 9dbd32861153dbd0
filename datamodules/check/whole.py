"""Checks a whole data set: each split, and the splits together."""

from __future__ import annotations

import itertools
from pathlib import Path

from mmib.base.files import checksum
from mmib.base.wording import counted
from mmib.datamodules.check.findings import Finding, SetReport, Severity, SplitReport
from mmib.datamodules.check.labels import compare_labels
from mmib.datamodules.check.pictures import Decoded, SplitImages, check_crops, check_folders, check_images
from mmib.datamodules.check.sets import SPLITS, Labelling, ReadSplit, SetFiles
from mmib.datamodules.check.side_texts import check_side_texts
from mmib.datamodules.check.texts import Pieces, check_text, texts_of
from mmib.datamodules.files import BYTE_ORDER_MARK
from mmib.datamodules.released import SHARED_TEXTS
from mmib.datamodules.side_texts import SideTexts
from mmib.labels import LabelSet
from mmib.schema import DataError

# If the usual number of texts shared by two splits is unknown, more than this share of the smaller one is a problem.
SHARED_SHARE = 0.01
HEAD_BYTES = 65_536


def check_set(
    files: SetFiles,
    pieces: Pieces | None,
    max_missing: float,
    labels: LabelSet | None = None,
    side_texts: SideTexts | None = None,
) -> SetReport:
    """Check all of a data set.

    Args:
        files: the data set.
        pieces: tokenizer and maximum length of posts; None skips the check of lengths.
        max_missing: largest share of images that may be missing in training.
        labels: the label set; None for the most likely label set of the data.
        side_texts: texts of the images, to compare with the posts; None skips this check.
    """
    title = f"demo corpus in the layout of {files.title}" if files.is_demo else files.title
    report = SetReport(files.name, title, files.task, str(files.root), [_open(files, split) for split in SPLITS])
    reads = _read(files, report)
    labelling = files.labelling(reads) if labels is None else Labelling(labels, "as given with --labels")
    report.labels = None if labelling.labels is None else labelling.labels.to_dict()
    report.label_source = labelling.source
    decoded = Decoded()
    images: dict[str, SplitImages] = {}
    for part in report.splits:
        if part.split in reads:
            check_text(files, reads[part.split], labelling.labels, pieces, part)
            images[part.split] = check_images(files, reads[part.split], decoded, part, max_missing)
            check_crops(files, reads[part.split], decoded, part)
    if side_texts is not None:
        report.findings += check_side_texts(side_texts, reads, report.splits, report.root, max_missing)
    report.findings += [Finding("note", "assumed", remark) for remark in files.remarks]
    report.findings += compare_labels(files, reads, labelling.labels)
    _compare_counts(report)
    report.findings += _shared_texts(files, reads)
    report.findings += check_folders(files, images, decoded)
    _shorten(report)
    return report


def _read(files: SetFiles, report: SetReport) -> dict[str, ReadSplit]:
    """Return the splits that exist and can be read; add an error to the report for those that cannot be read."""
    reads = {}
    for part in report.splits:
        if not part.there:
            continue
        try:
            reads[part.split] = files.read(part.split)
        except DataError as error:
            part.findings.append(Finding("unreadable", "text", str(error)))
    return reads


def _shorten(report: SetReport) -> None:
    """Shorten paths in findings to those below the root, which the report names once."""
    report.findings = [finding.below(report.root) for finding in report.findings]
    for part in report.splits:
        part.findings = [finding.below(report.root) for finding in part.findings]


def _open(files: SetFiles, split: str) -> SplitReport:
    """The report of a split before it is read."""
    path = files.reader.text_file(split)
    report = SplitReport(split, files.below(path), path.is_file())
    report.expected = files.expected(split)
    if report.there:
        report.sha256 = checksum(path)
        report.findings += _line_ends(path)
    else:
        needed = split != "test"
        text = f"the {split} split is missing: {path} is not there" + ("" if needed else ", and nothing can be tested")
        report.findings.append(Finding("problem" if needed else "note", "missing_split", text))
    return report


def _line_ends(path: Path) -> list[Finding]:
    """Find byte-order marks and carriage returns, as written by Windows editors and spreadsheets."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = [
        *(["a byte-order mark"] if head.startswith(BYTE_ORDER_MARK.encode()) else []),
        *(["carriage returns before its line feeds"] if b"\r\n" in head else []),
    ]
    text = f"the file has {' and '.join(found)}: they are not read as part of its text"
    return [Finding("note", "line_ends", text)] if found else []


def _compare_counts(report: SetReport) -> None:
    """Report counts that differ from the released ones: a damaged copy, or another corpus in the same layout."""
    read = [part for part in report.splits if part.counts and part.expected]
    differ = [part for part in read if _differs(part)]
    if not differ:
        return
    if len(differ) == len(read):
        text = f"no split has the counts of {report.title}: another version of it, or another corpus in its layout"
        report.findings.append(Finding("note", "counts", text))
        return
    for part in differ:
        pairs = [f"{part.counts.get(key, 0):,} {key}, released {value:,}" for key, value in part.expected.items()]
        part.findings.append(Finding("problem", "counts", f"not the released split: {'; '.join(pairs)}"))


def _differs(part: SplitReport) -> bool:
    """Whether a split differs from the released one; stray tags may have been repaired."""
    wrong = {key for key, value in part.expected.items() if part.counts.get(key, 0) != value}
    repaired = part.counts.get("entities_strict") == part.counts.get("entities")
    return bool(wrong - ({"entities_strict"} if repaired else set()))


def _shared_texts(files: SetFiles, reads: dict[str, ReadSplit]) -> list[Finding]:
    """Report texts that are in two splits, which inflate scores if one of the splits is trained on."""
    texts = {split: texts_of(read) for split, read in reads.items()}
    findings = []
    for one, other in itertools.combinations(texts, 2):
        shared = [f"{texts[one][text]} = {texts[other][text]}" for text in texts[one] if text in texts[other]]
        if not shared:
            continue
        is_released = files.has_released_layout and not files.is_demo and (one, other) == ("train", "val")
        known = SHARED_TEXTS[files.name] if is_released else None
        usual = known or SHARED_SHARE * min(len(texts[one]), len(texts[other]))
        text = f"{counted(len(shared), 'texts')} in both {one} and {other}" + (
            f" ({known} as released)" if known else ""
        )
        # The demo corpus has few texts, and each split samples from all of them.
        severity: Severity = "problem" if len(shared) > usual and not files.is_demo else "note"
        findings.append(Finding(severity, "shared_texts", text, shared))
    return findings
