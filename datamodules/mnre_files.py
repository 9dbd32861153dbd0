"""MNRE files: paths and rows, in the layout of the data set's later releases."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmib.datamodules.crops import CropFiles, Crops, row_number
from mmib.datamodules.files import BYTE_ORDER_MARK, Malformed, read_lines
from mmib.datamodules.labels import label_set
from mmib.datamodules.posts import RelationPost
from mmib.datamodules.readers import Reader
from mmib.labels import LabelSet, difference
from mmib.schema import DataError, Span

LAYOUT = """expected below the root:
  txt/ours_train.txt, txt/ours_val.txt, txt/ours_test.txt
  img_org/train/<img_id>, img_org/val/<img_id>, img_org/test/<img_id>
  ours_rel2id.json (optional, checked)
  txt/mre_train_dict.pth, txt/mre_dev_dict.pth, txt/mre_test_dict.pth with img_vg/<split>/crops/ (optional crops)"""
CROP_DICTIONARIES = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}

SURROGATE = re.compile("[\ud800-\udfff]")


class MNREReader(Reader):
    """Reads MNRE, or any corpus in its layout: one Python literal per line, each a post with two marked entities.

    Args:
        root: folder of the data set.
    """

    corpus = "mnre"
    layout = LAYOUT
    rows = "rows"

    def text_file(self, split: str) -> Path:
        """See `Reader.text_file`."""
        return self.root / "txt" / f"ours_{split}.txt"

    def image_folder(self, split: str) -> Path:
        """See `Reader.image_folder`."""
        return self.root / "img_org" / split

    @property
    def label_file(self) -> Path:
        """See `Reader.label_file`."""
        return self.root / "ours_rel2id.json"

    def scan(self, split: str) -> Iterator[RelationPost | Malformed]:
        """See `Reader.scan`."""
        path = self.text_file(split)
        empty = True
        for number, line in enumerate(read_lines(path, self.layout), start=1):
            if not line.strip():
                continue
            empty = False
            try:
                post = _parse_row(line, f"{path}:{number}")
            except DataError as error:
                yield Malformed(number, error)
            else:
                yield post
        if empty:
            raise DataError(f"{path} holds no rows: put the file of the release in its place")

    def crop_files(self, split: str) -> CropFiles:
        """The paths at which the crops of a split are expected."""
        return CropFiles(self.root / "txt" / CROP_DICTIONARIES[split], self.root / "img_vg" / split)

    def crops(self, split: str) -> Crops | None:
        """See `Reader.crops`."""
        files = self.crop_files(split)
        return Crops.listed(files, row_number) if files.dictionary.is_file() else None

    def crop_key(self, number: int, image: str) -> int:
        """See `Reader.crop_key`: rows with the same image may have different crops."""
        del image
        return number


def check_relation_ids(path: Path, labels: LabelSet) -> None:
    """Compare `ours_rel2id.json`, if it exists, with the label set of the configuration.

    Raises:
        DataError: the file is no valid table of label ids, or its labels differ from the configuration's.
    """
    if not path.is_file():
        return
    found = label_set(str(path))
    if found.names != labels.names:
        differing = difference(LabelSet(found.names), LabelSet(labels.names))
        raise DataError(
            f"{path} names other labels than data.labels: {differing}; put the release's own in its place, name it in "
            "data.labels, or remove it: it only serves as a check"
        )


def parse_literal(line: str, place: str) -> dict[Any, Any]:
    """Parse the dict in a line that is a Python literal.

    In lines written by `json.dumps`, an emoji is escaped as a pair of surrogates, which becomes one character.

    Raises:
        DataError: the line is no such literal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a post is an invalid but harmless escape
            row = ast.literal_eval(line.lstrip(BYTE_ORDER_MARK).strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"{place}: not a Python literal ({type(error).__name__}): {line[:80]!r}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected a dict, got {type(row).__name__}")
    return {key: _joined(value) for key, value in row.items()}


def _joined(value: Any) -> Any:
    """Return a literal in which each pair of surrogates is the character that they encode."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list | tuple):
        return type(value)(map(_joined, value))
    if isinstance(value, dict):
        return {key: _joined(inner) for key, inner in value.items()}
    return value


def _parse_row(line: str, place: str) -> RelationPost:
    row = parse_literal(line, place)
    for key in ("token", "h", "t", "img_id", "relation"):
        if key not in row:
            raise DataError(f"{place}: the key {key!r} is missing; the row has {sorted(map(str, row))}")
    words, image, relation = row["token"], row["img_id"], row["relation"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{place}: 'token' must be a list of words")
    if not words:
        raise DataError(f"{place}: the sentence is empty")
    if not isinstance(image, str):
        raise DataError(f"{place}: 'img_id' must be a file name, got {image!r}")
    if not isinstance(relation, str) or not relation.strip():
        raise DataError(f"{place}: 'relation' must be the name of a relation, got {relation!r}")
    for text in (*words, image, relation):
        if SURROGATE.search(text):
            raise DataError(f"{place}: {text!r} holds an unpaired surrogate, which is not a character")
    head, tail = (_parse_span(row[key], key, len(words), place) for key in ("h", "t"))
    names = _name(row["h"]), _name(row["t"])
    return RelationPost(words=words, image=image, place=place, head=head, tail=tail, relation=relation, names=names)


def _name(entity: dict[str, Any]) -> str | None:
    name = entity.get("name")
    return name if isinstance(name, str) else None


def _parse_span(entity: Any, key: str, length: int, place: str) -> Span:
    position = entity.get("pos") if isinstance(entity, dict) else None
    if not isinstance(position, list | tuple) or len(position) != 2 or not all(type(p) is int for p in position):
        raise DataError(f"{place}: {key!r} must hold 'pos': [start, end], got {entity!r}")
    start, end = position
    if start >= end:
        fault = "empty" if start == end else "reversed"
        raise DataError(f"{place}: the span [{start}, {end}) of {key!r} is {fault}")
    if start < 0 or end > length:
        raise DataError(f"{place}: the span [{start}, {end}) of {key!r} lies outside the sentence of {length} words")
    return start, end
