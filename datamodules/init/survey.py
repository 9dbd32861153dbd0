"""Surveys a data set: posts, labels, lengths and images of each split."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmib.datamodules.files import Malformed, inside, is_there
from mmib.datamodules.readers import Reader
from mmib.schema import MARKERS, DataError, Post, Task

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer

SPLITS = ("train", "val", "test")
POSTS_SPLIT = 1024
# Estimates for English posts, for a tokenizer that cannot be loaded.
PIECES_A_WORD = 2
SPECIAL_PIECES = 2


@dataclass
class Survey:
    """Contents of a split.

    Attributes:
        split: `train`, `val` or `test`.
        posts: number of posts that can be read.
        labels: number of occurrences of each label.
        places: the first place of each label, as file:line.
        words: number of words of each post.
        longest: word pieces of the longest post, with special tokens and markers.
        images: number of distinct images that the posts name.
        images_found: number of these that exist.
        image_folder: folder of the images.
        posts_with_image: number of posts that name an image.
        has_crops: whether there are object crops of the images.
        malformed: errors of the posts that cannot be read.
        note: the reader's changes to the posts.
    """

    split: str
    posts: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    words: list[int] = field(default_factory=list)
    longest: int = 0
    images: int = 0
    images_found: int = 0
    image_folder: Path = Path()
    posts_with_image: int = 0
    has_crops: bool = False
    malformed: list[DataError] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> int:
        """Median number of words of a post."""
        return round(statistics.median(self.words)) if self.words else 0

    @property
    def missing(self) -> float:
        """Share of the distinct images that are missing."""
        return (self.images - self.images_found) / self.images if self.images else 0.0


def survey(reader: Reader, task: Task, tokenizer: WordTokenizer | None) -> list[Survey]:
    """Survey the splits that exist.

    Args:
        reader: reader of the data.
        task: task of the data.
        tokenizer: tokenizer of the text encoder; None if it cannot be loaded.

    Raises:
        DataError: there are no training posts, or a split cannot be read.
    """
    if not reader.has_split("train"):
        raise DataError(
            f"{reader.text_file('train')} does not exist, and there is nothing to train on; {reader.layout}"
        )
    found = [_split(reader, split, task, tokenizer) for split in SPLITS if reader.has_split(split)]
    if not found[0].posts:
        raise DataError(f"no training post can be read; the first error is: {found[0].malformed[0]}")
    return found


def _split(reader: Reader, split: str, task: Task, tokenizer: WordTokenizer | None) -> Survey:
    found = Survey(split)
    images: list[str] = []
    posts = _readable(reader, split, found)
    while chunk := list(islice(posts, POSTS_SPLIT)):
        for post in chunk:
            labels = task.labels_of(post)
            found.labels.update(labels)
            for label in labels:
                if label not in found.places:
                    found.places[label] = post.place_of(label)
            found.words.append(len(post.words))
        images += [post.image for post in chunk]
        found.longest = max(found.longest, _longest(chunk, task, tokenizer))
    found.posts = len(images)
    found.note = reader.note(split)
    named = sorted({image for image in images if image})
    found.posts_with_image = sum(map(bool, images))
    found.images = len(named)
    found.image_folder = reader.image_folder(split)
    found.has_crops = reader.crops(split) is not None
    found.images_found = sum(
        any(is_there(picture.file) for picture in pictures) for pictures in reader.pictures(split, named, 0)
    )
    return found


def _readable(reader: Reader, split: str, found: Survey) -> Iterator[Post]:
    """Yield the posts that can be read, and record the errors of the others."""
    for post in reader.scan(split):
        if isinstance(post, Malformed):
            found.malformed.append(post.error)
            continue
        try:
            if post.image:
                inside(reader.image_folder(split), post.image, post.place)
        except DataError as error:
            found.malformed.append(error)
        else:
            yield post


def _longest(posts: list[Post], task: Task, tokenizer: WordTokenizer | None) -> int:
    """Word pieces of the longest post, with special tokens and, for relations, markers."""
    markers = len(MARKERS) if task.name == "mre" else 0
    if tokenizer is None:
        return PIECES_A_WORD * max(len(post.words) for post in posts) + SPECIAL_PIECES + markers
    frame = len(tokenizer.prefix) + len(tokenizer.suffix) + markers
    pieces = tokenizer.pieces([post.words for post in posts])
    return max(sum(map(len, words)) for words in pieces) + frame
