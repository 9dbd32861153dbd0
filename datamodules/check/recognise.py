"""Which data sets a folder holds, and how the files of one that is not arranged are to be arranged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmib.datamodules.check.sets import SetFiles
from mmib.datamodules.image_names import ImageNames
from mmib.datamodules.init.recognise import Given, find_data
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.twitter_files import IMAGE_LINE, YEARS, TwitterReader
from mmib.labels import LabelSet
from mmib.schema import DataError

# Enough for any release, and few enough for a folder that is none.
DEPTH = 3
MOST_FILES = 5_000
MOST_BYTES = 1_000_000
SPLIT_WORDS = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}


def find_sets(path: Path, given: Given | None = None, labels: LabelSet | None = None) -> list[SetFiles]:
    """The data sets in a folder or file.

    A folder may be the root of one in a released layout or of several, a folder of such roots, or that of the texts.
    Or it holds data of another format, as a file may, which `mmib init` reads too.

    Args:
        path: the folder or file.
        given: what is known of data of another format.
        labels: what its posts may be labelled with; None where that is not known.

    Raises:
        DataError: there is nothing that can be read; where files only lie in the wrong places, the text tells what to
            move where.
        ConfigError: there are several data sets of other formats, and `given` does not say which is meant.
    """
    found = _released(path) if path.is_dir() else []
    if found:
        return found
    try:
        data = find_data(path, given or Given())
    except DataError as error:
        moves = "".join(f"\n  {move}" for file in _texts(path) for move in _moves(file))
        if not moves:
            raise
        raise DataError(
            f"{path} holds no data set in a known layout, but files of one. Arrange them like this, with ROOT for what "
            f"--data.root will name:{moves}"
        ) from error
    return [SetFiles(data.reader(labels), data.task, data.title, data.remarks)]


def _released(path: Path) -> list[SetFiles]:
    """The sets in a released layout."""
    found = _sets_of(path)
    if not found and path.name in ("txt", *(f"twitter{year}" for year in YEARS)):
        # Someone named the folder of the texts instead of the one above it.
        above = path.absolute().parent
        found = [files for files in _sets_of(above) if files.reader.text_file("train").parent.name == path.name]
    for child in sorted(child for child in path.iterdir() if child.is_dir()):
        found += _sets_of(child)
    return found


def _sets_of(root: Path) -> list[SetFiles]:
    candidates = [_mnre(root), *(_twitter(root, year) for year in YEARS)]
    return [files for files in candidates if files.has_any()]


def _mnre(root: Path) -> SetFiles:
    return SetFiles(MNREReader(root), "mre")


def _twitter(root: Path, year: int) -> SetFiles:
    return SetFiles(TwitterReader(root, year), "mner")


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
