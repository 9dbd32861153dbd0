"""Words of raw posts: what is kept together, and offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.words import Token, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RT @ada_l: see #Paris2018, https://t.co/ab?c=1.", "RT @ada_l : see #Paris2018 , https://t.co/ab?c=1 ."),
        ("I'm at O'Hare, don't re-do it\u2019s", "I'm at O'Hare , don't re-do it\u2019s"),
        ("nice :) <3 ;-) :D", "nice :) <3 ;-) :D"),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd ❤️",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd ❤️",
        ),
        ("\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7 \U0001f1e9\U0001f1ea"),
        ("U.S. 3.5% 10,000 7:30 me@x.org...", "U.S. 3.5% 10,000 7:30 me@x.org ..."),
        ("東京 Tower", "東 京 Tower"),
        ("שלום, عالم", "שלום , عالم"),
        ("हिन्दी e\u0301t\u00e9", "हिन्दी e\u0301t\u00e9"),
        ("what?! no -- no", "what ?! no -- no"),
    ],
)
def test_what_is_kept_together_in_a_post(text: str, words: str) -> None:
    assert [token.text for token in tokenize(text)] == words.split(" ")


@given(st.text(max_size=60))
def test_words_are_the_text_without_whitespace(text: str) -> None:
    tokens = tokenize(text)
    assert all(text[start:end] == word for word, start, end in tokens)
    ends = [0, *(token.end for token in tokens)]
    between = [text[end : token.start] for end, token in zip(ends, tokens, strict=False)] + [text[ends[-1] :]]
    assert not "".join(between).strip()


@given(st.text(max_size=40), st.lists(st.integers(-5, 50), max_size=4))
def test_no_word_crosses_a_cut(text: str, cuts: list[int]) -> None:
    assert not [(token, cut) for token in tokenize(text, cuts) for cut in cuts if token.start < cut < token.end]


def test_offsets_count_characters() -> None:
    assert tokenize("a\u0301 \U0001f525 b") == [Token("a\u0301", 0, 2), Token("\U0001f525", 3, 4), Token("b", 5, 6)]


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_text_has_no_words(text: str) -> None:
    assert tokenize(text) == []
