"""Checks side texts of images against the posts: missing texts, overlap with posts, and leakage of entities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmib.datamodules.check.findings import Finding, SetReport, SideTextCounts, SplitReport
from mmib.datamodules.check.sets import ReadSplit
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.side_texts import SideTexts
from mmib.schema import DataError, Post
from mmib.tagging import entities

WORD = re.compile(r"\w+")
# Number of shared consecutive words that count as a quotation: captions of other images quote one post in a thousand.
QUOTATION = 4
# If the share of texts that name an entity of their post exceeds chance by more than this, they leak the entities.
LEAK = 0.5
OTHER_SIDE_TEXTS = "other_side_texts"

Words = tuple[str, ...]


@dataclass(frozen=True)
class PostWords:
    """The words of a post, and of the names of its gold entities."""

    words: Words
    names: list[Words]


def check_side_texts(
    texts: SideTexts, reads: Mapping[str, ReadSplit], reports: Iterable[SplitReport], root: str, max_missing: float
) -> list[Finding]:
    """Add counts and findings of side texts to the reports of splits; return findings on the whole data set.

    Args:
        texts: side texts of the data set's images.
        reads: the posts of each split.
        reports: reports of the splits.
        root: root of the data set, for messages.
        max_missing: largest share of images that may lack a text in training.
    """
    images = {split: _by_image(read.posts.values()) for split, read in reads.items()}
    try:
        texts.check_common([image for split in images.values() for image in split], root)
    except DataError as error:
        return [Finding("unreadable", OTHER_SIDE_TEXTS, str(error))]
    for report in reports:
        if report.split in images:
            _check_split(texts, images[report.split], report, max_missing)
    return [Finding("note", "side_texts", texts.note())]


def excuse_other_sets(reports: Sequence[SetReport]) -> None:
    """Downgrade the finding that side texts name no image of a data set to a note if they name those of another."""
    if any(part.side_texts for report in reports for part in report.splits):
        for report in reports:
            report.findings = [
                replace(finding, severity="note") if finding.code == OTHER_SIDE_TEXTS else finding
                for finding in report.findings
            ]


def _check_split(texts: SideTexts, images: Mapping[str, list[Post]], report: SplitReport, max_missing: float) -> None:
    missing = sorted(image for image in images if not texts.of(image))
    counts = _counts(texts, {image: posts for image, posts in images.items() if texts.of(image)}, len(images))
    report.side_texts = counts
    if missing:
        share = len(missing) / len(images)
        refused = share > max_missing
        text = f"{len(missing):,} of {len(images):,} images ({share:.1%}) have no side text" + (
            f", and training allows {max_missing:.0%} (--data.max_missing_images)" if refused else ""
        )
        report.findings.append(Finding("problem" if refused else "note", "missing_side_texts", text, missing))
    if counts.texts:
        text = (
            f"side texts share {counts.shared_words:.1%} of their words with their post "
            f"({counts.shared_words_by_chance:.1%} with that of another image), and {counts.quoting:.1%} of them "
            f"{QUOTATION} words in a row ({counts.quoting_by_chance:.1%})"
        )
        report.findings.append(Finding("note", "side_text_overlap", text))
    if counts.naming is not None and counts.naming_by_chance is not None:
        leaks = counts.naming - counts.naming_by_chance > LEAK
        text = (
            f"{counts.naming:.1%} of the side texts contain the name of an entity of their post "
            f"({counts.naming_by_chance:.1%} that of another image's post)"
        )
        text += ": they were written with knowledge of the post, and leak its entities" if leaks else ""
        report.findings.append(Finding("problem" if leaks else "note", "side_text_names", text))


def _by_image(posts: Iterable[Post]) -> dict[str, list[Post]]:
    """The posts of each image."""
    found: dict[str, list[Post]] = {}
    for post in posts:
        if post.image:
            found.setdefault(post.image, []).append(post)
    return found


def _counts(texts: SideTexts, images: Mapping[str, Sequence[Post]], named: int) -> SideTextCounts:
    """Compare the texts of a split's images with their posts, and with the posts of other images.

    Args:
        texts: texts of the images.
        images: the posts of each image that has a text.
        named: number of all images, with a text or without.
    """
    names = sorted(images)
    other = dict(zip(names, names[1:] + names[:1], strict=True))
    words = {image: [words for text in texts.of(image) if (words := _words(text))] for image in names}
    posts = {image: [_post_words(post) for post in images[image]] for image in names}
    related = [(post, text) for image in names for post in posts[image] for text in words[image]]
    unrelated = [(post, text) for image in names for post in posts[image] for text in words[other[image]]]
    return SideTextCounts(
        images=named,
        with_text=len(images),
        texts=len(related),
        shared_words=_mean(_shared(*pair) for pair in related) or 0.0,
        shared_words_by_chance=_mean(_shared(*pair) for pair in unrelated) or 0.0,
        quoting=_mean(_quotes(*pair) for pair in related) or 0.0,
        quoting_by_chance=_mean(_quotes(*pair) for pair in unrelated) or 0.0,
        naming=_mean(_names(*pair) for pair in related if pair[0].names),
        naming_by_chance=_mean(_names(*pair) for pair in unrelated if pair[0].names),
    )


def _mean(values: Iterable[float]) -> float | None:
    """The mean, or None without values."""
    known = list(values)
    return sum(known) / len(known) if known else None


def _post_words(post: Post) -> PostWords:
    spans = []
    if isinstance(post, RelationPost):
        spans = [post.head, post.tail]
    elif isinstance(post, TaggedPost):
        spans = [(entity.start, entity.end) for entity in entities(post.tags)]
    names = [_words(" ".join(post.words[start:end])) for start, end in spans]
    return PostWords(_words(" ".join(post.words)), [name for name in names if name])


def _words(text: str) -> Words:
    return tuple(WORD.findall(text.casefold()))


def _shared(post: PostWords, text: Words) -> float:
    """Share of a text's words that occur in the post."""
    known = set(post.words)
    return sum(word in known for word in text) / len(text)


def _quotes(post: PostWords, text: Words) -> bool:
    return not _runs(text, QUOTATION).isdisjoint(_runs(post.words, QUOTATION))


def _names(post: PostWords, text: Words) -> bool:
    return any(name in _runs(text, len(name)) for name in post.names)


def _runs(words: Words, length: int) -> set[Words]:
    """All runs of `length` consecutive words."""
    return {words[start : start + length] for start in range(len(words) - length + 1)}
