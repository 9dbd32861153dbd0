"""Read posts from files: JSON lines or CSV, maybe compressed. Rows are streamed; a bad row does not stop reading."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO, cast

from mmib.base.files import parse_json
from mmib.extract.extractor import Post
from mmib.schema import DataError, InputError

# Maximum characters of a row; more than a post with every word of a dictionary.
LONGEST = 4_000_000
GZIP = b"\x1f\x8b"


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
        raise DataError(f"{path} cannot be read: {error}") from error
    with file:
        yield file


def read_rows(file: BufferedReader, is_csv: bool, folder: Path) -> Iterator[Row]:
    """Yield the rows of a file, in order; if the file is damaged, the last row is an error.

    Args:
        file: JSON objects, one per line, or CSV with a header; UTF-8, optionally compressed with gzip.
        is_csv: whether the file is CSV.
        folder: the folder that image paths of rows are relative to.

    Raises:
        DataError: the CSV has no column `text`, the text is UTF-16, or the disk cannot be read further.
    """
    number = 0
    try:
        lines = _lines(_text(file))
        for number, (content, error) in enumerate(_csv(lines) if is_csv else _json_lines(lines), start=1):
            yield Row(number, number, error=error) if error else _row(number, content, folder)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield Row(number + 1, number + 1, error=f"the rest of the compressed file cannot be read: {error}")
    except OSError as error:
        raise DataError(f"the posts after row {number:,} cannot be read: {error}") from error


def _text(file: BufferedReader) -> TextIO:
    """Decompress a file, and drop a byte-order mark."""
    head = file.peek(len(GZIP))
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("the posts are in UTF-16: save them as UTF-8")
    source = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else file
    # Invalid UTF-8 must become an error of its own row and not affect other rows.
    return io.TextIOWrapper(cast(BufferedReader, source), "utf-8-sig", "surrogateescape", newline="")


def _lines(text: TextIO) -> Iterator[str]:
    """Yield the lines of a text, each cut to its first `LONGEST` characters."""
    while line := text.readline(LONGEST):
        yield line
        while _is_cut(line):
            line = text.readline(LONGEST)


def _is_cut(line: str) -> bool:
    return len(line) == LONGEST and not line.endswith(("\n", "\r"))


def _json_lines(lines: Iterator[str]) -> Iterator[tuple[Any, str | None]]:
    for line in lines:
        if _is_cut(line):
            yield None, f"the line is longer than {LONGEST:,} characters"
        elif line.strip():
            yield _parsed(line)


def _parsed(line: str) -> tuple[Any, str | None]:
    if any("\udc80" <= character <= "\udcff" for character in line):
        return None, "the line is not UTF-8"
    try:
        return parse_json(line), None
    except ValueError as error:
        return None, f"the line is no JSON: {error}"


def _csv(lines: Iterator[str]) -> Iterator[tuple[Any, str | None]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = reader.fieldnames or []
    except csv.Error as error:
        raise DataError(f"the heading is no CSV: {error}") from error
    if "text" not in columns:
        raise DataError(f"the CSV has no column 'text': it has {', '.join(map(str, columns)) or 'none'}")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield None, f"the row is no CSV: {error}"
            continue
        if None in row:
            yield None, f"the row has more than {len(columns)} columns"
        elif row["text"] is None:
            yield None, "the row ends before its text"
        elif any("\udc80" <= character <= "\udcff" for value in row.values() for character in value or ""):
            yield None, "the row is not UTF-8"
        else:
            yield {name: value for name, value in row.items() if value or name == "text"}, None


def _row(number: int, content: Any, folder: Path) -> Row:
    if not isinstance(content, dict):
        return Row(number, number, error=f"expected an object with 'text', got {type(content).__name__}")
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
