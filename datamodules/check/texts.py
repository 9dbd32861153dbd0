"""What the text of a split holds, and what in it a training would stop at or hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmib.datamodules.check.findings import Finding, SplitReport
from mmib.datamodules.check.sets import ReadSplit, SetFiles
from mmib.datamodules.markers import mark_entities
from mmib.datamodules.mnre_files import RelationRow
from mmib.datamodules.twitter_files import Census, TaggedPost, repair
from mmib.schema import NO_RELATION, DataError

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer

MARKERS = 4


@dataclass(frozen=True)
class Pieces:
    """The posts of a split as a tokenizer splits them.

    Attributes:
        tokenizer: the tokenizer.
        name: what it was asked for by.
        max_length: most word pieces that a model is given, special tokens and markers included.
    """

    tokenizer: WordTokenizer
    name: str
    max_length: int


def check_text(files: SetFiles, read: ReadSplit, pieces: Pieces | None, report: SplitReport) -> None:
    """Fill in counts, labels and findings of a split's text."""
    rows = list(read.rows.values())
    if read.malformed:
        errors = [str(bad.error) for bad in read.malformed.values()]
        text = f"{len(errors):,} {files.unit} cannot be read, and a training stops at the first"
        report.findings.append(Finding("problem", "malformed", text, errors))
    if read.doubtful:
        text = f"{len(read.doubtful):,} rows have a span that does not hold the words that it is named by"
        report.findings.append(Finding("problem", "doubtful", text, list(read.doubtful.values())))
    if files.task == "mre":
        _count_relations(rows, report)
    else:
        _count_entities(rows, report)
    repeated = [texts[0].place for texts in _by_content(rows).values() if len(texts) > 1]
    if repeated:
        text = f"{len(repeated):,} {files.unit} stand in the file more than once, word for word"
        report.findings.append(Finding("note", "repeated", text, repeated))
    if pieces is not None:
        _check_pieces(files, rows, pieces, report)


def texts_of(files: SetFiles, read: ReadSplit) -> dict[tuple[str, ...], str]:
    """Each distinct text of a split with the place where it stands first."""
    texts: dict[tuple[str, ...], str] = {}
    for row in read.rows.values():
        texts.setdefault(tuple(files.words(row)), row.place)
    return texts


def _by_content(rows: Iterable[Any]) -> dict[tuple[Any, ...], list[Any]]:
    """Rows that are the same in all but their place."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        key = tuple(str(value) for name, value in vars(row).items() if name != "place")
        found.setdefault(key, []).append(row)
    return found


def _count_relations(rows: list[RelationRow], report: SplitReport) -> None:
    labels = Counter(row.relation for row in rows)
    report.counts = {"rows": len(rows), "none": labels[NO_RELATION]}
    report.labels = dict(labels.most_common())
    touching = sum(row.head[0] < row.tail[1] and row.tail[0] < row.head[1] for row in rows)
    if touching:
        text = f"head and tail overlap in {touching:,} rows, which the markers can show"
        report.findings.append(Finding("note", "overlapping", text))


def _count_entities(posts: list[TaggedPost], report: SplitReport) -> None:
    census, labels = Census(), Counter[str]()
    stray = []
    for post in posts:
        repaired = repair(post.tags)
        census.add(post, repaired)
        labels.update(tag[2:] for tag in repaired if tag.startswith("B-"))
        if repaired != post.tags:
            stray.append(post.place)
    report.counts = {"posts": len(posts), "entities": sum(labels.values()), "entities_strict": census.strict}
    report.labels = dict(labels.most_common())
    if stray:
        text = (
            f"{census.strays:,} stray I- tags in {len(stray):,} posts open an entity in seqeval's default reading and "
            "in training, and none in strict IOB2"
        )
        report.findings.append(Finding("note", "stray_tags", text, stray))
    again = Counter(post.identity for post in posts)
    repeated = sorted(identity for identity, times in again.items() if times > 1)
    if repeated:
        text = f"{len(repeated):,} IMGIDs stand over more than one post"
        report.findings.append(Finding("note", "repeated_images", text, repeated))


def _check_pieces(files: SetFiles, rows: list[Any], pieces: Pieces, report: SplitReport) -> None:
    """What the tokenizer does to the words: to nothing, or to more pieces than fit."""
    tokenizer = pieces.tokenizer
    vanished = Counter[str]()
    lengths: list[int] = []
    failed: list[str] = []
    cut: list[str] = []
    frame = len(tokenizer.prefix) + len(tokenizer.suffix) + (MARKERS if files.task == "mre" else 0)
    for row, words in zip(rows, tokenizer.split([files.words(row) for row in rows]), strict=True):
        vanished.update(word for word, ids in zip(files.words(row), words, strict=True) if not ids)
        # A word that is nothing still takes a piece, the unknown one.
        lengths.append(frame + sum(max(1, len(ids)) for ids in words))
        if lengths[-1] > pieces.max_length:
            (cut if _fits(files, row, words, pieces) else failed).append(row.place)
    report.longest = max(lengths, default=None)
    if vanished:
        shown = ", ".join(f"{_code_points(word)} {times:,}" for word, times in vanished.most_common(8))
        text = (
            f"{vanished.total():,} words are nothing to the tokenizer {pieces.name} and keep place and label as "
            f"unknown pieces: {shown}"
        )
        report.findings.append(Finding("note", "vanishing", text))
    _report_lengths(files, pieces, failed, cut, report)


def _fits(files: SetFiles, row: Any, words: list[list[int]], pieces: Pieces) -> bool:
    """Whether a post that is too long loses nothing but context."""
    if files.task == "mner":
        return False
    known = [ids or [pieces.tokenizer.unknown_id] for ids in words]
    try:
        mark_entities(known, row.head, row.tail, pieces.tokenizer, pieces.max_length)
    except DataError:
        return False
    return True


def _report_lengths(files: SetFiles, pieces: Pieces, failed: list[str], cut: list[str], report: SplitReport) -> None:
    longer = f"longer than {pieces.max_length} word pieces ({pieces.name})"
    if failed and files.task == "mre":
        text = f"{len(failed):,} rows are {longer} between their entities, and a training stops: raise max_length"
        report.findings.append(Finding("problem", "too_long", text, failed))
    elif failed:
        text = f"{len(failed):,} posts are {longer}, and the words behind count as missed: raise max_length"
        report.findings.append(Finding("problem", "too_long", text, failed))
    if cut:
        text = f"{len(cut):,} rows are {longer}: they keep both entities and lose context"
        report.findings.append(Finding("note", "shortened", text, cut))


def _code_points(word: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in word)
