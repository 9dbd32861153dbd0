"""What every reader of a data set offers: its posts, one by one, and the files of their images."""

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
log = logging.getLogger(__name__)


class Reader(ABC):
    """Reads the files of a data set; what is made of the posts is the task's and the data module's business.

    Args:
        root: folder of the data set.

    Attributes:
        corpus: name of the data set, for tables and files.
        layout: which files are expected where below the root, for messages.
        rows: what its posts are called, in the plural.
    """

    corpus: str
    layout: str
    rows: str = "posts"

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def text_file(self, split: str) -> Path:
        """The file that holds the text of `train`, `val` or `test`."""

    @abstractmethod
    def scan(self, split: str) -> Iterator[Post | Malformed]:
        """The posts of a split, one by one, with `Malformed` in place of one that cannot be read.

        Raises:
            DataError: the file is missing, holds no post, or is no text in UTF-8.
        """

    @abstractmethod
    def image_folder(self, split: str) -> Path:
        """The folder that the posts' images are named in."""

    @property
    def label_file(self) -> Path | None:
        """The data set's own list of labels with their ids, where its format has one; it need not be there."""
        return None

    def text_files(self) -> list[Path]:
        """The files of text and labels that are there."""
        texts = [self.text_file(split) for split in SPLITS if self.has_split(split)]
        return texts + ([self.label_file] if self.label_file is not None and self.label_file.is_file() else [])

    def crops(self, split: str) -> Crops | None:
        """The object crops of a split, or None where there are none.

        Raises:
            DataError: the files that list them cannot be read.
        """
        del split
        return None

    def crop_key(self, number: int, image: str) -> Any:
        """What the crops of a split know a post by: the name of its image, or its number among the split's posts."""
        del number
        return image

    def pictures(self, split: str, images: Iterable[str], max_crops: int) -> Iterator[tuple[Picture, ...]]:
        """The files that may belong to each post of a split: the whole image first, then its object crops.

        Images are found under another ending than the one that they are named with, too, and it is logged how many.

        Args:
            split: `train`, `val` or `test`.
            images: name of each post's image, in the order of `scan`; empty for a post without one.
            max_crops: most crops of a post.

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
        """The posts of a split, where all can be read and name an image inside the folder of images, or none.

        Raises:
            DataError: the first that cannot; the text names file and line.
        """
        for post in well_formed(self.scan(split)):
            if post.image:
                inside(self.image_folder(split), post.image, post.place)
            yield post

    def note(self, split: str) -> str:
        """What there is to say of a split whose posts have all been read; empty where there is nothing."""
        del split
        return ""

    def options(self) -> dict[str, Any]:
        """What decides, beside the contents of a text file, which posts are read: part of the key of cached posts."""
        return {}

    def has_split(self, split: str) -> bool:
        """Whether the text of a split is there; releases and development copies often lack the test split."""
        return self.text_file(split).is_file()

    def check(self, split: str) -> None:
        """Look for the text of a split.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        with open_data(self.text_file(split), self.layout):
            pass
