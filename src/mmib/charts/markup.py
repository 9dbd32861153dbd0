"""HTML out of Python: whatever is not made by `element` is text and gets escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"meta", "img", "br", "input"})
# What no HTML page may hold: control characters but tab and line feed, halves of surrogate pairs, noncharacters.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = str | Iterable[str] | None


def escape(text: str) -> Html:
    """Text as HTML; safe inside elements and inside quoted attributes."""
    return text if isinstance(text, Html) else Html(html.escape(UNPRINTABLE.sub("\ufffd", text), quote=True))


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Parts one after the other; those that are not HTML are escaped."""
    return Html(escape(separator).join(escape(part) for part in parts))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element with its children.

    Args:
        name: of the element.
        children: text, which is escaped, HTML, several of both, or None for nothing.
        attributes: `class_` stands for `class` and `data_right` for `data-right`; True is an attribute without a value,
            None and False leave it out.
    """
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    inner = "".join(escape(child) if isinstance(child, str) else join(child) for child in children if child is not None)
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{inner}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
