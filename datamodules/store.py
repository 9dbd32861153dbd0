"""On-disk store of rows that are read and tokenised once: a split of any size takes little memory."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from mmib import datamodules, encoders, tagging
from mmib.base.code import custom_code
from mmib.base.files import atomic_file, checksum, locked
from mmib.datamodules.located import LocatedImages
from mmib.schema import DataError, Example

log = logging.getLogger(__name__)

ExampleT = TypeVar("ExampleT", bound=Example)
# Fields that depend on the images found, and not on the text alone.
NOT_STORED = ("row", "image_id", "pictures")


class TextStore:
    """The rows of a split without their images: one JSON line per row, in a memory-mapped file.

    `<name>.jsonl` holds the rows. `<name>.npz` holds the end of each row, its number of word pieces, the checksum of
    the rows and a note.

    Args:
        path: path of the files without the endings.

    Attributes:
        pieces: (N,) number of word pieces of each row.
        note: remarks on the rows, from the time of writing.

    Raises:
        OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile: the store is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        with np.load(_file(path, ".npz"), allow_pickle=False) as index:
            self._ends: np.ndarray = index["ends"]
            self._starts = np.concatenate([[0], self._ends[:-1]])
            self.pieces: np.ndarray = index["pieces"]
            self.note = str(index["note"])
            expected = str(index["sha256"])
        lines = _file(path, ".jsonl")
        if checksum(lines) != expected:
            raise ValueError("the checksum does not match")
        self._path = lines
        self._lines = np.memmap(lines, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """State for another process, which maps the rows anew."""
        return {name: value for name, value in vars(self).items() if name != "_lines"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lines = np.memmap(self._path, mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> list[Any]:
        """Name of the image, and the stored fields of the example."""
        fields: list[Any] = json.loads(self._lines[self._starts[row] : self._ends[row]].tobytes())
        return fields

    def chosen(self, rows: np.ndarray) -> TextStore:
        """Return a store of only these rows, in this order."""
        part = copy.copy(self)
        part._starts, part._ends, part.pieces = (array[rows] for array in (self._starts, self._ends, self.pieces))
        return part

    def images(self) -> Iterator[str]:
        """The name of each row's image."""
        return (self[row][0] for row in range(len(self)))

    @classmethod
    def opened(cls, path: Path, rows: Iterable[tuple[str, Example]], note: Callable[[], str]) -> TextStore:
        """Open the store at `path`; write it first if it is missing or damaged.

        Args:
            path: path of the files without the endings.
            rows: name of the image and example of each row; read only if they have to be written.
            note: returns remarks on the rows; called after they have been read.

        Raises:
            DataError: reading `rows` raises it, or the folder cannot be written.
        """
        try:
            if (store := cls._found(path)) is not None:
                return store
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(_file(path, ".lock")):
                if (store := cls._found(path)) is None:
                    _write(path, rows, note)
                    store = cls(path)
                return store
        except OSError as error:
            raise DataError(
                f"the tokenised posts {path} cannot be written: {error}; choose another place with --data.cache_dir"
            ) from error

    @classmethod
    def _found(cls, path: Path) -> TextStore | None:
        if not _file(path, ".npz").is_file():
            return None
        try:
            return cls(path)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("the tokenised posts %s are damaged and are made again: %s", path, error)
            return None


def _file(path: Path, ending: str) -> Path:
    # Not with_suffix, which would cut a name like `posts.2024-mner-train` at its dot.
    return path.with_name(path.name + ending)


def _write(path: Path, rows: Iterable[tuple[str, Example]], note: Callable[[], str]) -> None:
    digest, ends, pieces = hashlib.sha256(), [0], []
    with atomic_file(_file(path, ".jsonl")) as file:
        for image, example in rows:
            fields = [image, *(getattr(example, name) for name in stored_fields(type(example)))]
            line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            file.write(line)
            digest.update(line)
            ends.append(ends[-1] + len(line))
            pieces.append(len(example.input_ids))
    # The index is written last: a store exists once its index does.
    with atomic_file(_file(path, ".npz")) as file:
        np.savez(
            file,
            ends=np.array(ends[1:]),
            pieces=np.array(pieces, dtype=np.int32),
            sha256=np.array(digest.hexdigest()),
            note=np.array(note()),
        )


def stored_fields(kind: type[Example]) -> list[str]:
    """Names of the fields of an example that are stored, in order."""
    return [field.name for field in dataclasses.fields(kind) if field.name not in NOT_STORED]


class StoredExamples(Sequence[ExampleT]):
    """Examples of a store and of the images found, created on access.

    Args:
        kind: class of the examples.
        store: their texts.
        images: their images.
    """

    def __init__(self, kind: type[ExampleT], store: TextStore, images: LocatedImages) -> None:
        self._kind = kind
        self._fields = stored_fields(kind)
        self._store = store
        self._images = images

    def __len__(self) -> int:
        return len(self._store)

    @overload
    def __getitem__(self, row: int) -> ExampleT: ...
    @overload
    def __getitem__(self, row: slice) -> list[ExampleT]: ...
    def __getitem__(self, row: int | slice) -> ExampleT | list[ExampleT]:
        """The example of a row, or a list of the examples of a slice."""
        rows = range(len(self))[row]
        return self._make(rows) if isinstance(rows, int) else [self._make(number) for number in rows]

    def sizes(self, cells: int) -> np.ndarray:
        """(N, 2) word pieces and regions of each row, with `cells` regions per image or crop."""
        texts = self._images.text_counts()
        return np.stack([self._store.pieces, (self._images.counts() - texts) * cells + texts], axis=1)

    def looked_for(self) -> np.ndarray:
        """(N,) False for rows whose image has not been looked for."""
        return self._images.looked_for()

    def image_name(self, row: int) -> str:
        """Name of the image that a row's post names; the model may be shown another."""
        name: str = self._store[row][0]
        return name

    def _make(self, row: int) -> ExampleT:
        _, *values = self._store[row]
        image_id, pictures = self._images[row]
        text = dict(zip(self._fields, values, strict=True))
        return self._kind(row=row, image_id=image_id, pictures=pictures, **text)


def code_of(*kinds: type) -> str:
    """SHA-256 of the code that turns text into examples, including that of the classes and their base classes.

    As part of the key of a store, it excludes rows that were stored by older code.
    """
    folders = [Path(module.__file__ or "").parent for module in (datamodules, encoders)]
    bases = {base.__module__ for kind in kinds for base in kind.__mro__ if base.__module__.startswith("mmib.")}
    sources = [getattr(sys.modules[name], "__file__", None) for name in sorted(bases | {tagging.__name__})]
    digest = hashlib.sha256(",".join(map(custom_code, kinds)).encode())
    for path in [
        *(file for folder in folders for file in sorted(folder.glob("*.py"))),
        *(Path(source) for source in sources if source),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
