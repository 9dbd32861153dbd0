"""Converts captions released by other projects to the JSON lines that data modules read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from mmib.base.files import write_text
from mmib.datamodules.files import read_lines
from mmib.datamodules.mnre_files import parse_literal
from mmib.schema import DataError


def write_captions(sources: Iterable[tuple[str, str, Path]], path: Path) -> int:
    """Write a line `{"image": …, "captions": {model: text}}` for each image.

    Args:
        sources: model, format and path of each file of captions.
        path: the file to write.

    Returns:
        The number of images with a caption.

    Raises:
        DataError: a line cannot be read; the message names file and line.
    """
    captions: dict[str, dict[str, str]] = {}
    for model, layout, source in sources:
        for number, line in enumerate(read_lines(source, "expected a caption a line"), start=1):
            if not line.strip():
                continue
            image, text = PARSERS[layout](line, f"{source}:{number}")
            text = " ".join(text.split())
            if text:
                # An image of several splits is in several files, with the same caption.
                captions.setdefault(image.strip(), {}).setdefault(model, text)
    rows = ({"image": image, "captions": texts} for image, texts in sorted(captions.items()))
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return len(captions)


def _parse_colon(line: str, place: str) -> tuple[str, str]:
    image, colon, text = line.partition(":")
    if not colon:
        raise DataError(f"{place}: expected an image, a colon and its caption, got {line[:80]!r}")
    return image, text


def _parse_literal(line: str, place: str) -> tuple[str, str]:
    row = parse_literal(line, place)
    image, text = row.get("img_id"), row.get("text")
    if not isinstance(image, str) or not isinstance(text, str):
        raise DataError(f"{place}: expected the keys 'img_id' and 'text', got {line[:80]!r}")
    return image, text


# Functions from a line and its place to the name of the image and the caption.
PARSERS: dict[str, Callable[[str, str], tuple[str, str]]] = {"colon": _parse_colon, "literal": _parse_literal}
