"""Columns are recognised by their content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmib.datamodules.init.sniffing import Columns, sniff

Write = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("separator", "found"), [("\t", None), (" ", None), ("   ", None), (",", ","), (";", ";"), ("|", "|")]
)
@pytest.mark.parametrize("extra", [(), ("_", "NN")])
def test_separators_and_additional_columns_are_recognised(
    invented: Any, write: Write, separator: str, found: str | None, extra: tuple[str, ...]
) -> None:
    file = write("a.conll", invented.columns(invented.posts(20), separator, extra))
    assert sniff(file) == Columns(found, 0, -1, 2 + len(extra))


def test_tags_in_the_middle_and_numbered_words_are_recognised(invented: Any, write: Write) -> None:
    rows = [line.split("\t") for line in invented.columns(invented.posts(20)).split("\n")]
    lines = ["\t".join((str(n), *row, "later")) if len(row) == 2 else "" for n, row in enumerate(rows)]
    assert sniff(write("a.conll", "\n".join(lines))) == Columns(None, 1, 2, 4)


def test_the_last_of_several_columns_with_prefixes_is_the_tag(write: Write) -> None:
    """CoNLL-2003 has phrase chunks before entities."""
    text = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n. . O O\n"
    assert sniff(write("a.conll", text)) == Columns(None, 0, -1, 4)


@pytest.mark.parametrize("tags", [("B-PER", "M-PER", "E-PER", "O"), ("PER", "O", "O", "O")])
def test_other_schemes_are_recognised(write: Write, tags: tuple[str, ...]) -> None:
    file = write("a.conll", "".join(f"\u4e2d {tag}\n" for tag in tags) + "\n")
    assert sniff(file) == Columns(None, 0, -1, 2)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "A note on this data.\nIt is not\nin columns at all.\n", "word\nword\n", "a NN\nb VB\n"]
)
def test_data_without_columns_is_not_recognised(write: Write, text: str) -> None:
    assert sniff(write("a.conll", text)) is None


def test_given_settings_take_precedence(invented: Any, write: Write) -> None:
    file = write("a.conll", invented.columns(invented.posts(20), "\t", ("O", "O")))
    assert sniff(file, tag=1) == Columns(None, 0, 1, 4)
    assert sniff(file, word=3, tag=2) == Columns(None, 3, 2, 4)
    assert sniff(file, separator=",") is None
