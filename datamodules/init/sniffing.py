"""Detects the column separator of a file, and the columns of words and tags."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmib.datamodules.columns_files import COMMENT, DOCUMENT, IMAGE, LINES_SURVEYED, split_line
from mmib.datamodules.files import read_lines
from mmib.datamodules.schemes import ALL_LETTERS
from mmib.tagging import OUTSIDE, split_tag

# None means a tab if most lines have one, or else blanks.
SEPARATORS = (None, ",", ";", "|")
# A column holds tags if this share of its values is O or has a prefix, or if O is the most frequent value.
TAG_SHARE = 0.9
NUMBER_SHARE = 0.95


class Columns(NamedTuple):
    """Column layout of a file.

    Attributes:
        separator: column separator; None for a tab if most lines have one, or else blanks.
        word: column of the words, counted from 0.
        tag: column of the tags, counted from 0; -1 for the last one.
        width: number of columns of most lines.
    """

    separator: str | None
    word: int
    tag: int
    width: int

    def __str__(self) -> str:
        between = {None: "tabs or blanks", "\t": "tabs", " ": "blanks"}.get(self.separator, repr(self.separator))
        last = f"{self.width - 1}, the last" if self.tag == -1 else str(self.tag)
        return f"{self.width} columns with {between} between them, words in column {self.word}, tags in column {last}"


def sniff(path: Path, separator: str | None = None, word: int | None = None, tag: int | None = None) -> Columns | None:
    """Detect the column layout of a file from its first lines; given values are used as they are.

    Returns:
        The layout, or None if no column holds tags.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 text.
    """
    lines = read_lines(path, "name a file in columns")
    words = (
        line for line in lines if line.strip() and not line.startswith((COMMENT, DOCUMENT)) and not IMAGE.match(line)
    )
    first = list(itertools.islice(words, LINES_SURVEYED))
    for tried in SEPARATORS if separator is None else (separator,):
        found = _columns(first, tried, word, tag)
        if found is not None:
            return found
    return None


def _columns(lines: Sequence[str], separator: str | None, word: int | None, tag: int | None) -> Columns | None:
    used = "\t" if separator is None and 2 * sum("\t" in line for line in lines) > len(lines) else separator
    rows = [split_line(line, used) for line in lines]
    count = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
    if count < 2:
        return None
    columns = list(zip(*(row for row in rows if len(row) == count), strict=True))
    if word is None:
        numbered = sum(value.isdigit() for value in columns[0]) >= NUMBER_SHARE * len(columns[0])
        word = 1 if numbered and count > 2 else 0
    if tag is None:
        tagged = [at for at, values in enumerate(columns) if at != word and _holds_tags(values)]
        if not tagged:
            return None
        tag = -1 if tagged[-1] == count - 1 else tagged[-1]
    return Columns(separator, word, tag, count)


def _holds_tags(values: Sequence[str]) -> bool:
    counts = Counter(values)
    tags = sum(count for value, count in counts.items() if _is_tag(value))
    return counts[OUTSIDE] > 0 and (tags >= TAG_SHARE * len(values) or counts.most_common(1)[0][0] == OUTSIDE)


def _is_tag(value: str) -> bool:
    prefix, name = split_tag(value)
    return value == OUTSIDE or (prefix in ALL_LETTERS and bool(name))
