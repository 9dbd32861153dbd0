"""The command `mmib convert`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.base.files import atomic_file, check_output
from mmib.datamodules.convert.formats import FORMATS, MMIB, recognise
from mmib.datamodules.convert.offsets import UNITS
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import Notes, counts
from mmib.schema import DataError


def run(arguments: list[str]) -> int:
    """Convert a file.

    Raises:
        ConfigError: the output is the input, or a folder.
        DataError: the input cannot be read or holds no posts.
    """
    chosen = _parser().parse_args(arguments)
    check_output(chosen.output, [chosen.file, *([chosen.posts] if chosen.posts else [])])
    options = Options(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(Options)})
    notes = Notes()
    source = chosen.source or recognise(chosen.file)
    # The offsets of one file can be chosen: those of the tool, or of the input if both or none are a tool's.
    of_output = source == MMIB and chosen.to != MMIB
    default = dataclasses.replace(options, offsets=None)
    posts = list(FORMATS[source].read(chosen.file, default if of_output else options, notes))
    if not posts:
        reasons = "; ".join(str(notes).splitlines()) if notes.places else "is --from the right one?"
        raise DataError(f"{chosen.file} holds no post in the format {source}: {reasons}")
    with atomic_file(chosen.output) as file:
        FORMATS[chosen.to].write(posts, file, options if of_output else default, notes)
    print(f"{chosen.output} ({source} to {chosen.to}): {counts(posts)}")  # noqa: T201
    if notes.places:
        print(notes)  # noqa: T201
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib convert",
        description="Convert exports of Label Studio (JSON) and doccano (JSONL) to the JSON lines that mmib trains "
        "on, and the output of mmib extract to pre-annotations for these tools.",
        epilog="docs/how-to/annotation.md describes the formats",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="file to convert")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="output file")
    add("--from", dest="source", choices=FORMATS, help="format of FILE (default: detected from its keys)")
    add("--to", choices=FORMATS, default=MMIB, help="format of the output (default: %(default)s)")
    add(
        "--offsets",
        choices=UNITS,
        help="unit of the offsets in FILE, or in the output if only that is for a tool (default: utf-16 for doccano, "
        "otherwise characters)",
    )
    add("--images", type=Path, metavar="FOLDER", help="folder of the images, to use the file names found there")
    add("--posts", type=Path, metavar="FILE", help="posts that were the input of mmib extract, to locate the images")
    add("--image-prefix", default="", metavar="TEXT", help="prefix for image names, such as the address of the tool")
    add("--text-field", metavar="NAME", help="Label Studio: field of the text")
    add("--image-field", metavar="NAME", help="field of the image")
    add("--from-name", metavar="NAME", help="Label Studio: name of the <Labels> tag")
    add("--to-name", metavar="NAME", help="Label Studio: name of the <Text> tag")
    return parser
