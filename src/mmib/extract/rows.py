"""Posts in files: JSON lines or CSV, compressed or not. One row at a time, and a bad one stops nothing."""

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

# Characters of a row; a post with every word of a dictionary is shorter.
LONGEST = 4_000_000
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
        number: which row of the file, from 1, blank lines not counted.
        id: what the row calls itself, else its number.
        post: what is in it; None where it is no post.
        error: why it is none.
    """

    number: int
    id: Any
    post: Post | None = None
    error: str | None = None


@contextmanager
def opened(path: Path | None, standard_input: TextIO) -> Iterator[BufferedReader]:
    """A file, or standard input where there is none.

    Raises:
        DataError: it cannot be read.
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
    """The rows of a file, in order; the last one is an error where the file is damaged behind those before.

    Args:
        file: of JSON objects, one a line, or of CSV with a heading; in UTF-8, maybe compressed with gzip.
        is_csv: which of the two.
        folder: below which the images of rows lie.

    Raises:
        DataError: a CSV without a column `text`, a text in UTF-16, or a disk that gives no more.
    """
    number = 0
    try:
        lines = _lines(_text(file))
        for number, (content, error) in enumerate(_csv(lines) if is_csv else _json_lines(lines), start=1):
            yield Row(number, number, error=error) if error else _row(number, content, folder)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield Row(number + 1, number + 1, error=f"the rest of the compressed file cannot be read: {error}")
    except OSError as error:
        raise DataError(f"the posts behind row {number:,} cannot be read: {error}") from error


def _text(file: BufferedReader) -> TextIO:
    """What is in a file, decompressed and without a byte-order mark."""
    head = file.peek(len(GZIP))
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("the posts are in UTF-16: save them as UTF-8")
    source = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else file
    # What is no UTF-8 must reach its row as an error, and stop no other.
    return io.TextIOWrapper(cast(BufferedReader, source), "utf-8-sig", "surrogateescape", newline="")


def _lines(text: TextIO) -> Iterator[str]:
    """The lines of a text; of one that is too long its first `LONGEST` characters."""
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
    name_of_row = content.get("id", number)
    try:
        if "text" not in content:
            raise InputError("the row has no 'text': each needs the text of a post")
        for name in ("crops", "entities"):
            if isinstance(content.get(name), str):  # of a CSV
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
