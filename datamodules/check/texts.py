"""Checks the text of a split for problems that would stop a training run or go unnoticed in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmib.base.wording import counted
from mmib.datamodules.check.findings import Finding, SplitReport
from mmib.datamodules.check.labels import check_labels
from mmib.datamodules.check.sets import ReadSplit, SetFiles
from mmib.datamodules.markers import mark_entities
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.labels import LabelSet
from mmib.schema import MARKERS, DataError, Post
from mmib.tagging import BEGIN, entities, repair, split_tag

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer

# Fields of a post that hold its location.
PLACES = ("place", "lines")


@dataclass(frozen=True)
class Pieces:
    """The tokenizer and the maximum length that posts are checked with.

    Attributes:
        tokenizer: the tokenizer.
        name: name that the tokenizer was loaded by.
        max_length: maximum number of word pieces of a model's input, special tokens and markers included.
    """

    tokenizer: WordTokenizer
    name: str
    max_length: int


def check_text(
    files: SetFiles, read: ReadSplit, labels: LabelSet | None, pieces: Pieces | None, report: SplitReport
) -> None:
    """Add counts, labels and findings of a split's text to its report.

    Args:
        files: the data set.
        read: the posts of the split.
        labels: the label set; None if nothing is labelled.
        pieces: tokenizer and maximum length of posts; None skips the check of lengths.
        report: report of the split.
    """
    posts, rows = list(read.posts.values()), files.reader.rows
    if read.malformed:
        errors = [str(bad.error) for bad in read.malformed.values()]
        text = f"{counted(len(errors), rows)} cannot be read, and training stops at the first"
        report.findings.append(Finding("problem", "malformed", text, errors))
    if read.doubtful:
        text = f"{counted(len(read.doubtful), rows)} with a span whose words differ from the name of the entity"
        report.findings.append(Finding("problem", "doubtful", text, list(read.doubtful.values())))
    if read.note:
        report.findings.append(Finding("note", "reading", f"changes on reading: {read.note}"))
    report.counts = count_posts(posts, rows, labels)
    check_labels(files, posts, labels, report)
    _check_spans(posts, rows, report)
    repeated = [texts[0].place for texts in _by_content(posts).values() if len(texts) > 1]
    if repeated:
        text = f"{counted(len(repeated), rows)} found in the file more than once, word for word"
        report.findings.append(Finding("note", "repeated", text, repeated))
    if pieces is not None:
        _check_pieces(posts, rows, pieces, report)


def count_posts(posts: Sequence[Post], rows: str, labels: LabelSet | None) -> dict[str, int]:
    """Count posts and their annotations, with the same keys as `mmib.datamodules.released.RELEASED`.

    Args:
        posts: the posts of a split.
        rows: name of posts, in the plural.
        labels: their label set.
    """
    counts = {rows: len(posts)}
    tagged = [post for post in posts if isinstance(post, TaggedPost)]
    related = [post for post in posts if isinstance(post, RelationPost)]
    if tagged:
        counts["entities"] = sum(len(entities(post.tags)) for post in tagged)
        counts["entities_strict"] = sum(split_tag(tag)[0] == BEGIN for post in tagged for tag in post.tags)
    if related and labels is not None and labels.negative is not None:
        counts["negative"] = sum(post.relation == labels.negative for post in related)
    return counts


def texts_of(read: ReadSplit) -> dict[tuple[str, ...], str]:
    """Each distinct text of a split with the place of its first occurrence."""
    texts: dict[tuple[str, ...], str] = {}
    for post in read.posts.values():
        texts.setdefault(tuple(post.words), post.place)
    return texts


def _by_content(posts: Iterable[Post]) -> dict[tuple[Any, ...], list[Post]]:
    """Posts grouped by everything but their place."""
    found: dict[tuple[Any, ...], list[Post]] = {}
    for post in posts:
        key = tuple(str(value) for name, value in vars(post).items() if name not in PLACES)
        found.setdefault(key, []).append(post)
    return found


def _check_spans(posts: Sequence[Post], rows: str, report: SplitReport) -> None:
    """Report overlapping entities, stray tags, and images of several posts."""
    overlapping = sum(
        post.head[0] < post.tail[1] and post.tail[0] < post.head[1] for post in posts if isinstance(post, RelationPost)
    )
    if overlapping:
        text = f"head and tail overlap in {counted(overlapping, rows)}, which the markers can represent"
        report.findings.append(Finding("note", "overlapping", text))
    tagged = [post for post in posts if isinstance(post, TaggedPost)]
    stray = [post for post in tagged if repair(post.tags) != post.tags]
    if stray:
        count = sum(tag != mended for post in stray for tag, mended in zip(post.tags, repair(post.tags), strict=True))
        text = (
            f"{count:,} stray I- {'tag' if count == 1 else 'tags'} in {counted(len(stray), rows)}: each opens an "
            "entity in seqeval's default reading and in training, and none in strict IOB2"
        )
        report.findings.append(Finding("note", "stray_tags", text, [post.place for post in stray]))
    again = Counter(post.image for post in tagged if post.image)
    repeated = sorted(image for image, times in again.items() if times > 1)
    if repeated:
        text = f"{counted(len(repeated), 'images')} of more than one post"
        report.findings.append(Finding("note", "repeated_images", text, repeated))


def _check_pieces(posts: Sequence[Post], rows: str, pieces: Pieces, report: SplitReport) -> None:
    """Report words without any word pieces, and posts with more pieces than fit."""
    tokenizer = pieces.tokenizer
    vanished = Counter[str]()
    lengths: list[int] = []
    longer: list[tuple[Post, list[list[int]]]] = []
    frame = len(tokenizer.prefix) + len(tokenizer.suffix)
    for post, words in zip(posts, tokenizer.split([post.words for post in posts]), strict=True):
        vanished.update(word for word, ids in zip(post.words, words, strict=True) if not ids)
        # A word without pieces is encoded as the unknown piece.
        known = [ids or [tokenizer.unknown_id] for ids in words]
        markers = len(MARKERS) if isinstance(post, RelationPost) else 0
        lengths.append(frame + markers + sum(map(len, known)))
        if lengths[-1] > pieces.max_length:
            longer.append((post, known))
    report.longest = max(lengths, default=None)
    if vanished:
        shown = ", ".join(f"{_code_points(word)} {times:,}" for word, times in vanished.most_common(8))
        text = (
            f"{counted(vanished.total(), 'words')} without a piece in the tokenizer {pieces.name}, encoded as unknown "
            f"pieces: {shown}"
        )
        report.findings.append(Finding("note", "vanishing", text))
    _report_lengths(longer, rows, pieces, report)


def _report_lengths(
    longer: Sequence[tuple[Post, list[list[int]]]], rows: str, pieces: Pieces, report: SplitReport
) -> None:
    """Report posts that are too long, given with their word pieces, by the effect on training."""
    raise_it = "raise data.max_length (mmib init sets it)"
    too_long = f"longer than {pieces.max_length} word pieces ({pieces.name})"
    refused, missed, shortened = list[str](), list[str](), list[str]()
    for post, words in longer:
        if isinstance(post, TaggedPost):
            missed.append(post.place)
        elif isinstance(post, RelationPost) and not _fits(post, words, pieces):
            refused.append(post.place)
        else:
            shortened.append(post.place)
    if refused:
        text = f"{counted(len(refused), rows)} {too_long} between the entities, where training stops: {raise_it}"
        report.findings.append(Finding("problem", "too_long", text, refused))
    if missed:
        text = f"{counted(len(missed), rows)} {too_long}, whose words beyond that count as missed: {raise_it}"
        report.findings.append(Finding("problem", "too_long", text, missed))
    if shortened:
        text = f"{counted(len(shortened), rows)} {too_long}, which only costs context"
        report.findings.append(Finding("note", "shortened", text, shortened))


def _fits(post: RelationPost, words: list[list[int]], pieces: Pieces) -> bool:
    """Whether a post that is too long loses only context."""
    try:
        mark_entities(words, post.head, post.tail, pieces.tokenizer, pieces.max_length)
    except DataError:
        return False
    return True


def _code_points(word: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in word)
