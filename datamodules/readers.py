"""Base class of the readers of data sets, which yield posts and the files of their images."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmib.datamodules.crops import Crops
from mmib.datamodules.files import Malformed, inside, open_data, well_formed
from mmib.datamodules.image_names import ImageNames
from mmib.schema import WHOLE_IMAGE, Picture, Post

SPLITS = ("train", "val", "test")
# Attributes of every reader, which are no settings.
DESCRIPTIONS = ("root", "corpus", "layout", "rows")
log = logging.getLogger(__name__)


class Reader(ABC):
    """Reads the files of a data set; tasks and data modules process its posts.

    Args:
        root: folder of the data set.

    Attributes:
        corpus: name of the data set, for tables and files.
        layout: description of the expected files below the root, for messages.
        rows: name of its posts in the plural, for messages.
    """

    corpus: str
    layout: str
    rows: str = "posts"

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def text_file(self, split: str) -> Path:
        """The file with the text of `train`, `val` or `test`."""

    @abstractmethod
    def scan(self, split: str) -> Iterator[Post | Malformed]:
        """Yield the posts of a split, with `Malformed` in place of a post that cannot be read.

        Raises:
            DataError: the file is missing, holds no post, or is not UTF-8 text.
        """

    @abstractmethod
    def image_folder(self, split: str) -> Path:
        """The folder that the posts' image names are relative to."""

    @property
    def label_file(self) -> Path | None:
        """The data set's own list of labels with their ids, if its format has one; it need not exist."""
        return None

    def text_files(self) -> list[Path]:
        """The existing files of text and labels."""
        texts = [self.text_file(split) for split in SPLITS if self.has_split(split)]
        return texts + ([self.label_file] if self.label_file is not None and self.label_file.is_file() else [])

    def crops(self, split: str) -> Crops | None:
        """The object crops of a split, or None if there are none.

        Raises:
            DataError: the files that list the crops cannot be read.
        """
        del split
        return None

    def crop_key(self, number: int, image: str) -> Any:
        """The key of a post's crops: the name of its image, or the number of the post in the split."""
        del number
        return image

    def pictures(self, split: str, images: Iterable[str], max_crops: int) -> Iterator[tuple[Picture, ...]]:
        """Yield the files that may belong to each post of a split: the whole image first, then its object crops.

        Images are also found if their files have another ending than their names; the number of these is logged.

        Args:
            split: `train`, `val` or `test`.
            images: name of each post's image, in the order of `scan`; empty for a post without one.
            max_crops: maximum number of crops of a post.

        Raises:
            DataError: the folder of images, or the list of crops, cannot be read.
        """
        names = ImageNames(self.image_folder(split))
        crops = self.crops(split) if max_crops else None
        for number, image in enumerate(images):
            file = names.find(image) if image else None
            whole = () if file is None else (Picture(file, WHOLE_IMAGE),)
            cut = () if crops is None else crops.pictures(self.crop_key(number, image), max_crops)
            yield (*whole, *cut)
        if names.renamed:
            log.warning("%s: %d images were found in %s under another ending", split, names.renamed, names.folder)

    def posts(self, split: str) -> Iterator[Post]:
        """Yield the posts of a split, each with an image name inside the folder of images, or without one.

        Raises:
            DataError: a post cannot be read or names an image outside the folder; the message names file and line.
        """
        for post in well_formed(self.scan(split)):
            if post.image:
                inside(self.image_folder(split), post.image, post.place)
            yield post

    def note(self, split: str) -> str:
        """Remarks on a split whose posts have all been read; empty if there are none."""
        del split
        return ""

    def options(self) -> dict[str, Any]:
        """The settings that determine which posts are read from a text file: part of the key of cached posts.

        By default the attributes whose names have no underscore in front, as far as their values are plain: strings,
        numbers, booleans, None, and lists, tuples and dictionaries of these. A reader adds whatever else its posts
        depend on, such as the digest of a further file.
        """
        settings = {name: value for name, value in vars(self).items() if name not in DESCRIPTIONS}
        return {name: value for name, value in settings.items() if not name.startswith("_") and _is_plain(value)}

    def has_split(self, split: str) -> bool:
        """Whether the text of a split exists; releases and development copies often lack the test split."""
        return self.text_file(split).is_file()

    def check(self, split: str) -> None:
        """Check that the text of a split exists.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        with open_data(self.text_file(split), self.expected(split)):
            pass

    def expected(self, split: str) -> str:
        """Description of the expected files, for the message that a split's text is missing."""
        del split
        return self.layout


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)
