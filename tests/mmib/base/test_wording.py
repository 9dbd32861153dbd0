"""Counts agree with their nouns, and suggestions are similar to what was written."""

from __future__ import annotations

import pytest

from mmib.base.wording import counted, did_you_mean


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


def test_only_a_similar_name_is_suggested() -> None:
    assert did_you_mean("gama", ["gamma", "beta"]) == ": did you mean gamma?"
    assert did_you_mean("quantity", ["gamma", "beta"]) == ""
    assert did_you_mean("--modle", ["--plugin", "--model"]) == ": did you mean --model?"
    assert did_you_mean("--run", ["--plugin", "--output"]) == ""
