"""Finds the data sets in a folder, and suggests moves of files that are in the wrong places."""

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

# Limits of the search: enough for any release, and small enough for a folder without data.
DEPTH = 3
MOST_FILES = 5_000
MOST_BYTES = 1_000_000
SPLIT_WORDS = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}


def find_sets(path: Path, given: Given | None = None, labels: LabelSet | None = None) -> list[SetFiles]:
    """Return the data sets in a folder or file.

    A folder may be the root of one or several data sets in a released layout, a folder of such roots, or the folder of
    the texts of one. Or it contains, like a file, data of another format that `mmib init` reads.

    Args:
        path: the folder or file.
        given: settings for data of another format.
        labels: label set of the posts; None if it is unknown.

    Raises:
        DataError: there are no readable data; if files are only in the wrong places, the message lists the moves.
        ConfigError: there are several data sets of other formats, and `given` does not select one.
    """
    found = _released(path) if path.is_dir() else []
    if found:
        return found
    try:
        data = find_data(path, given or Given())
    except DataError as error:
        # Splits can share a folder of images.
        found_moves = dict.fromkeys(move for file in _texts(path) for move in _moves(file))
        moves = "".join(f"\n  {move}" for move in found_moves)
        if not moves:
            raise
        raise DataError(
            f"{path} holds no data set in a known layout, but files of one. Arrange them like this, with ROOT for what "
            f"--data.root will name:{moves}"
        ) from error
    return [SetFiles(data.reader(labels), data.task, data.title, data.remarks)]


def _released(path: Path) -> list[SetFiles]:
    """The data sets in a released layout."""
    found = _sets_of(path)
    if not found and path.name in ("txt", *(f"twitter{year}" for year in YEARS)):
        # If the path is the folder of the texts, the root is the folder above it.
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
    """Yield the moves of a text file and its images to the right places."""
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
    """Yield a folder and the folders below it, up to limits of depth and number of files."""
    seen = 0
    for where, folders, files in os.walk(path):
        seen += len(files) + 1
        if seen > MOST_FILES or len(Path(where).relative_to(path).parts) >= DEPTH:
            folders.clear()
        yield Path(where)
