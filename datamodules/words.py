"""Splits the text of a post into words with their character offsets.

Handles, hashtags, web and mail addresses, emoticons and emoji (with their modifiers) stay whole, as in the corpora that
models are trained on. Scripts without spaces are split by character, so that an entity can be any part of a line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Han, kana, Thai, Lao, Khmer and Burmese letters.
_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_LETTER = rf"(?:(?![{_SPACELESS}])\w[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff]*)"
_PICTURE = (
    r"[\u203c-\u2049\u2122-\u21aa\u2300-\u23ff\u2460-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299"
    r"\U0001f000-\U0001faff]"
)
_MODIFIER = r"[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
_KINDS = (
    r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\".,;:!?()\[\]'\u2019\u201d]",
    # Lengths as in RFC 5321: without a bound, a run of letters and dots takes quadratic time.
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]+)+",
    r"@\w+",
    r"#\w+",
    # Flags are pairs of regional letters; other emoji may be joined to each other.
    r"[\U0001f1e6-\U0001f1ff]{2}",
    rf"[0-9#*]\ufe0f?\u20e3|{_PICTURE}{_MODIFIER}*(?:\u200d{_PICTURE}{_MODIFIER}*)*",
    r"(?<!\w)(?:[<>]?[:;=8xX][-o*']?[)\](\[dDpP/\\|}{@3](?!\w)|[)\](\[dDpP/\\|}{@][-o*']?[:;=](?!\w)|<3+|\^_+\^)",
    # Bounded for the same reason: long runs of digits in scripts without spaces.
    r"[+-]?\d{1,99}(?:[.,:/]\d+)+%?|[+-]?\d{1,99}%",
    r"(?:[^\W\d_]\.){2,}",
    rf"{_LETTER}+(?:['\u2019_-]{_LETTER}+)*",
    rf"[{_SPACELESS}]",
    r"\.{2,}|[!?]+|-{2,}",
    r"\S",
)
_WORD = re.compile("|".join(_KINDS))


class Token(NamedTuple):
    """A word and its characters [start, end) in the text."""

    text: str
    start: int
    end: int


def tokenize(text: str, cuts: Iterable[int] = ()) -> list[Token]:
    """Return the words of a text, in order.

    Args:
        text: any text.
        cuts: offsets at which words are always split, such as the boundaries of annotated entities.
    """
    places = sorted({0, len(text), *(cut for cut in cuts if 0 < cut < len(text))})
    return [token for start, end in itertools.pairwise(places) for token in _within(text, start, end)]


def _within(text: str, start: int, end: int) -> Iterator[Token]:
    for match in _WORD.finditer(text, start, end):
        yield Token(match.group(), match.start(), match.end())
