"""Read posts from the rows of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO, cast

from mmib.base.files import parse_json
from mmib.datamodules.raw_rows import EVERY_ROW, RawRow, read_raw_rows
from mmib.extract.extractor import Post
from mmib.schema import DataError, InputError


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
        number: row number in the file, from 1, not counting blank lines.
        id: the row's own id, or else its number.
        post: the post; None if the row is not a valid post.
        error: why the row is not a valid post.
    """

    number: int
    id: Any
    post: Post | None = None
    error: str | None = None


@contextmanager
def opened(path: Path | None, standard_input: TextIO) -> Iterator[BufferedReader]:
    """Open a file, or standard input if the path is None.

    Raises:
        DataError: the file cannot be read.
    """
    if path is None:
        yield cast(BufferedReader, standard_input.buffer)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def read_rows(file: BufferedReader, is_csv: bool, folder: Path, wanted: range = EVERY_ROW) -> Iterator[Row]:
    """Yield the rows of a file as posts, see `read_raw_rows`.

    Args:
        file, is_csv, wanted: see `read_raw_rows`.
        folder: the folder that image paths of rows are relative to.

    Raises:
        DataError: see `read_raw_rows`.
    """
    return (_row(row, folder) for row in read_raw_rows(file, is_csv, wanted))


def _row(row: RawRow, folder: Path) -> Row:
    number, content, error = row
    if content is None:
        return Row(number, number, error=error)
    name_of_row = number if content.get("id") is None else content["id"]
    try:
        if "text" not in content:
            raise InputError("the row has no 'text': each needs the text of a post")
        for name in ("crops", "entities"):
            if isinstance(content.get(name), str):  # from a CSV
                content[name] = _list(name, content[name])
        image = content.get("image")
        if image is not None and not isinstance(image, str):
            raise InputError(f"'image' is the path of a file, not {type(image).__name__}")
        crops = content.get("crops")
        if isinstance(crops, list):
            crops = [folder / crop if isinstance(crop, str) else crop for crop in crops]
        place = folder / image if image else None
        return Row(number, name_of_row, Post(content["text"], place, crops, content.get("entities")))
    except InputError as error:
        return Row(number, name_of_row, error=str(error))


def _list(name: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{name!r} is no JSON: {error}") from error
