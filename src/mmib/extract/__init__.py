"""The command `mmib extract`: extract entities, relations and labels from a file of posts or from one post."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mmib.base.argument_parser import CommandParser, add_model_options
from mmib.base.files import check_output, is_stream, write_text
from mmib.base.wording import counted
from mmib.datamodules.raw_rows import EVERY_ROW, count_rows, is_csv_file
from mmib.extract.shards import Shard, is_complete, note_shard
from mmib.extract.workers import by_workers, shards_begun
from mmib.schema import ConfigError

if TYPE_CHECKING:
    from mmib.extract.extractor import Extractor

STANDARD_INPUT = 0


def run(arguments: list[str]) -> int:
    """Extract; a bad row is reported in the output and does not stop the run.

    Raises:
        ConfigError: options that contradict each other.
        ExportError: a model that cannot be read.
        EncoderError: the packages of the runtime are not installed, or it cannot run an image encoder.
        TaskError: a model of a task that is not registered.
        PluginError: a plugin cannot be imported.
        DataError: an input that cannot be read.
        InputError: a text on the command line from which nothing can be extracted.
        RunError: the output cannot be written, was begun with other settings, or is being written by another process.
    """
    chosen = _parsed(arguments)
    if (chosen.text is None) == (chosen.posts is None):
        raise ConfigError("name a file of posts (- for standard input), or give one post with --text")
    if chosen.image is not None and chosen.text is None:
        raise ConfigError("--image belongs to --text: a row of a file names its own image")
    if chosen.samples < 0 or chosen.samples == 1:
        raise ConfigError(f"--samples is {chosen.samples}: a spread takes two samples or more, and 0 asks for none")
    if chosen.graph is not None and (chosen.output is None or chosen.text is not None):
        raise ConfigError("--graph merges the results for a file of posts: name the file, and the output with -o")
    _check_outputs(chosen)
    _check_shards(chosen)
    if chosen.text is not None:
        return _one(chosen)
    if chosen.output is None or is_stream(chosen.output):
        return _to_stream(chosen)
    if chosen.workers > 1 or _continues_shards(chosen):
        by_workers(_shard, arguments, chosen.workers, chosen.output)
    else:
        _to_file(chosen)
    return _finish(chosen.output, chosen.graph)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    chosen: argparse.Namespace = _parser().parse_args(arguments)
    chosen.shard = None if chosen.shard is None else Shard.parse(chosen.shard)
    return chosen


def _check_outputs(chosen: argparse.Namespace) -> None:
    """Refuse outputs that would overwrite an input or each other, and graphs that cannot be written."""
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
            f"--graph reads the output again and writes a second file: give -o a file that is neither {chosen.graph} "
            "nor a pipe or device"
        )


def _check_shards(chosen: argparse.Namespace) -> None:
    """Refuse --shard and --workers if the input cannot be read more than once or the output is not a file."""
    if chosen.workers < 1:
        raise ConfigError(f"--workers is {chosen.workers}: at least one process is needed")
    if chosen.shard is None and chosen.workers == 1:
        return
    if chosen.shard is not None and chosen.workers > 1:
        raise ConfigError("--shard selects the rows of one process: leave out one of --shard and --workers")
    if not _can_reread(chosen.posts) or not chosen.output or is_stream(chosen.output):
        raise ConfigError("--shard and --workers read a file of posts, and write another: name it with -o")
    if chosen.shard is not None and chosen.graph is not None:
        raise ConfigError(
            "--graph merges all rows, and a shard holds a part of them: merge the shards first, then run mmib graph"
        )


def _can_reread(posts: str | None) -> bool:
    """Whether the posts are in a file, and not from standard input, a pipe or a device."""
    return posts is not None and posts != "-" and not is_stream(Path(posts))


def _continues_shards(chosen: argparse.Namespace) -> bool:
    """Whether the output was begun with --workers."""
    return chosen.shard is None and _can_reread(chosen.posts) and shards_begun(chosen.output) > 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib extract",
        description="Extract entities and relations from posts. A row is a JSON object or a line of CSV with text "
        "and, optionally, id, image (path relative to the file), crops and entities.",
    )
    add = parser.add_argument
    add("posts", nargs="?", metavar="POSTS", help="JSON lines or CSV file, may be gzipped (.gz); - for standard input")
    add_model_options(parser)
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="output file: one JSON line per row, in order; with --text one JSON object (default: standard output)",
    )
    add("--text", help="text of one post, instead of a file")
    add("--image", type=Path, help="image for --text")
    add("--images", type=Path, metavar="FOLDER", help="folder of the images (default: the folder of the file)")
    add("--csv", action="store_true", help="read CSV, whatever the file extension")
    add("--evidence", action="store_true", help="also report the evidence for each result: attention, KL, similarity")
    add("--samples", type=int, default=0, help="latent samples to estimate the spread of confidence, two or more")
    add(
        "--shard",
        metavar="I/N",
        help="process one shard of the rows, such as 3/64, for job arrays (see mmib merge-shards)",
    )
    add("--workers", type=int, default=1, help="number of processes, which share cores and rows (default: %(default)s)")
    add("--graph", type=Path, metavar="FILE", help="also merge all triples into a graph: .json, .graphml or .ttl")
    return parser


def _one(chosen: argparse.Namespace) -> int:
    found = _extractor(chosen).extract(chosen.text, chosen.image, evidence=chosen.evidence, samples=chosen.samples)
    text = json.dumps(found.to_dict(), ensure_ascii=False, indent=2)
    if chosen.output is None:
        print(text)  # noqa: T201
    else:
        write_text(chosen.output, text + "\n")
    return 0


def _to_stream(chosen: argparse.Namespace) -> int:
    from mmib.extract.rows import opened, read_rows  # noqa: PLC0415 - help needs no torch
    from mmib.extract.stream import extracted, line_of  # noqa: PLC0415

    path, folder, is_csv = _source(chosen)
    with opened(path, sys.stdin) as file:
        records = extracted(_extractor(chosen), read_rows(file, is_csv, folder), chosen.evidence, chosen.samples)
        with nullcontext(sys.stdout) if chosen.output is None else chosen.output.open("w", encoding="utf-8") as to:
            for record in records:
                print(line_of(record), end="", file=to, flush=True)
    return 0


def _to_file(chosen: argparse.Namespace) -> None:
    from mmib.export.hub import located  # noqa: PLC0415 - help needs no torch
    from mmib.extract.extractor import POSTS  # noqa: PLC0415
    from mmib.extract.rows import opened, read_rows  # noqa: PLC0415
    from mmib.extract.stream import Output, extracted, key_of  # noqa: PLC0415

    path, folder, is_csv = _source(chosen)
    with opened(path, sys.stdin) as file:
        sources = [located(source) for source in chosen.model]
        options = {
            "evidence": chosen.evidence,
            "samples": chosen.samples,
            "runtime": chosen.runtime,
            "precision": chosen.precision,
            "images": str(folder.resolve()),
            "csv": is_csv,
        }
        can_resume = _can_reread(chosen.posts)
        key = key_of(sources, file, options) if can_resume else {}
        wanted = EVERY_ROW
        if chosen.shard is not None:
            if is_complete(chosen.output, chosen.shard, key):
                return
            with opened(path, sys.stdin) as again:
                wanted = chosen.shard.rows(count_rows(again, is_csv), POSTS)
        extractor = _extractor(chosen)
        output = Output(chosen.output, {**key, "shard": str(chosen.shard)} if chosen.shard else key, can_resume)
        rows = read_rows(file, is_csv, folder, wanted[output.done :])
        output.write(extracted(extractor, rows, chosen.evidence, chosen.samples))
    if chosen.shard is not None:
        note_shard(chosen.output, chosen.shard, key)


def _shard(arguments: list[str], shard: Shard, output: Path) -> None:
    """Extract one shard, in a worker process."""
    chosen = _parsed(arguments)
    chosen.shard, chosen.output = shard, output
    _to_file(chosen)


def _source(chosen: argparse.Namespace) -> tuple[Path | None, Path, bool]:
    """Return the file of posts (None for standard input), the folder of the images, and whether the file is CSV."""
    path = None if chosen.posts == "-" else Path(chosen.posts)
    folder = chosen.images or (Path() if path is None else path.parent)
    return path, folder, chosen.csv or (path is not None and is_csv_file(path))


def _extractor(chosen: argparse.Namespace) -> Extractor:
    from mmib.extract.extractor import Extractor  # noqa: PLC0415 - help needs no torch

    options = {"device": chosen.device, "runtime": chosen.runtime, "precision": chosen.precision}
    return Extractor.from_pretrained(*chosen.model, **options)


def _finish(output: Path, graph: Path | None) -> int:
    """Print the number of rows and errors in the output, and merge its triples into a graph."""
    total = errors = given = 0
    first = ""
    with output.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            total += 1
            if "error" in record:
                errors += 1
                first = first or f"row {record['row']}: {record['error']}"
            # Only entities that came with the post have no confidence.
            given += any(entity["confidence"] is None for entity in record.get("entities", ()))
    if graph is not None:
        from mmib.extract.graph import graph_of, write_graph  # noqa: PLC0415 - help needs no networkx

        write_graph(graph_of([output]), graph)
    print(f"{output}: {counted(total, 'rows')}, {errors:,} of them could not be read")  # noqa: T201
    if first:
        print(f"  the first, {first}")  # noqa: T201
    if given:
        print(f"  {counted(given, 'rows')} with entities given: these were used, and no others searched for")  # noqa: T201
    return 0
