"""Determine which objects to search for in which image of a data set."""

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
    """An image, and the phrases to search for in it.

    Attributes:
        image: name of the image in the data set.
        file: path of the image.
        phrases: one or more phrases.
    """

    image: str
    file: Path
    phrases: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name that is unique in its split, and valid as a file name."""
        digest = hashlib.sha256(json.dumps([self.image, self.phrases]).encode()).hexdigest()[:16]
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(self.image).stem[:40])
        return f"{stem}-{digest}"


@dataclass(frozen=True)
class Split:
    """A split whose text was found.

    Attributes:
        name: name for messages.
        files: where its crops are written.
        requests: by row number (MNRE) or image name (Twitter); rows may share a request.
        images: the folder where its images are expected.
    """

    name: str
    files: CropFiles
    requests: dict[Key, Request]
    images: Path


def mnre_splits(root: Path, splits: Sequence[str], phrases: Phrases) -> list[Split]:
    """Return the existing splits of MNRE; each row searches for the phrases of its text.

    Raises:
        DataError: no split exists, or one is malformed.
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
    """Return the existing splits of the Twitter sets; posts that share an image search for the phrases of all.

    Raises:
        DataError: no split exists, or one is malformed.
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
    """Build the request for the image of these posts; a missing image has the path of its name."""
    file = images.find(image) or images.folder / image
    return Request(image, file, _phrases([post.words for post in posts], phrases))


def _phrases(texts: Sequence[Sequence[str]], wanted: Phrases) -> tuple[str, ...]:
    """Phrases of all texts of an image; the entity types if there is no noun phrase."""
    nouns = [phrase for words in texts for phrase in noun_phrases(words)] if wanted == "nouns" else []
    return tuple(dict.fromkeys(nouns))[:MOST_PHRASES] or TYPES


def _not_none(found: list[Split], root: Path, layout: str) -> list[Split]:
    if not found:
        raise DataError(f"{root} has none of the requested splits; {layout}")
    return found
