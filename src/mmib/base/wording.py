"""Parts of messages: counts, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown name that is close to a known one; empty for others.

    Dashes before an option do not count, as they make all short options similar.
    """
    names = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(wrong.lstrip("-"), names, n=1)
    return f": did you mean {names[near[0]]}?" if near else ""
