"""Fuzz targets for the inputs of `mmib extract`: untrusted exports, and posts in JSON lines and CSV."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import random
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from experiments.robustness.mutations import mutate_bytes
from experiments.robustness.target import Target, check, plain, structured
from experiments.robustness.tiny_export import write_tiny_export
from mmib.base.files import checksum, parse_json
from mmib.export.folder import CONFIG, DIGEST, TEXT_ENCODER, WEIGHTS, digest_of, read_export
from mmib.extract.extractor import Extractor, Post
from mmib.extract.rows import Row, read_rows
from mmib.extract.stream import extracted, line_of
from mmib.schema import DataError

POSTS = [{"id": "a", "text": "anna met bob in paris"}, {"text": "carl", "image": "gone.jpg", "crops": [[0, 0, 1, 1]]}]


@functools.cache
def tiny_export() -> Path:
    """Export a tiny model, once per process."""
    folder = tempfile.mkdtemp(prefix="mmib-fuzz-")
    return write_tiny_export(Path(folder, "export"))


@functools.cache
def _extractor() -> Extractor:
    return Extractor.from_pretrained(tiny_export())


def _file(name: str) -> bytes:
    return (tiny_export() / name).read_bytes()


def _json(tree: Any) -> bytes:
    return json.dumps(tree, default=str, skipkeys=True).encode()


def _json_lines(rows: Any) -> bytes:
    return b"\n".join(map(_json, rows if isinstance(rows, list) else [rows]))


# Exports


def _forged(folder: Path, name: str) -> Path:
    """Replace a file of an export by the input, and update the digests as a malicious writer of exports would."""
    export = folder / "export"
    shutil.rmtree(export, ignore_errors=True)
    shutil.copytree(tiny_export(), export)
    shutil.copyfile(folder / "input", export / name)
    try:
        config = parse_json((export / CONFIG).read_text(encoding="utf-8"), allow_nan=True)
        config["files"] = {
            name: {"bytes": (export / name).stat().st_size, "sha256": checksum(export / name)}
            for name in config["files"]
        }
        text = json.dumps(config | {DIGEST: digest_of(config)})
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return export  # if it cannot be signed, it is read unsigned
    (export / CONFIG).write_text(text, encoding="utf-8")
    return export


def _read_export(name: str, folder: Path) -> None:
    export = _forged(folder, name)
    with _no_network():
        models = read_export(export)
        extractor = Extractor(models)
        rows = [Row(1, 1, Post("anna met bob in paris")), Row(2, 2, Post("carl"))]
        lines = list(map(line_of, extracted(extractor, rows, evidence=True)))
    check([json.loads(line)["row"] for line in lines] == [1, 2], f"{lines}")
    check(all(parse_json(line) for line in lines), f"{lines}")


@contextmanager
def _no_network() -> Iterator[None]:
    asked: list[Any] = []

    def ask(*arguments: Any) -> None:
        asked.append(arguments[-2:])
        raise OSError("there is no network")

    with mock.patch.object(socket.socket, "connect", ask), mock.patch.object(socket, "getaddrinfo", ask):
        yield
    check(not asked, f"the network was asked: {asked}")


def _export_target(name: str) -> Target:
    def tree() -> Any:
        return json.loads(_file(name))

    def mutated(rng: random.Random) -> bytes:
        return structured("input", [tree()], _json, functools.partial(_read_export, name)).mutated(rng)

    return Target("input", lambda rng: _file(name), mutated, functools.partial(_read_export, name))


def _mutate_header(rng: random.Random) -> bytes:
    """Mutate weights: usually the header, sometimes any byte."""
    data = _file(WEIGHTS)
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.2:
        return mutate_bytes(rng, data)
    header = mutate_bytes(rng, data[8 : 8 + length])
    size = struct.pack("<Q", len(header)) if rng.random() < 0.8 else mutate_bytes(rng, data[:8])
    return size + header + data[8 + length :]


# Posts


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("id", "text", "image", "crops"))
    writer.writeheader()
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            writer.writerow({name: row[name] for name in row.keys() & set(writer.fieldnames)})
    return text.getvalue().encode("utf-8", "surrogatepass")


def _read_posts(is_csv: bool, folder: Path) -> None:
    with (folder / "posts").open("rb") as file:
        rows = list(read_rows(file, is_csv, folder))
    check([row.number for row in rows] == list(range(1, len(rows) + 1)), f"{rows}")
    check(all((row.post is None) == (row.error is not None) for row in rows), f"{rows}")
    lines = list(map(line_of, extracted(_extractor(), rows)))
    check(len(lines) == len(rows) and all(line.endswith("\n") for line in lines), f"{lines}")
    for row, line in zip(rows, lines, strict=True):
        found = parse_json(line.encode().decode())
        check(found["row"] == row.number and ("error" in found or "entities" in found), line)
    for row in rows:
        if row.error is not None:  # a row was refused, and the others were read
            raise DataError(row.error)


def _posts_target(write: Callable[[Any], bytes], is_csv: bool) -> Target:
    return structured("posts", [POSTS, POSTS * 20], write, functools.partial(_read_posts, is_csv))


def _compressed(rng: random.Random) -> bytes:
    return gzip.compress(_json_lines(POSTS * rng.randint(1, 50)), mtime=0)


def extraction_targets() -> dict[str, Target]:
    """Return all of these targets, by name."""
    return {
        "export descriptions": _export_target(CONFIG),
        "export encoders": _export_target(f"{TEXT_ENCODER}/config.json"),
        "export tokenizers": _export_target(f"{TEXT_ENCODER}/tokenizer.json"),
        "export settings": _export_target(f"{TEXT_ENCODER}/tokenizer_config.json"),
        "export weights": Target(
            "input", lambda rng: _file(WEIGHTS), _mutate_header, functools.partial(_read_export, WEIGHTS)
        ),
        "posts in JSON lines": _posts_target(_json_lines, is_csv=False),
        "posts in CSV": _posts_target(_csv, is_csv=True),
        "compressed posts": plain("posts", _compressed, functools.partial(_read_posts, False)),
    }
