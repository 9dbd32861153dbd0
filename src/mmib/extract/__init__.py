"""The command `mmib extract`: what models find in the posts of a file, or in one on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmib.base.argument_parser import CommandParser, add_model_options
from mmib.base.files import write_text
from mmib.schema import ConfigError


def run(arguments: list[str]) -> int:
    """Extract; a bad row is reported in the output and ends nothing.

    Raises:
        ConfigError: options that do not go together.
        ExportError: a model that cannot be read.
        TaskError: a model of a task that is not registered.
        PluginError: a plugin cannot be imported.
        DataError: an input that cannot be read.
        InputError: a text on the command line that nothing can be extracted from.
        RunError: an output that cannot be written, or was begun with other settings.
    """
    chosen = _parser().parse_args(arguments)
    if (chosen.text is None) == (chosen.posts is None):
        raise ConfigError("name a file of posts (- for standard input), or give one post with --text")
    if chosen.image is not None and chosen.text is None:
        raise ConfigError("--image belongs to --text: a row of a file names its own image")
    if chosen.samples < 0:
        raise ConfigError(f"--samples is {chosen.samples}: latents are sampled 0 times or more")
    if chosen.graph is not None and (chosen.output is None or chosen.text is not None):
        raise ConfigError(
            "--graph merges what was extracted from a file of posts: name it, and say where the rows go with -o"
        )
    if chosen.graph is not None:
        from mmib.extract.graph import check_format  # noqa: PLC0415 - help needs no networkx

        check_format(chosen.graph)
    return _one(chosen) if chosen.text is not None else _many(chosen)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib extract",
        description="Find entities and relations in posts, and label them. A row is a JSON object, or a line of CSV, "
        "with text and, where there are any, id, image (a path beside the file), crops and entities.",
    )
    add = parser.add_argument
    add("posts", nargs="?", metavar="POSTS", help="a file of JSON lines or CSV, - for JSON lines on standard input")
    add_model_options(parser)
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="JSON lines, a row each, in order; with --text its JSON (default: standard output)",
    )
    add("--text", help="one post, instead of a file")
    add("--image", type=Path, help="its image")
    add("--images", type=Path, metavar="FOLDER", help="where the images of rows lie (default: beside the file)")
    add("--csv", action="store_true", help="the posts are CSV, whatever the file is called")
    add("--evidence", action="store_true", help="report what results rest on: attention, KL, similarity")
    add("--samples", type=int, default=0, help="samples of the latents, two or more, for the spread of confidence")
    add("--graph", type=Path, metavar="FILE", help="merge all triples into a graph: .json, .graphml or .ttl")
    return parser


def _one(chosen: argparse.Namespace) -> int:
    from mmib.extract.extractor import Extractor  # noqa: PLC0415 - help needs no torch

    extractor = Extractor.from_pretrained(*chosen.model, device=chosen.device)
    found = extractor.extract(chosen.text, chosen.image, evidence=chosen.evidence, samples=chosen.samples)
    text = json.dumps(found.to_dict(), ensure_ascii=False, indent=2)
    if chosen.output is None:
        print(text)  # noqa: T201
    else:
        write_text(chosen.output, text + "\n")
    return 0


def _many(chosen: argparse.Namespace) -> int:
    from mmib.extract.extractor import Extractor  # noqa: PLC0415 - help needs no torch
    from mmib.extract.graph import merged, write_graph  # noqa: PLC0415
    from mmib.extract.rows import opened, read_rows  # noqa: PLC0415
    from mmib.extract.stream import Output, extracted, key_of  # noqa: PLC0415

    path = None if chosen.posts == "-" else Path(chosen.posts)
    folder = chosen.images or (Path() if path is None else path.parent)
    is_csv = chosen.csv or (path is not None and path.suffix.lower() == ".csv")
    with opened(path, sys.stdin) as file:
        extractor = Extractor.from_pretrained(*chosen.model, device=chosen.device)
        output = None
        if chosen.output is not None:
            options = {"evidence": chosen.evidence, "samples": chosen.samples, "images": str(folder), "csv": is_csv}
            output = Output(
                chosen.output, {} if path is None else key_of(chosen.model, path, options), path is not None
            )
        rows = read_rows(file, is_csv, folder)
        remaining = (row for row in rows if output is None or row.number > output.done)
        records = extracted(extractor, remaining, chosen.evidence, chosen.samples)
        if output is None:
            for record in records:
                print(json.dumps(record, ensure_ascii=False), flush=True)  # noqa: T201
            return 0
        output.write(records)
    total = errors = 0
    for record in _records(chosen.output):
        total, errors = total + 1, errors + ("error" in record)
    if chosen.graph is not None:
        write_graph(merged(_records(chosen.output)), chosen.graph)
    print(f"{chosen.output}: {total:,} rows, {errors:,} of them could not be read")  # noqa: T201
    return 0


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
