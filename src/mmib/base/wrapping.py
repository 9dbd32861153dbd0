"""Wrapping of long lines of output."""

from __future__ import annotations

import textwrap


def hanging(line: str, width: int) -> str:
    """Indent a line by two columns, and wrap it with the further lines indented by four.

    A word is never broken, so that paths and commands can be copied.
    """
    return textwrap.fill(
        line,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
