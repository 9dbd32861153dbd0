"""Counts agree with their nouns."""

from __future__ import annotations

import pytest

from mmib.base.wording import counted


@pytest.mark.parametrize(
    ("count", "what", "expected"),
    [
        (2563, "posts without text", "2,563 posts without text"),
        (1, "posts without text", "1 post without text"),
        (0, "entities", "0 entities"),
        (1, "entities", "1 entity"),
    ],
)
def test_a_single_one_is_named_in_the_singular(count: int, what: str, expected: str) -> None:
    assert counted(count, what) == expected
