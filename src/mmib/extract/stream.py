"""Extraction over a file of posts: in order, in constant memory, and resumable."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from mmib.base.files import checksum, write_text
from mmib.extract.extractor import POSTS, Extractor
from mmib.extract.pictures import in_threads
from mmib.extract.readers import PreparedPost
from mmib.extract.rows import Row
from mmib.extract.shards import part_file, settings_file
from mmib.runs.checkpoints import run_of
from mmib.schema import InputError, RunError


def extracted(
    extractor: Extractor, rows: Iterable[Row], evidence: bool = False, samples: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield a record per row, in order: `row`, `id`, and the extraction, or `error` with the reason for having none."""
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


def line_of(record: dict[str, Any]) -> str:
    """Format a record as a line of JSON; a record with values that JSON cannot represent becomes an error."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        error = "the model gives no finite result for this post"
        return json.dumps({"row": record["row"], "id": record["id"], "error": error}, ensure_ascii=False) + "\n"


class Output:
    """An output file of JSON lines, written under a temporary name and renamed when complete.

    Args:
        path: the file; links are followed.
        key: what determines the content; output for another key is not resumed.
        resume: resume a partial output; False for standard input, which cannot be read again from its start.

    Attributes:
        done: number of rows already written.

    Raises:
        RunError: the partial output was begun with other settings, cannot be read or written, or is being written by
            another process.
    """

    def __init__(self, path: Path, key: dict[str, Any], resume: bool = True) -> None:
        self.path = Path(os.path.realpath(path))
        self.part = part_file(self.path)
        self.settings = settings_file(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self._opened()
            with contextlib.ExitStack() as closing:
                closing.callback(self.file.close)
                self.done = self._begun(json.dumps(key, sort_keys=True), resume)
                closing.pop_all()
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}; choose another place with -o") from error

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records, synced to disk every `POSTS` rows, then rename the file."""
        try:
            with self.file, tqdm(desc="posts", unit="post", initial=self.done) as bar:
                for number, record in enumerate(records, start=1):
                    self.file.write(line_of(record).encode())
                    bar.update()
                    if number % POSTS == 0:
                        self._settle()
                self._settle()
                # Rename before closing, so that no other process takes the partial file for an abandoned one.
                self.part.replace(self.path)
                self.settings.unlink()
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error}; free disk space and start the same again"
            ) from error

    def _opened(self) -> BinaryIO:
        """Open the partial file, locked against other processes."""
        while True:
            file = self.part.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise RunError(
                    f"another process is writing {self.path}: wait until it ends, or choose another output with -o"
                ) from error
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self.part.stat(), os.fstat(file.fileno())):
                    return file
            file.close()  # its process has just completed it

    def _begun(self, key: str, resume: bool) -> int:
        """Return the number of complete rows written for the same key; truncate anything else."""
        rows, end = _whole_lines(self.part)
        known = self.settings.read_text(encoding="utf-8") if self.settings.is_file() else None
        if rows and known not in (None, key):
            raise RunError(
                f"{self.part} was begun with another model, input or options: continue with these, or remove it"
            )
        resumed = resume and known == key
        self.file.truncate(end if resumed else 0)
        write_text(self.settings, key)
        return rows if resumed else 0

    def _settle(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def _whole_lines(path: Path) -> tuple[int, int]:
    """Return the number of complete lines of a file, and their size in bytes."""
    lines = end = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
    return lines, end


def key_of(sources: Iterable[Path], posts: BufferedReader, options: dict[str, Any]) -> dict[str, Any]:
    """Return what determines the output of an extraction: the contents of the models and of the input, and the options.

    Raises:
        OSError: a file cannot be read.
    """
    models = [checksum(path) for source in sources for path in _files_of(source)]
    digest = hashlib.file_digest(posts, "sha256").hexdigest()
    posts.seek(0)
    return {"mmib": metadata.version("mmib"), "models": models, "posts": digest, **options}


def _files_of(source: Path) -> list[Path]:
    """Files of a model that affect its results; an export's config.json has the checksums of the others."""
    from mmib.export.model import BEST  # noqa: PLC0415 - help needs no torch

    is_checkpoint = source.is_file()
    run = run_of(source) if is_checkpoint else source
    if not (run / "config.yaml").is_file():
        return [source] if is_checkpoint else sorted(source.rglob("config.json"))
    names = ("config.yaml", "summary.json", "predictions/val.jsonl", "predictions/labels.json")
    files = [source if is_checkpoint else source / BEST, *(run / name for name in names)]
    return [file for file in files if file.is_file()]
