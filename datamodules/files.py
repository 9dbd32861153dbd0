"""Reading files so that every failure names its file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mmib.schema import DataError


def read_text(path: Path, layout: str) -> str:
    """The text of a data file, its line ends as they are.

    Args:
        path: the file.
        layout: which files are expected where, for the message.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} does not exist; {layout}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start} cannot be read; convert the file") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


class Digests(dict[Path, str]):
    """SHA-256 of files' contents by path; each file is read once, when it is first asked for."""

    def __missing__(self, path: Path) -> str:
        with path.open("rb") as file:
            self[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self[path]


def inside(folder: Path, name: str, place: str) -> Path:
    """`folder / name`, refused where the name leads out of the folder.

    Raises:
        DataError: `name` is empty, absolute, or climbs out; `place` tells where it stands.
    """
    # By name alone: links that a user has put into the folder may lead wherever they like.
    path = Path(os.path.normpath(folder / name))
    if "\0" in name or Path(name).is_absolute() or Path(os.path.normpath(folder)) not in path.parents:
        raise DataError(f"{place}: the file name {name!r} does not lie inside {folder}")
    return path
