"""Files: atomic writing, locks, checksums, and readers of YAML and JSON with uniform errors."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml

from mmib.schema import ConfigError

# Maximum number of values of a YAML file with its aliases expanded. No real configuration comes near it, but with
# nested aliases a file of ten lines can exceed it so far that printing or comparing it would never end.
MOST_VALUES = 100_000
# Linux constants of `renameat2`: paths relative to the working directory, and an exchange of two of them.
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when it is complete and on disk.

    Links are followed, and their target is replaced. An existing pipe or device, such as /dev/null, is written to
    directly.
    """
    if is_stream(path):
        with named(path), path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not from tempfile, whose files are readable by their owner only, while a run folder may belong to a group.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with named(path), temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_stream(path: Path) -> bool:
    """Whether the path is a pipe, a device or a socket, which cannot be replaced or read twice."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_output(output: Path, inputs: Iterable[Path | int] = ()) -> None:
    """Check that an output file can be written, and is not one of the inputs under the same or another name.

    Args:
        output: the file to write.
        inputs: files to read, by name or descriptor, and folders whose files are read.

    Raises:
        ConfigError: If it is one of the inputs, a folder, or inaccessible, such as a link to itself.
    """
    try:
        found = output.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"the output {output} cannot be written: {error.strerror}; name another file") from error
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"the output {output} is a folder: name a file")
    if not stat.S_ISREG(found.st_mode):
        return
    for file in itertools.chain.from_iterable(map(_files_of, inputs)):
        with contextlib.suppress(OSError):  # its reader reports a missing input
            if os.path.samestat(found, os.fstat(file) if isinstance(file, int) else file.stat()):
                name = "standard input" if isinstance(file, int) else file
                raise ConfigError(f"the output {output} is the input {name}: name another file")


def _files_of(path: Path | int) -> Iterable[Path | int]:
    if isinstance(path, int) or not path.is_dir():
        return (path,)
    return (Path(folder, name) for folder, _, names in os.walk(path) for name in names)


def is_file(path: Path) -> bool:
    """Whether the file exists; False for a name that is invalid as a file name."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether the folder exists; False for a name that is invalid as a file name."""
    try:
        return path.is_dir()
    except OSError:
        return False


def user_cache() -> Path:
    """Return the user's cache folder for what mmib computes or downloads once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmib"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Return a context that adds the file's name to an `OSError` without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Return a context that holds an exclusive lock on a file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_folder(folder: Path, new: Path) -> None:
    """Rename a new folder to its final name; an existing folder of that name is replaced atomically, and removed.

    If the system cannot exchange names, there is an instant in which neither folder has the name.

    Raises:
        OSError: If the folder cannot be renamed.
    """
    old = new
    try:
        _exchange(folder, new)
    except OSError:  # for example because there is no folder of this name
        old = new.with_name(f"{new.name}.old")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # left behind by an interrupted call
            folder.rename(old)
        new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one), None, str(other))


def checksum(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8, no plain YAML, or too large; the message has one line.
    """
    text = path.read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
        count = _values(content, {})
    # PyYAML raises many types of errors: AttributeError for an invalid date, IndexError for an empty !!int.
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if count > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values when its aliases are expanded")
    return content


def _values(content: Any, known: dict[int, float]) -> float:
    """Return the number of values in a container, itself included; infinite if it contains itself."""
    if not isinstance(content, dict | list | tuple | set):
        return 1
    if id(content) not in known:
        known[id(content)] = float("inf")  # until it is counted, so that a cycle ends here
        items = [*content.keys(), *content.values()] if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(item, known) for item in items)
    return known[id(content)]


def parse_json(text: str, allow_nan: bool = False) -> Any:
    """Parse a JSON text, and ensure that the result can be written as JSON in UTF-8 again.

    Args:
        text: the text.
        allow_nan: accept NaN and infinities, which are not valid JSON but may be scores of a run.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, or has a number that overflows or an unpaired surrogate.
    """
    text = text.lstrip("\ufeff")  # byte-order marks of concatenated files
    try:
        content = json.loads(text) if allow_nan else json.loads(text, parse_constant=_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        near = error.object[max(error.start - 30, 0) : error.start + 30]
        raise ValueError(f"it holds an unpaired surrogate, which is not a character, in {near!r}") from error
    return content


def _constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"it holds {digits[:40]}, a number beyond all bounds")
    return number
