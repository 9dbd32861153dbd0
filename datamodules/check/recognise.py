"""Which data sets a folder holds, and how the files of one that is not arranged are to be arranged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmib.datamodules.check.sets import SetFiles
from mmib.datamodules.image_names import ImageNames
from mmib.datamodules.mnre_files import LAYOUT as MNRE_LAYOUT
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.twitter_files import IMAGE_LINE, YEARS, TwitterReader
from mmib.datamodules.twitter_files import LAYOUT as TWITTER_LAYOUT
from mmib.schema import DataError

# Enough for any release, and few enough for a folder that is none.
DEPTH = 3
MOST_FILES = 5_000
MOST_BYTES = 1_000_000
SPLIT_WORDS = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}


def find_sets(path: Path) -> list[SetFiles]:
    """The data sets in a folder: it may be the root of one or of several, a folder of roots, or that of the texts.

    Raises:
        DataError: the folder does not exist, or holds none in a known layout; the text tells what to move where.
    """
    if not path.is_dir():
        raise DataError(f"the data folder {path} {'is a file' if path.exists() else 'does not exist'}")
    found = _sets_of(path)
    if not found and path.name in ("txt", *(f"twitter{year}" for year in YEARS)):
        # Someone named the folder of the texts instead of the one above it.
        above = path.absolute().parent
        found = [files for files in _sets_of(above) if files.reader.text_file("train").parent.name == path.name]
    for child in sorted(child for child in path.iterdir() if child.is_dir()):
        found += _sets_of(child)
    if not found:
        raise DataError(f"{path} holds no data set in a known layout{_advice(path)}")
    return found


def _sets_of(root: Path) -> list[SetFiles]:
    candidates = [_mnre(root), *(_twitter(root, year) for year in YEARS)]
    return [files for files in candidates if files.has_any()]


def _mnre(root: Path) -> SetFiles:
    return SetFiles(MNREReader(root), "mre")


def _twitter(root: Path, year: int) -> SetFiles:
    return SetFiles(TwitterReader(root, year), "mner")


def _advice(path: Path) -> str:
    """What lies in the folder that looks like a data set under other names, or else the known layouts."""
    moves = "".join(f"\n  {move}" for file in _texts(path) for move in _moves(file))
    if moves:
        return f", but files of one. Arrange them like this, with ROOT for what --data.root will name:{moves}"
    return f".\nMNRE, {MNRE_LAYOUT}\nTwitter-2015 and -2017, {TWITTER_LAYOUT.format(year='<2015 or 2017>')}"


def _moves(file: Path) -> Iterator[str]:
    """Where a text file and its images belong."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return
    name = file.name.lower()
    split = next((split for split, words in SPLIT_WORDS.items() if any(word in name for word in words)), "train")
    if text.lstrip().startswith("{") and "img_id" in text:
        target, image = _mnre(Path("ROOT")), re.search(r"['\"]img_id['\"]: ['\"]([^'\"]+)", text)
    elif text.lstrip().startswith(IMAGE_LINE):
        # Only Twitter-2015 calls its fourth type OTHER.
        target, image = (
            _twitter(Path("ROOT"), 2015 if "-OTHER" in text else 2017),
            re.search(rf"{IMAGE_LINE}(\S+)", text),
        )
    else:
        return
    reader = target.reader
    yield f"{file} holds {reader.rows} in the format of {target.title}: move it to {reader.text_file(split)}"
    for folder in _folders(file.parents[1]):
        if image and ImageNames(folder).find(image.group(1)):
            yield f"{folder}/ holds images of it: move it to {reader.image_folder(split)}/"
            return


def _texts(path: Path) -> list[Path]:
    return sorted(file for folder in _folders(path) for file in folder.glob("*.txt") if file.is_file())[:20]


def _folders(path: Path) -> Iterator[Path]:
    """A folder and those below it, down to a depth, and not without end."""
    seen = 0
    for where, folders, files in os.walk(path):
        seen += len(files) + 1
        if seen > MOST_FILES or len(Path(where).relative_to(path).parts) >= DEPTH:
            folders.clear()
        yield Path(where)
