"""Rows of a file of raw posts: JSON lines or CSV, maybe compressed.

Rows are streamed, and a bad row does not stop reading.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

from mmib.base.files import parse_json
from mmib.schema import DataError

# Maximum characters of a row; more than a post with every word of a dictionary.
LONGEST = 4_000_000
GZIP = b"\x1f\x8b"
EVERY_ROW = range(1, sys.maxsize)
# Bytes that are not UTF-8, as decoded by the error handler surrogateescape.
NOT_UTF_8 = re.compile("[\udc80-\udcff]")
# Parses a row: returns its content, or None and why it cannot be read.
Parse = Callable[[], tuple[Any, str | None]]


class RawRow(NamedTuple):
    """A row of a file.

    Attributes:
        number: row number in the file, from 1, not counting blank lines.
        content: its values; None if it cannot be read.
        error: why it cannot be read.
    """

    number: int
    content: dict[str, Any] | None = None
    error: str | None = None


def is_csv_file(path: Path) -> bool:
    """Whether a file is CSV, judged by its name."""
    return path.name.lower().removesuffix(".gz").endswith(".csv")


def read_raw_rows(file: BufferedReader, is_csv: bool, wanted: range = EVERY_ROW) -> Iterator[RawRow]:
    """Yield rows of a file, in order; if the file is damaged, the last row is an error.

    Args:
        file: JSON objects, one per line, or CSV with a header; UTF-8, optionally compressed with gzip.
        is_csv: whether the file is CSV.
        wanted: numbers of the rows to yield; the file is not read beyond them.

    Raises:
        DataError: the CSV has no column `text`, the text is UTF-16, or the disk cannot be read further.
    """
    for number, parse in enumerate(islice(_rows(file, is_csv), wanted.stop - 1), start=1):
        if number in wanted:
            yield _row(number, parse)


def count_rows(file: BufferedReader, is_csv: bool) -> int:
    """Count the rows of a file, without parsing them.

    Raises:
        DataError: see `read_raw_rows`.
    """
    return sum(1 for _ in _rows(file, is_csv))


def _row(number: int, parse: Parse) -> RawRow:
    content, error = parse()
    if error is None and not isinstance(content, dict):
        return RawRow(number, error=f"expected an object with 'text', got {type(content).__name__}")
    return RawRow(number, content, error)


def _rows(file: BufferedReader, is_csv: bool) -> Iterator[Parse]:
    number = 0
    try:
        lines = _lines(_text(file))
        for parse in _csv(lines) if is_csv else _json_lines(lines):
            number += 1
            yield parse
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield partial(_broken, f"the rest of the compressed file cannot be read: {error}")
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


def _broken(error: str) -> tuple[None, str]:
    return None, error


def _json_lines(lines: Iterator[str]) -> Iterator[Parse]:
    for line in lines:
        if _is_cut(line):
            yield partial(_broken, f"the line is longer than {LONGEST:,} characters")
        elif not line.isspace():
            yield partial(_parsed, line)


def _parsed(line: str) -> tuple[Any, str | None]:
    if NOT_UTF_8.search(line):
        return None, "the line is not UTF-8"
    try:
        return parse_json(line), None
    except ValueError as error:
        return None, f"the line is no JSON: {error}"


def _csv(lines: Iterator[str]) -> Iterator[Parse]:
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
            yield partial(_broken, f"the row is no CSV: {error}")
        else:
            yield partial(_checked, row, len(columns))


def _checked(row: dict[str | Any, str | Any], columns: int) -> tuple[dict[str, str] | None, str | None]:
    if None in row:
        return None, f"the row has more than {columns} columns"
    if row["text"] is None:
        return None, "the row ends before its text"
    if any(NOT_UTF_8.search(value) for value in row.values() if value):
        return None, "the row is not UTF-8"
    return {name: value for name, value in row.items() if value or name == "text"}, None
