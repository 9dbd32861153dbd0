"""The command `mmib check-data`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.base.wording import counted
from mmib.base.wrapping import hanging
from mmib.datamodules.check import (
    Pieces,
    SetReport,
    SplitReport,
    check_set,
    every_finding,
    find_sets,
    status,
    write_repaired,
)
from mmib.datamodules.check.findings import Finding
from mmib.datamodules.check.sets import SetFiles
from mmib.datamodules.check.side_texts import excuse_other_sets
from mmib.datamodules.init.options import add_format_options, given
from mmib.datamodules.labels import label_set
from mmib.datamodules.released import KNOWN_LABELS
from mmib.datamodules.side_texts import SideTexts
from mmib.encoders.text import load_tokenizer
from mmib.labels import LabelSet

# Headings of counts; other counts have their names as headings, such as "posts".
HEADINGS = {"negative": "negative class", "entities_strict": "in strict IOB2"}
LABELS_SHOWN = 100
MARKS = {"note": ("note", "cyan"), "problem": ("problem", "yellow"), "unreadable": ("cannot be read", "red")}
MEANINGS = ("fine", "problems that would stop a training run or go unnoticed", "something cannot be read")
NO_TOKENIZER = "none"


def run(arguments: list[str]) -> int:
    """Check the data sets of a folder, and write a repaired copy if requested.

    Returns:
        0 fine, 1 problems, 2 something cannot be read; with a repaired copy, the status of the copy.
    """
    chosen = _parser().parse_args(arguments)
    console = Console(stderr=chosen.json == Path("-"), highlight=False)
    labels = None if chosen.labels is None else label_set(chosen.labels)
    pieces = _pieces(chosen.tokenizer, chosen.max_length)
    texts = None if chosen.side_text is None else SideTexts(chosen.side_text, chosen.side_text_models)

    def checked(sets: Sequence[SetFiles]) -> dict[str, Any]:
        """Check data sets and print the reports; return the content of the JSON file."""
        reports = [check_set(files, pieces, chosen.max_missing_images, labels, texts) for files in sets]
        excuse_other_sets(reports)
        for report in reports:
            _show(report, console)
        return {"status": status(reports), "sets": [dataclasses.asdict(report) for report in reports]}

    sets = find_sets(chosen.path, given(chosen), labels)
    if chosen.json not in (None, Path("-")):
        check_output(chosen.json, [file for files in sets for file in files.reader.text_files()])
    result = checked(sets)
    if chosen.fix is not None:
        changes = write_repaired(sets, chosen.fix, labels)
        console.print(f"\n{chosen.fix}: a repaired copy, {len(changes):,} changes", markup=False, soft_wrap=True)
        for change in changes:
            console.print(f"  {change}", markup=False, soft_wrap=True)
        copy = checked(find_sets(chosen.fix))
        result |= {"fixed": {"folder": str(chosen.fix), "changes": changes, **copy}, "status": copy["status"]}
    console.print(f"\n{MEANINGS[result['status']]} (exit status {result['status']})")
    if chosen.json is not None:
        text = json.dumps({"path": str(chosen.path), **result}, ensure_ascii=False, indent=1) + "\n"
        if chosen.json == Path("-"):
            sys.stdout.write(text)
        else:
            write_text(chosen.json, text)
    return int(result["status"])


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib check-data",
        description="Report the data sets in a folder, missing files, and problems that would stop a training or "
        "go unnoticed in it.",
        epilog="exit status: 0 no problems, 1 problems, 2 something cannot be read; with --fix, that of the copy",
    )
    parser.add_argument("path", type=Path, help="root folder of a data set, folder of several, or file of posts")
    parser.add_argument(
        "--labels",
        metavar="SOURCE",
        help=f"label set, as in data.labels: {', '.join(KNOWN_LABELS)} or a file (default: that of a "
        "released set, otherwise the labels that occur)",
    )
    add_format_options(parser)
    parser.add_argument(
        "--side-text",
        type=Path,
        metavar="FILE",
        help="side texts of the images, such as captions (docs/how-to/data.md)",
    )
    parser.add_argument(
        "--side-text-models", nargs="+", metavar="MODEL", help="models whose captions to check (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument("--fix", type=Path, metavar="FOLDER", help="write a repaired copy into a new folder")
    parser.add_argument(
        "--tokenizer",
        default="pip:minilm-l6",
        help=f"tokenizer: a packaged name, a folder, a hub name or {NO_TOKENIZER} (%(default)s)",
    )
    parser.add_argument(
        "--max-length", type=int, default=128, help="maximum number of word pieces per post (%(default)s)"
    )
    parser.add_argument(
        "--max-missing-images",
        type=float,
        default=0.05,
        help="share of images that may be missing in training (%(default)s)",
    )
    return parser


def _pieces(name: str, max_length: int) -> Pieces | None:
    if name == NO_TOKENIZER:
        return None
    return Pieces(load_tokenizer(name), name, max_length)


def _show(report: SetReport, console: Console) -> None:
    counted = list(dict.fromkeys(name for part in report.splits for name in part.counts))
    table = Table()
    has_texts = any(part.side_texts for part in report.splits)
    columns = [*(HEADINGS.get(name, name) for name in counted), "word pieces", "images", "crops"]
    for name in ("split", *columns, *(["side texts"] if has_texts else [])):
        table.add_column(name, justify="left" if name == "split" else "right")
    for part in report.splits:
        texts = part.side_texts
        last = [f"{texts.with_text:,} of {texts.images:,}" if texts else ""] if has_texts else []
        table.add_row(*(Text(cell) for cell in [*_cells(part, counted), *last]))
    console.print(Text(f"\n{report.title}: {report.root}", style="bold"), soft_wrap=True)
    console.print(table)
    _show_labels(report, console)
    for layout in sorted({part.crop_layout for part in report.splits if part.crop_layout}):
        console.print(Text(hanging(f"object crops: {layout}", console.width)), soft_wrap=True)
    for split, finding in every_finding([report]):
        console.print(_line(split, finding, console.width), soft_wrap=True)


def _show_labels(report: SetReport, console: Console) -> None:
    """Print the number of occurrences of each label in each split, labels of the label set first."""
    if report.labels is None:
        return
    labels = LabelSet.from_dict(report.labels)
    splits = [part for part in report.splits if part.labels]
    names = list(dict.fromkeys([*labels.names, *(name for part in splits for name in part.labels)]))
    console.print(Text(f"{counted(len(labels), 'labels')}, {report.label_source}:"), soft_wrap=True)
    table = Table("label")
    for part in splits:
        table.add_column(part.split, justify="right")
    for name in names[:LABELS_SHOWN]:
        counts = [(part.labels.get(name, 0), sum(part.labels.values())) for part in splits]
        table.add_row(Text(name), *(f"{count:,} ({count / total:.1%})" if count else "0" for count, total in counts))
    console.print(table)
    if len(names) > LABELS_SHOWN:
        console.print(f"  and {len(names) - LABELS_SHOWN:,} more, which --json lists")


def _cells(part: SplitReport, counted: Sequence[str]) -> list[str]:
    """A row of the table."""
    if not part.counts:
        return [part.split, "unreadable" if part.there else "missing", *[""] * (len(counted) + 2)]
    return [
        part.split,
        *(f"{part.counts[name]:,}{_released(part, name)}" if name in part.counts else "" for name in counted),
        "" if part.longest is None else f"up to {part.longest}",
        *(f"{files.found:,} of {files.named:,}" if files else "" for files in (part.images, part.crops)),
    ]


def _released(part: SplitReport, name: str) -> str:
    expected = part.expected.get(name)
    return "" if expected in (None, part.counts[name]) else f" (released: {expected:,})"


def _line(split: str, finding: Finding, width: int) -> Text:
    mark, colour = MARKS[finding.severity]
    line = Text(hanging(f"{mark}{f' [{split}]' if split else ''} {finding}", width))
    line.stylize(colour, 2, 2 + len(mark))
    return line
