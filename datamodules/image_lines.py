"""JSON lines files with information on images, by image name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Generic, NamedTuple, TypeVar

from mmib.base.files import parse_json
from mmib.datamodules.files import read_lines
from mmib.datamodules.image_names import split_ending
from mmib.labels import shown
from mmib.schema import DataError

NAMES_SHOWN = 3

ValueT = TypeVar("ValueT")


class ImageLine(NamedTuple):
    """A line of a file.

    Attributes:
        place: `file:line`.
        image: name of the image.
        content: the whole object.
    """

    place: str
    image: str
    content: dict[str, Any]


def image_lines(file: Path, layout: str) -> Iterator[ImageLine]:
    """Yield the non-empty lines of a file.

    Args:
        file: the file.
        layout: description of a line, for messages.

    Raises:
        DataError: the file cannot be read, or a line is not JSON or names no image; the message names file and line.
    """
    for number, line in enumerate(read_lines(file, layout), start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            content: Any = parse_json(line)
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}); expected {layout}") from error
        image = content.get("image") if isinstance(content, dict) else None
        if not isinstance(image, str) or not image:
            raise DataError(f"{place}: {shortened(content)} names no image; expected {layout}")
        yield ImageLine(place, image, content)


class ByImage(Generic[ValueT]):
    """Values of images from a file, by image name with or without the ending.

    Args:
        file: the file, for messages.
        values: values by the names in the file.
    """

    def __init__(self, file: Path, values: Mapping[str, ValueT]) -> None:
        self.file = file
        self._values = values
        # A post may use another ending than the file, or none.
        self._by_stem = {split_ending(image)[0]: image for image in values}

    def get(self, image: str) -> ValueT | None:
        """The value of an image, or None."""
        name = image if image in self._values else self._by_stem.get(split_ending(image)[0], "")
        return self._values.get(name)

    def check_common(self, images: Sequence[str], where: str, what: str) -> None:
        """Check that the file does not belong to another data set.

        Args:
            images: names of the images of posts.
            where: the data set and split of these posts, for the message.
            what: name of the values, for the message.

        Raises:
            DataError: there are images, and the file has no value for any of them.
        """
        if images and all(self.get(image) is None for image in images):
            raise DataError(
                f"{self.file} has no {what} of any image of {where}: it names "
                f"{shown(list(self._values), NAMES_SHOWN)}, the posts "
                f"{shown(list(dict.fromkeys(images)), NAMES_SHOWN)}; give the file of this data set"
            )
