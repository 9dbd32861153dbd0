"""MNRE on disk: which file lies where, and its rows, in the layout of the data set's later releases."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.datamodules.crops import CropFiles, read_json_object
from mmib.datamodules.files import Malformed, read_lines, well_formed
from mmib.datamodules.markers import Span
from mmib.schema import RELATION_IDS, RELATIONS, DataError

LAYOUT = """expected below the root:
  txt/ours_train.txt, txt/ours_val.txt, txt/ours_test.txt
  img_org/train/<img_id>, img_org/val/<img_id>, img_org/test/<img_id>
  ours_rel2id.json (optional, checked)
  txt/mre_train_dict.pth, txt/mre_dev_dict.pth, txt/mre_test_dict.pth with img_vg/<split>/crops/ (optional crops)"""
CROP_DICTIONARIES = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}


@dataclass(frozen=True)
class RelationRow:
    """A line of an MNRE file.

    Attributes:
        tokens: the post's words.
        head: words [start, end) of the head entity.
        tail: words [start, end) of the tail entity.
        image: file name of the image.
        relation: name of the relation.
        place: `file:line` of the row, for messages.
        names: what the file calls head and tail, where it does; only checked, by `mmib check-data`.
    """

    tokens: list[str]
    head: Span
    tail: Span
    image: str
    relation: str
    place: str
    names: tuple[str | None, str | None] = (None, None)


def text_file(root: Path, split: str) -> Path:
    """The rows of `train`, `val` or `test`."""
    return root / "txt" / f"ours_{split}.txt"


def image_folder(root: Path, split: str) -> Path:
    """The whole images of a split."""
    return root / "img_org" / split


def crop_files(root: Path, split: str) -> CropFiles:
    """Where the crops of a split are expected."""
    return CropFiles(root / "txt" / CROP_DICTIONARIES[split], root / "img_vg" / split)


def read_rows(path: Path) -> Iterator[RelationRow]:
    """The rows of an MNRE file, one by one: one Python literal a line.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a line is malformed; the text names file and line.
    """
    return well_formed(scan_rows(path))


def scan_rows(path: Path) -> Iterator[RelationRow | Malformed]:
    """See `read_rows`; goes on behind malformed lines.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    empty = True
    for number, line in enumerate(read_lines(path, LAYOUT), start=1):
        if not line.strip():
            continue
        empty = False
        try:
            row = _parse_row(line, f"{path}:{number}")
        except DataError as error:
            yield Malformed(number, error)
        else:
            yield row
    if empty:
        raise DataError(f"{path} holds no rows: put the file of the release in its place")


def _parse_row(line: str, place: str) -> RelationRow:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a post is no valid escape, and harmless
            row = ast.literal_eval(line.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"{place}: not a Python literal ({type(error).__name__}): {line[:80]!r}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a dict, got {type(row).__name__}")
    for key in ("token", "h", "t", "img_id", "relation"):
        if key not in row:
            raise DataError(f"{place}: the key {key!r} is missing; the row has {sorted(map(str, row))}")
    tokens = row["token"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise DataError(f"{place}: 'token' must be a list of words")
    if not tokens:
        raise DataError(f"{place}: the sentence is empty")
    if not isinstance(row["img_id"], str):
        raise DataError(f"{place}: 'img_id' must be a file name, got {row['img_id']!r}")
    for text in (*tokens, row["img_id"]):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{place}: {text!r} holds half of a surrogate pair, which is no character")
    if not isinstance(row["relation"], str) or row["relation"] not in RELATION_IDS:
        raise DataError(f"{place}: the relation {row['relation']!r} is none of the {len(RELATIONS)} of MNRE")
    spans = [_parse_span(row[key], key, len(tokens), place) for key in ("h", "t")]
    names = _name(row["h"]), _name(row["t"])
    return RelationRow(tokens, spans[0], spans[1], row["img_id"], row["relation"], place, names)


def _name(entity: dict[str, Any]) -> str | None:
    name = entity.get("name")
    return name if isinstance(name, str) else None


def _parse_span(entity: Any, key: str, length: int, place: str) -> Span:
    position = entity.get("pos") if isinstance(entity, dict) else None
    if not isinstance(position, list | tuple) or len(position) != 2 or not all(type(p) is int for p in position):
        raise DataError(f"{place}: {key!r} must hold 'pos': [start, end], got {entity!r}")
    start, end = position
    if start >= end:
        kind = "empty" if start == end else "reversed"
        raise DataError(f"{place}: the span [{start}, {end}) of {key!r} is {kind}")
    if start < 0 or end > length:
        raise DataError(f"{place}: the span [{start}, {end}) of {key!r} lies outside the sentence of {length} words")
    return start, end


def check_relation_ids(path: Path) -> None:
    """Compare `ours_rel2id.json`, where it is there, with the project's own fixed labels.

    Raises:
        DataError: it is no JSON object, or says otherwise.
    """
    if not path.is_file():
        return
    found = read_json_object(path)
    if found != RELATION_IDS:
        wrong = [name for name in RELATIONS if found.get(name) != RELATION_IDS[name]]
        more = [name for name in found if name not in RELATION_IDS]
        raise DataError(
            f"{path} differs from MNRE version 2: {', '.join((wrong + more)[:5])} (of {len(wrong + more)}); put the "
            "release's own in its place, or remove it: it only serves as a check"
        )
