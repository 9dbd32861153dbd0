"""Noun phrases: what a detector can look for, without function words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.crop_objects.phrases import BREAKS, LONGEST_WORD, MOST_PHRASES, MOST_WORDS, noun_phrases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The old lighthouse keeper waves at Anna Smith", ("old lighthouse keeper waves", "anna smith")),
        ("Anna , Bob and a dog", ("anna", "bob", "dog")),
        ('Anna, Bob: "Clara"', ("anna", "bob", "clara")),
        ("RT @user : sunset https://t.co/x #LakeSuperior", ("sunset", "lake superior")),
        ("my dog and your Dog", ("dog",)),
        ("one two three four five six", ("three four five six",)),
        ("Anna 's dog isn't here", ("anna", "dog")),
        ("42 , 2016 !!! :) <3", ()),
        ("Café Müller in 東京", ("café müller", "東京")),
        ("", ()),
    ],
)
def test_phrases_are_runs_of_content_words(text: str, expected: tuple[str, ...]) -> None:
    assert noun_phrases(text.split()) == expected


def test_the_number_of_phrases_is_bounded() -> None:
    words = [word for number in range(50) for word in (f"w{number}x", "and")]
    assert noun_phrases(words) == tuple(f"w{number}x" for number in range(MOST_PHRASES))


@given(st.lists(st.text(max_size=40), max_size=30))
def test_any_text_gives_phrases_that_a_detector_accepts(words: list[str]) -> None:
    phrases = noun_phrases(words)
    assert len(phrases) == len(set(phrases)) <= MOST_PHRASES
    for phrase in phrases:
        phrase_words = phrase.split(" ")
        assert 1 <= len(phrase_words) <= MOST_WORDS
        # A full stop separates the phrases of a Grounding DINO prompt.
        assert "." not in phrase
        assert all(word and word not in BREAKS and len(word) <= 3 * LONGEST_WORD for word in phrase_words)
