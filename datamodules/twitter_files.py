"""Twitter-2015 and Twitter-2017 on disk: which file lies where, and posts in the column format of their release."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmib.datamodules.crops import CropFiles
from mmib.datamodules.files import Malformed, read_lines, well_formed
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


def typed_crop_folder(root: Path, year: int) -> Path:
    """The crops that go by the names of their files, without a dictionary."""
    return root / f"twitter{year}_crop_images"


def typed_crops(folder: Path, images: Iterable[str]) -> dict[str, list[str]]:
    """Names, below the folder of such crops, of those that each image has."""
    return {
        image: [name for kind in CROP_TYPES if (folder / (name := f"{own}/crop_{kind}_{image}")).is_file()]
        for image in images
        for own in [image.removesuffix(".jpg")]
    }


def read_posts(path: Path, layout: str) -> Iterator[TaggedPost]:
    """The posts of a Twitter file, one by one: a line `IMGID:…`, then a line `word TAB tag` for each word.

    Words that look empty (U+FE0F, U+00A0 and their like) are words.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a line is malformed; the text names file and line.
    """
    return well_formed(scan_posts(path, layout))


def scan_posts(path: Path, layout: str) -> Iterator[TaggedPost | Malformed]:
    """See `read_posts`; goes on behind malformed posts.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    post: TaggedPost | Malformed | None = None
    start = 1
    for number, ended in enumerate(read_lines(path, layout), start=1):
        line, place = ended.removesuffix("\r"), f"{path}:{number}"
        if line.startswith(IMAGE_LINE) and "\t" not in line:
            if post is not None:
                yield _with_words(post, start)
            start = number
            identity = line.removeprefix(IMAGE_LINE).strip()
            nameless = Malformed(number, DataError(f"{place}: IMGID without a name"))
            post = TaggedPost(identity, [], [], place) if identity else nameless
        elif line and not (line.isspace() and "\t" not in line) and not isinstance(post, Malformed):
            try:
                word, tag = _parse_word(line, place)
                if post is None:
                    raise DataError(f"{place}: a word before the first {IMAGE_LINE} line")
            except DataError as error:
                post = Malformed(start, error)
            else:
                post.words.append(word)
                post.tags.append(tag)
    if post is None:
        raise DataError(f"{path} holds no posts: put the file of the release in its place")
    yield _with_words(post, start)


def _with_words(post: TaggedPost | Malformed, start: int) -> TaggedPost | Malformed:
    if isinstance(post, Malformed) or post.words:
        return post
    return Malformed(start, DataError(f"{post.place}: IMGID:{post.identity} has no words"))


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


class Census:
    """Counts of posts, entities in seqeval's default and in the strict reading, and oddities, of posts one by one."""

    def __init__(self) -> None:
        self.posts = 0
        self.strict = 0
        self.strays = 0
        self.posts_with_strays = 0
        self.identities: set[str] = set()
        self.unseen = 0
        self.posts_with_unseen = 0

    def add(self, post: TaggedPost, repaired: list[str], unseen: int = 0) -> None:
        """Count a post; `repaired` are its tags without stray ones, `unseen` its words beyond the longest input."""
        strays = sum(own != mended for own, mended in zip(post.tags, repaired, strict=True))
        self.posts += 1
        self.strict += sum(tag.startswith("B-") for tag in post.tags)
        self.strays += strays
        self.posts_with_strays += strays > 0
        self.identities.add(post.identity)
        self.unseen += unseen
        self.posts_with_unseen += unseen > 0

    def __str__(self) -> str:
        text = f"{self.posts:,} posts, {self.strict + self.strays:,} entities"
        if self.strays:
            text += f" ({self.strict:,} in strict IOB2: {self.strays} stray I- tags in {self.posts_with_strays} posts)"
        repeated = self.posts - len(self.identities)
        if repeated:
            text += f", {repeated} repeated IMGIDs"
        if self.unseen:
            text += (
                f", {self.unseen:,} words of {self.posts_with_unseen:,} posts lie beyond max_length and count as missed"
            )
        return text
