"""What is to be looked for in which image of a data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmib.crop_objects.phrases import MOST_PHRASES, noun_phrases
from mmib.datamodules import mnre_files as mnre
from mmib.datamodules import twitter_files as twitter
from mmib.datamodules.crops import CropFiles
from mmib.datamodules.files import inside
from mmib.schema import DataError

Phrases = Literal["nouns", "types"]
Key = int | str

TYPES = twitter.CROP_TYPES
# As the paper has them.
MOST_OBJECTS = {"mnre": 3, "twitter": 4}


@dataclass(frozen=True)
class Request:
    """An image, and what to look for in it.

    Attributes:
        image: name of the image in the data set.
        file: where it lies.
        phrases: one or more.
    """

    image: str
    file: Path
    phrases: tuple[str, ...]

    @property
    def name(self) -> str:
        """Tells it from every other request of its split, and does for a file name."""
        digest = hashlib.sha256(json.dumps([self.image, self.phrases]).encode()).hexdigest()[:16]
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(self.image).stem[:40])
        return f"{stem}-{digest}"


@dataclass(frozen=True)
class Split:
    """A split whose text is there.

    Attributes:
        name: for people.
        files: where its crops go.
        requests: by row number (MNRE) or image name (Twitter); rows may share one.
        images: where its images are expected.
    """

    name: str
    files: CropFiles
    requests: dict[Key, Request]
    images: Path


def mnre_splits(root: Path, splits: Sequence[str], phrases: Phrases) -> list[Split]:
    """The splits of MNRE that are there; each row looks for its own phrases.

    Raises:
        DataError: none is there, or one is malformed.
    """
    found = []
    for split in splits:
        text, images = mnre.text_file(root, split), mnre.image_folder(root, split)
        if not text.is_file():
            continue
        requests: dict[Key, Request] = {
            number: Request(row.image, inside(images, row.image, row.place), _phrases([row.tokens], phrases))
            for number, row in enumerate(mnre.read_rows(text))
        }
        found.append(Split(f"mnre {split}", mnre.crop_files(root, split), requests, images))
    return _some(found, root, mnre.LAYOUT)


def twitter_splits(root: Path, years: Sequence[int], splits: Sequence[str], phrases: Phrases) -> list[Split]:
    """The splits of the Twitter sets that are there; posts that share an image look for the phrases of all.

    Raises:
        DataError: none is there, or one is malformed.
    """
    found = []
    for year in years:
        images, layout = twitter.image_folder(root, year), twitter.LAYOUT.format(year=year)
        for split in splits:
            text = twitter.text_file(root, year, split)
            if not text.is_file():
                continue
            posts: dict[str, list[twitter.TaggedPost]] = {}
            for post in twitter.read_posts(text, layout):
                posts.setdefault(post.image, []).append(post)
            requests: dict[Key, Request] = {
                image: Request(
                    image, inside(images, image, own[0].place), _phrases([post.words for post in own], phrases)
                )
                for image, own in posts.items()
            }
            found.append(Split(f"twitter{year} {split}", twitter.crop_files(root, year, split), requests, images))
    return _some(found, root, twitter.LAYOUT.format(year="{2015, 2017}"))


def _phrases(texts: Sequence[Sequence[str]], kind: Phrases) -> tuple[str, ...]:
    """Those of all texts of an image; the entity types also where a text has no noun phrase."""
    nouns = [phrase for words in texts for phrase in noun_phrases(words)] if kind == "nouns" else []
    return tuple(dict.fromkeys(nouns))[:MOST_PHRASES] or TYPES


def _some(found: list[Split], root: Path, layout: str) -> list[Split]:
    if not found:
        raise DataError(f"{root} holds none of the texts asked for; {layout}")
    return found
