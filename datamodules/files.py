"""Reading files so that every failure names its file."""

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

# Of a part of a path, in bytes, on every file system in use.
LONGEST_NAME = 255
BYTE_ORDER_MARK = "\ufeff"
SHA256_BYTES = 32


@dataclass(frozen=True)
class Malformed:
    """What stands in the place of a row or post that cannot be read.

    Attributes:
        line: its first line, counted from 1.
        error: what is wrong, with file and line.
    """

    line: int
    error: DataError


def well_formed(rows: Iterable[RowT | Malformed]) -> Iterator[RowT]:
    """The rows, where all are well-formed.

    Raises:
        DataError: that of the first one that is not.
    """
    for row in rows:
        if isinstance(row, Malformed):
            raise DataError(
                f"{row.error}; mmib check-data lists all that cannot be read, and of a released set's layout --fix "
                "writes a copy without them"
            ) from row.error
        yield row


def read_lines(path: Path, layout: str) -> Iterator[str]:
    """The lines of a data file one by one, without their ends and without byte-order marks in front.

    Only a line feed ends a line, with or without a carriage return before it: words may hold U+0085 or U+2028, at
    which `str.splitlines` would cut.

    Args:
        path: the file.
        layout: which files are expected where, for the message.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    before = 0
    with open_data(path, layout) as file:
        for line in file:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = before + error.start
                raise DataError(f"{path} is not UTF-8: byte {at} cannot be read; convert the file") from error
            yield (text if before else text.lstrip(BYTE_ORDER_MARK)).removesuffix("\n").removesuffix("\r")
            before += len(line)


@contextlib.contextmanager
def open_data(path: Path, layout: str) -> Iterator[BufferedReader]:
    """A data file, to read.

    Raises:
        DataError: the file is missing or cannot be read; `layout` tells which files are expected where.
    """
    try:
        with path.open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} does not exist; {layout}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


class Digests:
    """SHA-256 of files' contents by path; each file is read once, when it is first asked for."""

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
    """Whether a file is there; a link that leads nowhere is none.

    Raises:
        DataError: it may not be looked for.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path} cannot be looked for: {error.strerror}") from error


def inside(folder: Path, name: str, place: str) -> Path:
    """`folder / name`, refused where the name leads out of the folder.

    Raises:
        DataError: `name` is empty, absolute, too long for any file system, or climbs out; `place` tells where it
            stands.
    """
    # By name alone: links that a user has put into the folder may lead wherever they like.
    path = Path(os.path.normpath(folder / name))
    if "\0" in name or Path(name).is_absolute() or Path(os.path.normpath(folder)) not in path.parents:
        raise DataError(f"{place}: the file name {name!r} is not inside {folder}: name a file in there")
    if any(len(part.encode(errors="surrogatepass")) > LONGEST_NAME for part in path.parts):
        raise DataError(
            f"{place}: the file name {name[:40]!r}… is longer than {LONGEST_NAME} bytes, and no file can have it"
        )
    return path
