"""Offsets in the units of annotation tools: characters, UTF-16 code units, or grapheme clusters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Literal, get_args

import regex

Unit = Literal["characters", "utf-16", "graphemes"]
UNITS: tuple[Unit, ...] = get_args(Unit)


class Offsets:
    """Converts offsets in a text.

    Args:
        text: the text.
        unit: unit of the offsets: `characters` as in Python; `utf-16` as in JavaScript, where most emoji count twice;
            `graphemes`, where an emoji of several characters counts once.
    """

    def __init__(self, text: str, unit: Unit) -> None:
        self.text = text
        self.starts = _starts(text, unit)

    def characters(self, start: int, end: int) -> tuple[int, int] | None:
        """The characters [start, end) of a span; None if it is empty, outside the text, or splits a character."""
        if not 0 <= start < end < len(self.starts):
            return None
        first, last = self.starts[start], self.starts[end]
        return None if first is None or last is None else (first, last)

    def units(self, start: int, end: int) -> tuple[int, int]:
        """The smallest span of whole units that covers the characters [start, end)."""
        places = [place for place, character in enumerate(self.starts) if character is not None]
        known = [character for character in self.starts if character is not None]
        return places[bisect_right(known, start) - 1], places[bisect_left(known, end)]


def _starts(text: str, unit: Unit) -> list[int | None]:
    """The character at which each unit starts, and the end of the text; None inside a character."""
    if unit == "characters":
        return list(range(len(text) + 1))
    if unit == "graphemes":
        lengths = (len(cluster) for cluster in regex.findall(r"\X", text))
        return list(accumulate(lengths, initial=0))
    starts: list[int | None] = []
    for place, character in enumerate(text):
        starts += [place, None] if ord(character) > 0xFFFF else [place]
    return [*starts, len(text)]
