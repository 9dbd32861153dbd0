"""Object crops: the crops of each row or image, and their boxes in the image."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmib.base.files import atomic_file, parse_json
from mmib.datamodules.files import inside
from mmib.schema import UNKNOWN_BOX, Box, DataError, Picture

KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class CropFiles:
    """Paths of the crops of a split.

    Attributes:
        dictionary: file that lists the crops of each row or image.
        folder: folder with the crops, in `crops`, and the optional `boxes.json`.
    """

    dictionary: Path
    folder: Path

    @property
    def crops(self) -> Path:
        """The folder of the crop files."""
        return self.folder / "crops"

    @property
    def boxes(self) -> Path:
        """The file of boxes by crop name."""
        return self.folder / "boxes.json"


class Crops:
    """The crops of a split.

    Args:
        folder: folder of the crop files.
        names: file names below `folder`, by row or by image.
        source: the path that `names` comes from, for messages.
        boxes_file: JSON file of boxes by crop name; it may be missing.
    """

    def __init__(self, folder: Path, names: Mapping[Any, list[str]], source: Path, boxes_file: Path) -> None:
        self.folder = folder
        self.names = names
        self.source = source
        self.boxes_file = boxes_file
        self.boxes = read_boxes(boxes_file)

    @classmethod
    def listed(cls, files: CropFiles, parse_key: Callable[[object], Any]) -> Crops:
        """Read the crops of a dictionary; `parse_key` as in `read_crop_dictionary`."""
        return cls(files.crops, read_crop_dictionary(files.dictionary, parse_key), files.dictionary, files.boxes)

    def pictures(self, key: Any, most: int) -> list[Picture]:
        """Return the first `most` crops of a row or an image, even if their files do not exist.

        Raises:
            DataError: a name points outside the folder.
        """
        where = f"{self.source}, {key!r}"
        names = self.names.get(key, [])[:most]
        return [Picture(inside(self.folder, name, where), self.boxes.get(name, UNKNOWN_BOX)) for name in names]


def row_number(key: object) -> int | None:
    """Parse a key of MNRE's dictionaries: a row number, as an integer or a string."""
    number = int(key) if isinstance(key, str) and key.isdecimal() else key
    return number if type(number) is int else None


def image_name(key: object) -> str | None:
    """Parse a key of the Twitter dictionaries: the file name of an image."""
    return key if isinstance(key, str) else None


def read_crop_dictionary(path: Path, parse_key: Callable[[object], KeyT | None]) -> dict[KeyT, list[str]]:
    """Read {key: crop names} from a pickle of plain containers without running any code; empty without a file.

    Args:
        path: the dictionary.
        parse_key: `row_number` or `image_name`; returns None for an invalid key.

    Raises:
        DataError: the file holds anything else.
    """
    if not path.is_file():
        return {}
    import torch  # noqa: PLC0415 - slow to import, and only these files are in its format

    expected = (
        f"expected {{{parse_key.__name__.replace('_', ' ')}: [crop file names]}}, written by torch.save; without the "
        "file there are no crops"
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle makes the unpickler raise any type of error, IndexError and struct.error included.
    except Exception as error:
        raise DataError(
            f"{path} is not a plain crop dictionary and was not loaded ({type(error).__name__}): {expected}"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}: {expected}")
    crops = {}
    for key, names in content.items():
        parsed = parse_key(key)
        if parsed is None:
            raise DataError(f"{path} has the key {key!r}: {expected}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}, {key!r}: {names!r}: {expected}")
        crops[parsed] = names
    return crops


def write_crop_dictionary(path: Path, crops: Mapping[Any, list[str]]) -> None:
    """Write a dictionary that `read_crop_dictionary` reads.

    Raises:
        OSError: the file cannot be written.
    """
    import torch  # noqa: PLC0415 - see read_crop_dictionary

    content = io.BytesIO()
    torch.save(dict(crops), content)  # in memory: with a full disk, torch's writer would raise a RuntimeError
    with atomic_file(path) as file:
        file.write(content.getbuffer())


def read_boxes(path: Path) -> dict[str, Box]:
    """Read {crop name: (x0, y0, x1, y1) in 0..1}; empty without a file.

    Raises:
        DataError: the file is not such a JSON object.
    """
    if not path.is_file():
        return {}
    boxes: dict[str, Box] = {}
    for name, box in read_json_object(path).items():
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
        if not numbers or not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
            raise DataError(f"{path}: the box of {name!r} is {box!r}: expected [x0, y0, x1, y1] in 0..1")
        boxes[name] = (box[0], box[1], box[2], box[3])
    return boxes


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: the file holds no object or cannot be read.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}: expected a JSON object")
    return content
