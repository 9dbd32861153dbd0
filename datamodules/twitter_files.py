"""Twitter-2015 and Twitter-2017 on disk: which file lies where, and posts in the column format of their release."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from datamodules.crops import CropFiles
from datamodules.files import read_text
from mmib.schema import TAG_IDS, TAGS, DataError

LAYOUT = """expected below the root, for the year {year}:
  twitter{year}/train.txt, twitter{year}/valid.txt, twitter{year}/test.txt
  twitter{year}_images/<IMGID>.jpg
  optional crops: twitter{year}/twitter{year}_<train, val, test>_dict.pth with
    twitter{year}_aux_images/<train, val, test>/crops/, or
    twitter{year}_crop_images/<IMGID>/crop_<person, organization, location, miscellaneous>_<IMGID>.jpg"""
YEARS = (2015, 2017)
TEXT_FILES = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
CROP_TYPES = ("person", "organization", "location", "miscellaneous")
IMAGE_LINE = "IMGID:"


@dataclass(frozen=True)
class TaggedPost:
    """A post of a Twitter file.

    Attributes:
        identity: what stands behind IMGID.
        words: its words.
        tags: the tag of each word as the file has it, but for OTHER, which reads as MISC.
        place: `file:line` of its IMGID, for messages.
    """

    identity: str
    words: list[str]
    tags: list[str]
    place: str

    @property
    def image(self) -> str:
        """File name of its image."""
        return f"{self.identity}.jpg"


def text_file(root: Path, year: int, split: str) -> Path:
    """The posts of `train`, `val` or `test`."""
    return root / f"twitter{year}" / TEXT_FILES[split]


def image_folder(root: Path, year: int) -> Path:
    """The whole images of all splits."""
    return root / f"twitter{year}_images"


def crop_files(root: Path, year: int, split: str) -> CropFiles:
    """Where the crops of a split are expected, with a dictionary."""
    return CropFiles(
        root / f"twitter{year}" / f"twitter{year}_{split}_dict.pth", root / f"twitter{year}_aux_images" / split
    )


def read_posts(path: Path, layout: str) -> list[TaggedPost]:
    """The posts of a Twitter file: a line `IMGID:…`, then a line `word TAB tag` for each word.

    Words that look empty (U+FE0F, U+00A0 and their like) are words.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a line is malformed; the text names file and line.
    """
    posts: list[TaggedPost] = []
    # Only the line feed ends a line: words may hold U+0085 or U+2028, at which splitlines would cut.
    for number, ended in enumerate(read_text(path, layout).split("\n"), start=1):
        line, place = ended.removesuffix("\r"), f"{path}:{number}"
        if line.startswith(IMAGE_LINE) and "\t" not in line:
            _check_last(posts)
            identity = line.removeprefix(IMAGE_LINE).strip()
            if not identity:
                raise DataError(f"{place}: IMGID without a name")
            posts.append(TaggedPost(identity, [], [], place))
        elif line and not (line.isspace() and "\t" not in line):
            word, tag = _parse_word(line, place)
            if not posts:
                raise DataError(f"{place}: a word before the first {IMAGE_LINE} line")
            posts[-1].words.append(word)
            posts[-1].tags.append(tag)
    _check_last(posts)
    if not posts:
        raise DataError(f"{path} holds no posts")
    return posts


def _check_last(posts: list[TaggedPost]) -> None:
    if posts and not posts[-1].words:
        raise DataError(f"{posts[-1].place}: IMGID:{posts[-1].identity} has no words")


def _parse_word(line: str, place: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2 or not fields[0]:
        raise DataError(f"{place}: expected a word, one tab and its tag, got {line[:80]!r}")
    word, label = fields
    tag = label.replace("-OTHER", "-MISC")
    if tag not in TAG_IDS:
        raise DataError(f"{place}: the label {label!r} is none of {', '.join(TAGS)} (or OTHER for MISC)")
    return word, tag


def repair(tags: list[str]) -> list[str]:
    """Stray I- tags open an entity, as in seqeval's default reading: the sequence it stands for in proper BIO."""
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and last[2:] != tag[2:] else tag
        for last, tag in itertools.pairwise(["O", *tags])
    ]


def count_mentions(tags: list[str]) -> list[int]:
    """For each tag in proper BIO the mention that it belongs to, counted from 1; 0 for O."""
    opened = itertools.accumulate(tag.startswith("B-") for tag in tags)
    return [0 if tag == "O" else number for tag, number in zip(tags, opened, strict=True)]


def describe(posts: list[TaggedPost]) -> str:
    """Counts of a split: posts, entities in seqeval's default and in the strict reading, and oddities."""
    strays = [sum(own != mended for own, mended in zip(post.tags, repair(post.tags), strict=True)) for post in posts]
    strict = sum(tag.startswith("B-") for post in posts for tag in post.tags)
    text = f"{len(posts):,} posts, {strict + sum(strays):,} entities"
    if any(strays):
        text += f" ({strict:,} in strict IOB2: {sum(strays)} stray I- tags in {sum(map(bool, strays))} posts)"
    repeated = len(posts) - len({post.identity for post in posts})
    return text + (f", {repeated} repeated IMGIDs" if repeated else "")
