"""Offsets of annotation tools: known answers and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.convert.offsets import UNITS, Offsets, Unit

FIREMAN = "\U0001f468\U0001f3fb\u200d\U0001f692 firemen drive firetrucks"
# Plain letters, a combining accent, emoji with modifier and joiner, a flag, a line break of two characters.
TEXTS = st.lists(
    st.sampled_from(["a", "b ", "e\u0301", "\U0001f600", FIREMAN[:4], "\U0001f1eb\U0001f1f7", "\r\n", "\u4e2d"])
).map("".join)


@pytest.mark.parametrize(("unit", "start"), [("characters", 19), ("utf-16", 22), ("graphemes", 16)])
def test_offsets_after_an_emoji(unit: Unit, start: int) -> None:
    """22 is what doccano's issue 2290 reports for JavaScript, 19 for Python."""
    offsets = Offsets(FIREMAN, unit)
    assert FIREMAN[19:29] == "firetrucks"
    assert offsets.characters(start, start + 10) == (19, 29)
    assert offsets.units(19, 29) == (start, start + 10)


@given(TEXTS, st.data())
def test_utf_16_offsets_match_the_encoded_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    encoded = [len(part.encode("utf-16-le")) // 2 for part in (text[:start], text[:end])]
    if start < end:
        assert Offsets(text, "utf-16").units(start, end) == tuple(encoded)
        assert Offsets(text, "utf-16").characters(*encoded) == (start, end)


@given(TEXTS, st.data(), st.sampled_from(UNITS))
def test_unit_spans_cover_their_characters_and_at_most_whole_grapheme_clusters(
    text: str, data: st.DataObject, unit: Unit
) -> None:
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    offsets = Offsets(text, unit)
    first, last = offsets.characters(*offsets.units(start, end)) or (-1, -1)
    assert 0 <= first <= start < end <= last
    if unit != "graphemes":
        assert (first, last) == (start, end)


@pytest.mark.parametrize("span", [(-1, 2), (3, 3), (4, 2), (0, 99), (1, 5), (0, 1)])
def test_invalid_spans_are_refused(span: tuple[int, int]) -> None:
    """The last two end inside the first emoji."""
    assert Offsets(FIREMAN, "utf-16").characters(*span) is None
