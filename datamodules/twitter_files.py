"""Twitter-2015 and Twitter-2017 files: paths, and posts in the column format of their release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmib.datamodules.crops import CropFiles, Crops, image_name
from mmib.datamodules.files import BYTE_ORDER_MARK, Malformed, read_lines
from mmib.datamodules.image_names import split_ending
from mmib.datamodules.posts import TaggedPost
from mmib.datamodules.readers import Reader
from mmib.schema import ConfigError, DataError
from mmib.tagging import BEGIN, INSIDE, OUTSIDE, split_tag

LAYOUT = """expected below the root, for the year {year}:
  twitter{year}/train.txt, twitter{year}/valid.txt, twitter{year}/test.txt
  twitter{year}_images/<IMGID>.jpg
  optional crops: twitter{year}/twitter{year}_<train, val, test>_dict.pth with
    twitter{year}_aux_images/<train, val, test>/crops/, or
    twitter{year}_crop_images/<IMGID>/crop_<person, organization, location, miscellaneous>_<IMGID>.jpg"""
YEARS = (2015, 2017)
TEXT_FILES = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
# Other common names of the validation file.
VALIDATION_NAMES = ("dev.txt", "val.txt", "validation.txt")
CROP_TYPES = ("person", "organization", "location", "miscellaneous")
IMAGE_LINE = "IMGID:"
# The name of MISC in Twitter-2015.
OTHER, MISC = "OTHER", "MISC"


class TwitterReader(Reader):
    """Reads Twitter-2015 or Twitter-2017, or any corpus in their layout.

    A post is a line `IMGID:…` followed by a line `word TAB tag` for each word. Words that look empty (such as U+FE0F or
    U+00A0) are words. Tags are in BIO; the type OTHER is read as MISC.

    Args:
        root: folder of the data set.
        year: 2015 or 2017; names the files.
        test_year: year of the data set whose posts form the test split, for scores across domains; None for `year`.
        test_split: split of that data set to use.

    Raises:
        ConfigError: an unknown year or split.
    """

    def __init__(self, root: Path, year: int, test_year: int | None = None, test_split: str = "test") -> None:
        super().__init__(root)
        for each in (year, year if test_year is None else test_year):
            if each not in YEARS:
                raise ConfigError(f"there is no Twitter-{each}: the years are {YEARS[0]} and {YEARS[1]}")
        if test_split not in TEXT_FILES:
            raise ConfigError(f"test_split {test_split!r} is unknown: choose from {', '.join(TEXT_FILES)}")
        self._trained = f"twitter{year}"
        self._tested = self._trained if test_year is None else f"twitter{test_year}"
        self._test_split = test_split
        if self._tested == self._trained and test_split != "test":
            raise ConfigError(
                f"test_split is {test_split}, and the model is trained and selected on {self._trained}: its test split "
                "alone can test it; give a test_year that is another one"
            )
        self.corpus = self._trained
        if self._tested != self._trained:
            self.corpus += f"-to-{self._tested}" + ("" if test_split == "test" else f"-{test_split}")
        self.layout = LAYOUT.format(year=year)
        if self._tested != self._trained:
            self.layout += f"\nand the {test_split} split of the same for the year {test_year}"

    def _source(self, split: str) -> tuple[str, str]:
        """The data set that a split comes from, and the split of that data set."""
        return (self._tested, self._test_split) if split == "test" else (self._trained, split)

    def text_file(self, split: str) -> Path:
        """See `Reader.text_file`."""
        name, source = self._source(split)
        return self.root / name / TEXT_FILES[source]

    def image_folder(self, split: str) -> Path:
        """See `Reader.image_folder`; all splits of a set share one."""
        return self.root / f"{self._source(split)[0]}_images"

    def scan(self, split: str) -> Iterator[TaggedPost | Malformed]:
        """See `Reader.scan`."""
        path = self.text_file(split)
        post: TaggedPost | Malformed | None = None
        start = 1
        for number, line in enumerate(read_lines(path, self.expected(split)), start=1):
            place = f"{path}:{number}"
            # Concatenated files have byte-order marks in the middle.
            opening = line.lstrip(BYTE_ORDER_MARK)
            if opening.startswith(IMAGE_LINE) and "\t" not in line:
                if post is not None:
                    yield _with_words(post, start)
                post, start = _opened(opening, place, number), number
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
                    post.lines.append(number)
        if post is None:
            raise DataError(f"{path} holds no posts: put the file of the release in its place")
        yield _with_words(post, start)

    def expected(self, split: str) -> str:
        """See `Reader.expected`; names a validation file that only has to be renamed."""
        path = self.text_file(split)
        others = [name for name in VALIDATION_NAMES if path.with_name(name).is_file()]
        if path.name != TEXT_FILES["val"] or not others:
            return self.layout
        return f"rename {others[0]} beside it to {path.name}; {self.layout}"

    def crop_files(self, split: str) -> CropFiles:
        """The paths at which a dictionary of crops and the crops of a split are expected."""
        name, source = self._source(split)
        folder = self.root / f"{name}_aux_images" / source
        return CropFiles(self.root / name / f"{name}_{source}_dict.pth", folder)

    def crops(self, split: str) -> Crops | None:
        """See `Reader.crops`; they are listed in a dictionary, or else found by their file names."""
        files = self.crop_files(split)
        if files.dictionary.is_file():
            return Crops.listed(files, image_name)
        folder = self.root / f"{self._source(split)[0]}_crop_images"
        return Crops(folder, _typed_crops(folder), folder, folder / "boxes.json") if folder.is_dir() else None


def _image_of(identity: str) -> str:
    """The image of an IMGID, which may lack the ending."""
    return identity if split_ending(identity)[1] else f"{identity}.jpg"


def _typed_crops(folder: Path) -> dict[str, list[str]]:
    """The crops of each image, in a folder of crops that are named after their types.

    Raises:
        DataError: a folder cannot be listed.
    """
    try:
        there = {child.name: {file.name for file in child.iterdir()} for child in folder.iterdir() if child.is_dir()}
    except OSError as error:
        raise DataError(f"the crops below {folder} cannot be listed: {error}") from error
    crops: dict[str, list[str]] = {}
    for identity, found in there.items():
        image = _image_of(identity)
        expected = (f"crop_{entity}_{image}" for entity in CROP_TYPES)
        crops[image] = [f"{identity}/{name}" for name in expected if name in found]
    return crops


def _opened(line: str, place: str, number: int) -> TaggedPost | Malformed:
    """Return the post of an image line, still without words."""
    identity = line.removeprefix(IMAGE_LINE).strip()
    if not identity:
        return Malformed(number, DataError(f"{place}: IMGID without a name"))
    return TaggedPost(words=[], image=_image_of(identity), place=place, tags=[])


def _with_words(post: TaggedPost | Malformed, start: int) -> TaggedPost | Malformed:
    if isinstance(post, Malformed) or post.words:
        return post
    return Malformed(start, DataError(f"{post.place}: the post of the image {post.image} has no words"))


def _parse_word(line: str, place: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2 or not fields[0]:
        raise DataError(f"{place}: expected a word, one tab and its tag, got {line[:80]!r}")
    word, tag = fields[0], fields[1].strip()
    prefix, name = split_tag(tag)
    if tag != OUTSIDE and (prefix not in (BEGIN, INSIDE) or not name.strip()):
        raise DataError(f"{place}: the tag {tag!r} is neither O nor B- or I- with an entity type")
    return word, f"{prefix}-{MISC}" if name == OTHER else tag
