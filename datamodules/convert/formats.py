"""The formats by name, and their recognition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmib.datamodules.convert import doccano, json_lines, label_studio
from mmib.datamodules.convert.lines import objects
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import AnnotatedPost, Notes
from mmib.datamodules.files import open_data
from mmib.schema import DataError


class Format(NamedTuple):
    """Functions that read and write files of a format."""

    read: Callable[[Path, Options, Notes], Iterator[AnnotatedPost]]
    write: Callable[[Iterable[AnnotatedPost], BinaryIO, Options, Notes], None]


MMIB, LABEL_STUDIO, DOCCANO = "mmib", "label-studio", "doccano"
FORMATS = {
    MMIB: Format(json_lines.read, json_lines.write),
    LABEL_STUDIO: Format(label_studio.read, label_studio.write),
    DOCCANO: Format(doccano.read, doccano.write),
}


def recognise(path: Path) -> str:
    """Return the name of a file's format, from the first line with keys that only one format has.

    Raises:
        DataError: the file cannot be read, or its format is ambiguous.
    """
    with open_data(path, "name a file of annotated posts") as file:
        if file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            return LABEL_STUDIO
    for _, line in objects(path):
        parts = _keys(line.get("entities")) | _keys(line.get("relations"))
        # By their annotations first: further keys of a post may have any name.
        if parts & {"start", "head"}:
            return MMIB
        if parts & {"start_offset", "from_id"} or "Comments" in line or _has_spans(line):
            return DOCCANO
        if line.keys() & {"tokens", "error", "notes"}:
            return MMIB
    raise DataError(
        f"{path} could be of several formats, since nothing is annotated in it: name one of {', '.join(FORMATS)} with "
        "--from (docs/how-to/annotation.md shows them)"
    )


def _has_spans(line: dict[str, Any]) -> bool:
    """Whether a line has doccano's spans, which it has instead of entities."""
    return "entities" not in line and any(isinstance(line.get(key), list) for key in doccano.SPANS)


def _keys(items: Any) -> set[str]:
    return {key for item in items if isinstance(item, dict) for key in item} if isinstance(items, list) else set()
