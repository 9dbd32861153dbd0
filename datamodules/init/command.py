"""The command `mmib init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.base.wording import counted
from mmib.base.wrapping import hanging
from mmib.datamodules.init.configuration import configuration
from mmib.datamodules.init.labelling import Labelling, labelling
from mmib.datamodules.init.options import add_format_options, given
from mmib.datamodules.init.recognise import find_data
from mmib.datamodules.init.survey import Survey, survey
from mmib.schema import ConfigError, EncoderError, task_named

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer

TOKENIZER = "pip:minilm-l6"


def run(arguments: list[str]) -> int:
    """Inspect and describe data, and write a configuration if requested.

    Raises:
        ConfigError: the options do not fit the data, or the output exists already.
        DataError: the data is missing, of no known format, or cannot be read.
    """
    chosen = _parser().parse_args(arguments)
    _check_output(chosen.output, chosen.force)
    found = find_data(chosen.data, given(chosen))
    task, tokenizer, reader = task_named(found.task), _tokenizer(), found.reader(None)
    if chosen.output is not None:
        check_output(chosen.output, reader.text_files())
    splits = survey(reader, task, tokenizer)
    labels = labelling(found, reader, splits, chosen.negative)
    if found.makes_negatives and labels.labels.negative is not None:
        # Pairs of entities without a relation are rows too.
        splits = survey(found.reader(labels.labels), task, tokenizer)
    _show(f"{chosen.data}: {found.title}, for {found.task}", reader.rows, labels, found.remarks, splits)
    if chosen.output is not None:
        name = re.sub(r"[^\w.-]+", "-", chosen.output.stem) or "run"
        write_text(chosen.output, configuration(name, found, labels, splits, reader.rows))
        print(f"{chosen.output} is written; train with: mmib fit --config {chosen.output}")  # noqa: T201
    return 0


def _check_output(output: Path | None, force: bool) -> None:
    if output is None:
        return
    check_output(output)
    if output.exists() and not force:
        raise ConfigError(f"{output} is there already: name another file with -o, or replace it with --force")


def _tokenizer() -> WordTokenizer | None:
    """The tokenizer of the configuration's text encoder; None if it is not installed."""
    from mmib.encoders.text import load_tokenizer  # noqa: PLC0415 - help needs no torch

    try:
        return load_tokenizer(TOKENIZER)
    except EncoderError:
        return None


def _show(title: str, rows: str, labels: Labelling, remarks: Sequence[str], splits: Sequence[Survey]) -> None:
    console = Console(highlight=False)
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table()
    for heading in ("split", rows, "words, median", "longest", "images found"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for part in splits:
        images = f"{part.images_found:,} of {part.images:,}" if part.images else "none named"
        table.add_row(part.split, f"{part.posts:,}", str(part.median), str(max(part.words, default=0)), images)
    console.print(table)
    for part in splits:
        counts = ", ".join(f"{name} {part.labels[name]:,}" for name in labels.labels.names)
        console.print(Text(hanging(f"{part.split} labels: {counts}", console.width)), soft_wrap=True)
    for remark in [*remarks, *labels.remarks, *_findings(splits)]:
        console.print(Text(hanging(remark, console.width)), soft_wrap=True)


def _findings(splits: Sequence[Survey]) -> list[str]:
    """Findings that would stop a training run or go unnoticed in it."""
    result = []
    malformed: dict[str, list[str]] = {}  # splits that share a file share its errors
    for part in splits:
        if part.malformed:
            count = counted(len(part.malformed), "posts")
            first = f"The first: {part.malformed[0]}; mmib check-data lists all"
            text = f"{count} cannot be read: correct them before you train. {first}"
            malformed.setdefault(text, []).append(part.split)
    result += [f"{', '.join(names)}: {text}" for text, names in malformed.items()]
    images, found = (sum(counts) for counts in zip(*((part.images, part.images_found) for part in splits), strict=True))
    if images and not found:
        folders = " or ".join(dict.fromkeys(str(part.image_folder) for part in splits if part.images))
        result.append(
            f"no image was found in {folders}, so this would train on text alone: name their folder with --images"
        )
    result += [f"{part.split}: {part.note}" for part in splits if part.note]
    missing: dict[Path, list[str]] = {}
    for part in splits:
        if part.images_found < part.images:
            counts = f"{part.images - part.images_found:,} of {counted(part.images, 'images')} of {part.split}"
            missing.setdefault(part.image_folder, []).append(counts)
    if found:
        result += [
            f"not in {folder}: {', '.join(parts)}; --images names another folder" for folder, parts in missing.items()
        ]
    if not any(part.split == "val" for part in splits):
        result.append("there is nothing to validate with: a training needs a validation split")
    if not any(part.split == "test" for part in splits):
        result.append("there is nothing to test with: a training ends with its validation scores")
    return result


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib init",
        description="Inspect the data in a folder or file, report its contents, and write a commented configuration "
        "for mmib fit.",
        epilog="docs/reference/formats.md describes the formats",
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder or file of posts")
    add("-o", "--output", type=Path, metavar="FILE", help="configuration to write (default: only report)")
    add("--force", action="store_true", help="overwrite an existing file")
    add("--negative", metavar="LABEL", help="negative relation (default: the one with a common name)")
    add_format_options(parser)
    return parser
