"""File reading with error messages that name the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from mmib.base.files import checksum
from mmib.datamodules.tables import HashedTable
from mmib.schema import DataError

RowT = TypeVar("RowT")

# Maximum length of a path component, in bytes, on common file systems.
LONGEST_NAME = 255
BYTE_ORDER_MARK = "\ufeff"
SHA256_BYTES = 32


@dataclass(frozen=True)
class Malformed:
    """Placeholder for a row or post that cannot be read.

    Attributes:
        line: its first line, counted from 1.
        error: the error, with file and line.
    """

    line: int
    error: DataError


def well_formed(rows: Iterable[RowT | Malformed]) -> Iterator[RowT]:
    """Yield the rows if all are well-formed.

    Raises:
        DataError: the error of the first malformed row.
    """
    for row in rows:
        if isinstance(row, Malformed):
            raise DataError(
                f"{row.error}; mmib check-data lists all that cannot be read, and of a released set's layout --fix "
                "writes a copy without them"
            ) from row.error
        yield row


def read_lines(path: Path, layout: str) -> Iterator[str]:
    """Yield the lines of a data file without line ends and without leading byte-order marks.

    Only a line feed ends a line, with or without a carriage return before it: words may contain U+0085 or U+2028, at
    which `str.splitlines` would split.

    Args:
        path: the file.
        layout: description of the expected files, for the message.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    before = 0
    with open_data(path, layout) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = before + error.start
                raise DataError(
                    f"{path}:{number} is not UTF-8: byte {at} of the file cannot be read; convert it"
                ) from error
            yield (text if before else text.lstrip(BYTE_ORDER_MARK)).removesuffix("\n").removesuffix("\r")
            before += len(line)


@contextlib.contextmanager
def open_data(path: Path, layout: str) -> Iterator[BufferedReader]:
    """Open a data file for reading.

    Raises:
        DataError: the file is missing or cannot be read; the message ends with `layout`, the expected files.
    """
    try:
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} does not exist; {layout}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


class Digests:
    """SHA-256 of files' contents by path; each file is read once, on first access."""

    def __init__(self) -> None:
        self._numbers = HashedTable()
        self._digests = bytearray()

    def __getitem__(self, path: Path) -> str:
        number = self._numbers.get(str(path))
        if number is None:
            digest = bytes.fromhex(checksum(path))
            number = self._numbers.setdefault(str(path), len(self._numbers))
            self._digests += digest
        return self._digests[number * SHA256_BYTES : (number + 1) * SHA256_BYTES].hex()


def is_there(path: Path) -> bool:
    """Whether a file exists; a broken link does not count.

    Raises:
        DataError: the path cannot be accessed.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path} cannot be looked for: {error.strerror}") from error


def image_root(root: Path, image_folder: Path) -> Path:
    """Return the folder to which the image paths of prediction files are relative.

    It is the data folder, or the folder of the images if that is outside of it.
    """
    # By name alone, as in `inside`.
    whole, part = (Path(os.path.normpath(folder.absolute())) for folder in (root, image_folder))
    return root if part.is_relative_to(whole) else image_folder


def inside(folder: Path, name: str, place: str) -> Path:
    """Return `folder / name` if it is inside the folder.

    Raises:
        DataError: `name` is empty, absolute, too long for any file system, or outside the folder; the message starts
            with `place`, the location of the name.
    """
    # By name alone: links that a user has put into the folder may point anywhere.
    path = Path(os.path.normpath(folder / name))
    if "\0" in name or Path(name).is_absolute() or Path(os.path.normpath(folder)) not in path.parents:
        raise DataError(f"{place}: the file name {name!r} is not inside {folder}: name a file in there")
    if any(len(part.encode(errors="surrogatepass")) > LONGEST_NAME for part in path.parts):
        raise DataError(
            f"{place}: the file name {name[:40]!r}… is longer than {LONGEST_NAME} bytes, and no file can have it"
        )
    return path
