"""Options of commands that read data of any format, which describe the format."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmib.datamodules.init.recognise import MNER, MRE, Given
from mmib.datamodules.schemes import Scheme

SEPARATORS = {"tab": "\t", "\\t": "\t", "blank": " ", "comma": ","}


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `given` returns."""
    add = parser.add_argument
    add("--task", choices=(MNER, MRE), help="entities or relations (default: detected)")
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder of the images (default: images/ in the data folder, or the folder itself)",
    )
    add("--separator", metavar="TEXT", help=f"column separator: a text, or {', '.join(SEPARATORS)} (default: detected)")
    add("--word-column", type=int, metavar="N", help="column of the words, counted from 0 (default: detected)")
    add("--tag-column", type=int, metavar="N", help="column of the tags, -1 for the last (default: detected)")
    add("--scheme", choices=[scheme.value for scheme in Scheme], help="tagging scheme (default: detected)")


def given(chosen: argparse.Namespace) -> Given:
    """Return the settings given on the command line."""
    return Given(
        task=chosen.task,
        image_folder=chosen.images,
        separator=SEPARATORS.get(chosen.separator, chosen.separator),
        word_column=chosen.word_column,
        tag_column=chosen.tag_column,
        scheme=None if chosen.scheme is None else Scheme(chosen.scheme),
    )
