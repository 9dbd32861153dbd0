"""The command `mmib extract`: what models find in the posts of a file, or in one on the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmib.base.argument_parser import CommandParser, add_model_options
from mmib.base.files import check_output, is_stream, write_text
from mmib.schema import ConfigError

STANDARD_INPUT = 0


def run(arguments: list[str]) -> int:
    """Extract; a bad row is reported in the output and ends nothing.

    Raises:
        ConfigError: options that do not go together.
        ExportError: a model that cannot be read.
        EncoderError: the packages of the runtime are not installed, or it cannot run an image encoder.
        TaskError: a model of a task that is not registered.
        PluginError: a plugin cannot be imported.
        DataError: an input that cannot be read.
        InputError: a text on the command line that nothing can be extracted from.
        RunError: an output that cannot be written, was begun with other settings, or is being written.
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
    _check_outputs(chosen)
    return _one(chosen) if chosen.text is not None else _many(chosen)


def _check_outputs(chosen: argparse.Namespace) -> None:
    """Refuse outputs that would destroy an input or each other, and a graph that cannot be written."""
    posts = STANDARD_INPUT if chosen.posts == "-" else chosen.posts and Path(chosen.posts)
    inputs = [*chosen.model, *(source for source in (posts, chosen.image) if source is not None)]
    if chosen.output is not None:
        check_output(chosen.output, inputs)
    if chosen.graph is None:
        return
    from mmib.extract.graph import check_format  # noqa: PLC0415 - help needs no networkx

    check_format(chosen.graph)
    check_output(chosen.graph, inputs)
    if is_stream(chosen.output) or os.path.realpath(chosen.graph) == os.path.realpath(chosen.output):
        raise ConfigError(
            f"--graph reads the rows once more, and writes another file: give -o a file that is neither {chosen.graph} "
            "nor a pipe or device"
        )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib extract",
        description="Find entities and relations in posts, and label them. A row is a JSON object, or a line of CSV, "
        "with text and, where there are any, id, image (a path beside the file), crops and entities.",
    )
    add = parser.add_argument
    add("posts", nargs="?", metavar="POSTS", help="a file of JSON lines or CSV, maybe with .gz, - for standard input")
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

    extractor = Extractor.from_pretrained(*chosen.model, device=chosen.device, runtime=chosen.runtime)
    found = extractor.extract(chosen.text, chosen.image, evidence=chosen.evidence, samples=chosen.samples)
    text = json.dumps(found.to_dict(), ensure_ascii=False, indent=2)
    if chosen.output is None:
        print(text)  # noqa: T201
    else:
        write_text(chosen.output, text + "\n")
    return 0


def _many(chosen: argparse.Namespace) -> int:
    from mmib.export.hub import located  # noqa: PLC0415 - help needs no torch
    from mmib.extract.extractor import Extractor  # noqa: PLC0415
    from mmib.extract.rows import opened, read_rows  # noqa: PLC0415
    from mmib.extract.stream import Output, extracted, key_of, line_of  # noqa: PLC0415

    path = None if chosen.posts == "-" else Path(chosen.posts)
    folder = chosen.images or (Path() if path is None else path.parent)
    is_csv = chosen.csv or (path is not None and path.name.lower().removesuffix(".gz").endswith(".csv"))
    with opened(path, sys.stdin) as file:
        sources = [located(source) for source in chosen.model]
        extractor = Extractor.from_pretrained(*sources, device=chosen.device, runtime=chosen.runtime)
        if chosen.output is None or is_stream(chosen.output):
            records = extracted(extractor, read_rows(file, is_csv, folder), chosen.evidence, chosen.samples)
            with nullcontext(sys.stdout) if chosen.output is None else chosen.output.open("w", encoding="utf-8") as to:
                for record in records:
                    print(line_of(record), end="", file=to, flush=True)
            return 0
        options = {
            "evidence": chosen.evidence,
            "samples": chosen.samples,
            "runtime": chosen.runtime,
            "images": str(folder.resolve()),
            "csv": is_csv,
        }
        can_resume = path is not None and not is_stream(path)
        output = Output(chosen.output, key_of(sources, file, options) if can_resume else {}, can_resume)
        rows = (row for row in read_rows(file, is_csv, folder) if row.number > output.done)
        output.write(extracted(extractor, rows, chosen.evidence, chosen.samples))
    return _finish(chosen.output, chosen.graph)


def _finish(output: Path, graph: Path | None) -> int:
    """Say what is in the output, and merge it into a graph."""
    from mmib.extract.graph import merged, write_graph  # noqa: PLC0415 - help needs no networkx

    total = errors = 0
    for record in _records(output):
        total, errors = total + 1, errors + ("error" in record)
    if graph is not None:
        write_graph(merged(_records(output)), graph)
    print(f"{output}: {total:,} rows, {errors:,} of them could not be read")  # noqa: T201
    return 0


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
