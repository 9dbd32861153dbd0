"""Checks labels: those that the label set lacks, that differ from a data set's own list, or that a split lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mmib.base.wording import counted
from mmib.datamodules.check.findings import Finding, Severity, SplitReport
from mmib.datamodules.check.sets import ReadSplit, SetFiles
from mmib.datamodules.mnre_files import check_relation_ids
from mmib.labels import LabelSet
from mmib.schema import DataError, Post

TRAIN = "train"


def check_labels(files: SetFiles, posts: Sequence[Post], labels: LabelSet | None, report: SplitReport) -> None:
    """Count the labels of a split's posts, and list those that the label set lacks."""
    report.labels = dict(Counter(label for post in posts for label in files.labels_of(post)).most_common())
    known = () if labels is None else labels.names
    unknown = set(report.labels).difference(known)
    if unknown:
        places = [
            f"{post.place_of(label)}: {label!r}"
            for post in posts
            for label in dict.fromkeys(files.labels_of(post))
            if label in unknown
        ]
        text = (
            f"{counted(len(unknown), 'labels')} in {counted(len(places), 'places')} missing from the label set: "
            "training stops at the first; add them to data.labels, or correct the file (--fix keeps them)"
        )
        report.findings.append(Finding("problem", "unknown_labels", text, places))


def compare_labels(files: SetFiles, reads: Mapping[str, ReadSplit], labels: LabelSet | None) -> list[Finding]:
    """Return the findings on labels that depend on all splits."""
    counts = {
        split: Counter(label for post in read.posts.values() for label in files.labels_of(post))
        for split, read in reads.items()
    }
    # Labels are missing from a demo corpus by chance; a larger one can be written.
    severity: Severity = "note" if files.is_demo else "problem"
    return [
        *_listed(files, labels),
        *(_unlearnt(counts, _first_places(files, reads), severity) + _unmeasured(counts) if TRAIN in counts else []),
        *_unused(counts, labels),
    ]


def _listed(files: SetFiles, labels: LabelSet | None) -> list[Finding]:
    """Report the data set's own list of labels if it differs from the label set or cannot be read."""
    file = files.reader.label_file
    if file is None or labels is None:
        return []
    try:
        check_relation_ids(file, labels)
    except DataError as error:
        return [Finding("problem", "labels", str(error))]
    return []


def _first_places(files: SetFiles, reads: Mapping[str, ReadSplit]) -> dict[str, str]:
    places: dict[str, str] = {}
    for read in reads.values():
        for post in read.posts.values():
            for label in files.labels_of(post):
                if label not in places:
                    places[label] = post.place_of(label)
    return places


def _unlearnt(counts: Mapping[str, Counter[str]], places: Mapping[str, str], severity: Severity) -> list[Finding]:
    labels = dict.fromkeys(label for found in counts.values() for label in found if not counts[TRAIN][label])
    items = [
        f"{label} ({', '.join(f'{split} {found[label]:,}' for split, found in counts.items() if found[label])}, first "
        f"at {places[label]})"
        for label in labels
    ]
    text = f"{counted(len(items), 'labels')} without a training row, which cannot be learnt"
    return [Finding(severity, "unlearnt_labels", text, items)] if items else []


def _unmeasured(counts: Mapping[str, Counter[str]]) -> list[Finding]:
    items = [
        f"{label} ({split})"
        for split, found in counts.items()
        for label in counts[TRAIN]
        if split != TRAIN and not found[label]
    ]
    text = f"{counted(len(items), 'labels')} of the training split not measured on another one, which lacks them"
    return [Finding("note", "unmeasured_labels", text, items)] if items else []


def _unused(counts: Mapping[str, Counter[str]], labels: LabelSet | None) -> list[Finding]:
    names = () if labels is None else labels.names
    items = [name for name in names if not any(found[name] for found in counts.values())]
    text = f"{counted(len(items), 'labels')} of the label set without a row in any split"
    return [Finding("note", "unused_labels", text, items)] if items and counts else []
