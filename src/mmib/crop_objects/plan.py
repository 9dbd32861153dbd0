"""Which objects to look for in which image of a data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmib.crop_objects.phrases import MOST_PHRASES, noun_phrases
from mmib.datamodules import twitter_files
from mmib.datamodules.crops import CropFiles
from mmib.datamodules.image_names import ImageNames
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.twitter_files import TwitterReader
from mmib.schema import DataError, Post

Phrases = Literal["nouns", "types"]
Key = int | str

TYPES = twitter_files.CROP_TYPES
# As in the paper.
MOST_OBJECTS = {"mnre": 3, "twitter": 4}


@dataclass(frozen=True)
class Request:
    """An image, and what to look for in it.

    Attributes:
        image: name of the image in the data set.
        file: its path.
        phrases: one or more.
    """

    image: str
    file: Path
    phrases: tuple[str, ...]

    @property
    def name(self) -> str:
        """Unique in its split, and usable as a file name."""
        digest = hashlib.sha256(json.dumps([self.image, self.phrases]).encode()).hexdigest()[:16]
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(self.image).stem[:40])
        return f"{stem}-{digest}"


@dataclass(frozen=True)
class Split:
    """A split whose text was found.

    Attributes:
        name: for messages.
        files: where its crops are written.
        requests: by row number (MNRE) or image name (Twitter); rows may share one.
        images: where its images are expected.
    """

    name: str
    files: CropFiles
    requests: dict[Key, Request]
    images: Path


def mnre_splits(root: Path, splits: Sequence[str], phrases: Phrases) -> list[Split]:
    """The splits of MNRE that are found; each row looks for the phrases of its text.

    Raises:
        DataError: none is found, or one is malformed.
    """
    reader = MNREReader(root)
    found = []
    for split in filter(reader.has_split, splits):
        images = ImageNames(reader.image_folder(split))
        requests: dict[Key, Request] = {
            number: _request(images, post.image, [post], phrases)
            for number, post in enumerate(reader.posts(split))
            if post.image
        }
        found.append(Split(f"mnre {split}", reader.crop_files(split), requests, images.folder))
    return _not_none(found, root, reader.layout)


def twitter_splits(root: Path, years: Sequence[int], splits: Sequence[str], phrases: Phrases) -> list[Split]:
    """The splits of the Twitter sets that are found; posts that share an image look for the phrases of all.

    Raises:
        DataError: none is found, or one is malformed.
    """
    found = []
    for reader in (TwitterReader(root, year) for year in years):
        for split in filter(reader.has_split, splits):
            posts: dict[str, list[Post]] = {}
            for post in reader.posts(split):
                posts.setdefault(post.image, []).append(post)
            images = ImageNames(reader.image_folder(split))
            requests: dict[Key, Request] = {
                image: _request(images, image, sharing, phrases) for image, sharing in posts.items()
            }
            found.append(Split(f"{reader.corpus} {split}", reader.crop_files(split), requests, images.folder))
    return _not_none(found, root, twitter_files.LAYOUT.format(year="{2015, 2017}"))


def _request(images: ImageNames, image: str, posts: Sequence[Post], phrases: Phrases) -> Request:
    """What to look for in the image of posts; a missing image has the path of its name."""
    file = images.find(image) or images.folder / image
    return Request(image, file, _phrases([post.words for post in posts], phrases))


def _phrases(texts: Sequence[Sequence[str]], wanted: Phrases) -> tuple[str, ...]:
    """The phrases of all texts of an image; the entity types also where no text has a noun phrase."""
    nouns = [phrase for words in texts for phrase in noun_phrases(words)] if wanted == "nouns" else []
    return tuple(dict.fromkeys(nouns))[:MOST_PHRASES] or TYPES


def _not_none(found: list[Split], root: Path, layout: str) -> list[Split]:
    if not found:
        raise DataError(f"{root} holds none of the texts asked for; {layout}")
    return found
