"""JSON lines: one object per line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmib.base.files import parse_json
from mmib.datamodules.convert.posts import AnnotatedPost
from mmib.datamodules.files import read_lines
from mmib.schema import DataError

LAYOUT = "name a file of posts"


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and object of each line; blank lines are skipped.

    Raises:
        DataError: the file is missing or not UTF-8, or a line holds no object.
    """
    for number, line in enumerate(read_lines(path, LAYOUT), start=1):
        if not line.strip():
            continue
        try:
            found = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{path}, line {number} holds a {type(found).__name__}: expected an object")
        yield f"line {number}", found


def parsed(path: Path, parse: Callable[[str, dict[str, Any]], AnnotatedPost | None]) -> Iterator[AnnotatedPost]:
    """Yield the posts that `parse` returns for the place and object of each line, without None.

    Raises:
        DataError: see `objects`; or `parse` raises it, in which case the file is added to the message.
    """
    for place, found in objects(path):
        try:
            post = parse(place, found)
        except DataError as error:
            raise DataError(f"{path}, {error}") from error
        if post is not None:
            yield post
