"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """Return a count and what it counts.

    Args:
        count: the number.
        what: a phrase that begins with a regular English plural, such as `posts without text`.

    Returns:
        For example `2,563 posts without text`, and `1 post without text`.
    """
    noun, space, rest = what.partition(" ")
    if count == 1:
        noun = f"{noun.removesuffix('ies')}y" if noun.endswith("ies") else noun.removesuffix("s")
    return f"{count:,} {noun}{space}{rest}"
