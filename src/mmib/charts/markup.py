"""HTML from Python. All text that is not `Html` is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"meta", "img", "br", "input"})
# Characters not allowed in HTML: control characters except tab and line feed, lone surrogates, noncharacters.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


Child: TypeAlias = str | Iterable[str] | None


def escape(text: str) -> Html:
    """Escape text as HTML, for use inside elements and quoted attributes."""
    return text if isinstance(text, Html) else Html(html.escape(UNPRINTABLE.sub("\ufffd", text), quote=True))


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Concatenate parts; those that are not HTML are escaped."""
    return Html(escape(separator).join(escape(part) for part in parts))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element with its children.

    Args:
        name: name of the element.
        children: text, which is escaped, HTML, iterables of both, or None for nothing.
        attributes: attributes, where `class_` means `class` and `data_right` means `data-right`. True is an attribute
            without a value; None and False leave it out.
    """
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    inner = "".join(escape(child) if isinstance(child, str) else join(child) for child in children if child is not None)
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{inner}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
