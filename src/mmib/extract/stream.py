"""Extraction over a file of posts: in order, in constant memory, and gone on with where it was stopped."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from mmib.base.files import checksum, write_text
from mmib.extract.extractor import POSTS, Extractor
from mmib.extract.pictures import in_threads
from mmib.extract.readers import PreparedPost
from mmib.extract.rows import Row
from mmib.schema import InputError, RunError


def extracted(
    extractor: Extractor, rows: Iterable[Row], evidence: bool = False, samples: int = 0
) -> Iterator[dict[str, Any]]:
    """For each row, in order, what was found in it, or the reason why nothing could be: `row`, `id`, and these."""
    for chunk in _batched(rows):
        prepared = in_threads(partial(_prepared, extractor), chunk)
        good = [post for post in prepared if isinstance(post, PreparedPost)]
        results = iter(extractor.read(good, evidence, samples))
        for row, post in zip(chunk, prepared, strict=True):
            found = next(results).to_dict() if isinstance(post, PreparedPost) else {"error": post}
            yield {"row": row.number, "id": row.id, **found}


def _batched(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    remaining = iter(rows)
    while chunk := tuple(itertools.islice(remaining, POSTS)):
        yield chunk


def _prepared(extractor: Extractor, row: Row) -> PreparedPost | str:
    if row.post is None:
        return str(row.error)
    try:
        return extractor.prepare(row.post)
    except InputError as error:
        return str(error)


class Output:
    """A file of JSON lines that is written beside its name, and gets it when it is complete.

    Args:
        path: the file.
        key: what decides its content; what was written for another key is not gone on with.
        resume: go on with what is there; standard input cannot be read again from its start.

    Raises:
        RunError: what is there was begun with other settings, or cannot be read or written.
    """

    def __init__(self, path: Path, key: dict[str, Any], resume: bool = True) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.settings = path.with_name(f".{path.name}.settings")
        text = json.dumps(key, sort_keys=True)
        try:
            begun = resume and self.part.is_file() and self.settings.is_file()
            if begun and self.settings.read_text(encoding="utf-8") != text:
                raise RunError(
                    f"{self.part} was begun with another model, input or options: go on with these, or remove it"
                )
            self.done = _keep_whole_lines(self.part) if begun else 0
            write_text(self.settings, text)
            self.file: BinaryIO = self.part.open("ab" if self.done else "wb")
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}; choose another place with -o") from error

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records, on disk every few posts, then give the file its name."""
        try:
            with self.file, tqdm(desc="posts", unit="post", initial=self.done) as bar:
                for number, record in enumerate(records, start=1):
                    self.file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
                    bar.update()
                    if number % POSTS == 0:
                        self._settle()
                self._settle()
            self.part.replace(self.path)
            self.settings.unlink()
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error}; make room and start the same again") from error

    def _settle(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def _keep_whole_lines(path: Path) -> int:
    """Cut off a line that was not finished; the number of those that were."""
    lines = end = 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        file.truncate(end)
    return lines


def key_of(sources: Iterable[Path], posts: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What decides the output of an extraction: the models, the input and the options."""
    models = [checksum(path) for source in sources for path in _descriptions(source)]
    return {"models": models, "posts": str(posts), "bytes": posts.stat().st_size, **options}


def _descriptions(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(path for name in ("config.json", "config.yaml") for path in source.rglob(name))
