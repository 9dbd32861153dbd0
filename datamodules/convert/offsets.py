"""Offsets as tools count them: in characters, in UTF-16 units, or in what looks like one character."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Literal, get_args

import regex

Unit = Literal["characters", "utf-16", "graphemes"]
UNITS: tuple[Unit, ...] = get_args(Unit)


class Offsets:
    """Translates offsets in a text.

    Args:
        text: the text.
        unit: what offsets count: `characters` as Python does; `utf-16` as JavaScript does, where most emoji count
            twice; `graphemes`, where an emoji of several characters counts once.
    """

    def __init__(self, text: str, unit: Unit) -> None:
        self.text = text
        self.starts = _starts(text, unit)

    def characters(self, start: int, end: int) -> tuple[int, int] | None:
        """The characters [start, end) of a span; None where it is empty, outside the text, or inside a character."""
        if not 0 <= start < end < len(self.starts):
            return None
        first, last = self.starts[start], self.starts[end]
        return None if first is None or last is None else (first, last)

    def units(self, start: int, end: int) -> tuple[int, int]:
        """The span that covers characters [start, end), each of which is whole in it."""
        places = [place for place, character in enumerate(self.starts) if character is not None]
        known = [character for character in self.starts if character is not None]
        return places[bisect_right(known, start) - 1], places[bisect_left(known, end)]


def _starts(text: str, unit: Unit) -> list[int | None]:
    """The character at which each unit starts, and one behind the last; None inside a character."""
    if unit == "characters":
        return list(range(len(text) + 1))
    if unit == "graphemes":
        lengths = (len(cluster) for cluster in regex.findall(r"\X", text))
        return list(accumulate(lengths, initial=0))
    starts: list[int | None] = []
    for place, character in enumerate(text):
        starts += [place, None] if ord(character) > 0xFFFF else [place]
    return [*starts, len(text)]
