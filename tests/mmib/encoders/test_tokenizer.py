"""Words to word pieces: every word keeps its place, whatever a post holds, and no text is read as a special token."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmib.encoders.tokenizer import WordTokenizer
from mmib.schema import MARKERS

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL_TEXTS = ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", *MARKERS]


@pytest.fixture(scope="module")
def tokenizer(bert_folder: str) -> WordTokenizer:
    return WordTokenizer(bert_folder, max_length=64, local_files_only=True)


def spelled(tokenizer: WordTokenizer, words: list[str]) -> list[list[str]]:
    return [tokenizer._tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer.pieces([words])[0]]


def test_words_become_their_pieces_and_keep_their_place(tokenizer: WordTokenizer) -> None:
    assert spelled(tokenizer, ["Anna", "meets", "bo"]) == [["anna"], ["meets"], ["b", "##o"]]


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
def test_special_tokens_and_markers_in_a_post_are_read_as_characters(tokenizer: WordTokenizer, text: str) -> None:
    """Defect 20: a marker in the text itself was read as one."""
    for word in (text, f"x{text}x"):
        (ids,) = tokenizer.pieces([[word]])[0]
        assert len(ids) > 1
        assert not {PAD, CLS, SEP, MASK} & set(ids)
        assert max(ids) < tokenizer.vocabulary_size


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(posts=st.lists(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(SPECIAL_TEXTS)), max_size=5), max_size=3))
def test_every_word_of_any_text_gets_pieces_and_never_a_special_one(
    tokenizer: WordTokenizer, posts: list[list[str]]
) -> None:
    pieces = tokenizer.pieces(posts)
    assert [len(words) for words in pieces] == [len(words) for words in posts]
    for word in (ids for words in pieces for ids in words):
        assert word
        assert all(id_ == UNKNOWN or MASK < id_ < tokenizer.vocabulary_size for id_ in word)


@pytest.mark.parametrize("nothing", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", "", " "])
def test_word_that_gives_no_piece_gets_the_unknown_one(tokenizer: WordTokenizer, nothing: str) -> None:
    assert tokenizer.pieces([["the", nothing, "bob"]]) == [
        [tokenizer.pieces([["the"]])[0][0], [UNKNOWN], tokenizer.pieces([["bob"]])[0][0]]
    ]


def test_markers_have_ids_of_their_own_behind_the_vocabulary(tokenizer: WordTokenizer) -> None:
    ids = list(tokenizer.marker_ids.values())
    assert list(tokenizer.marker_ids) == list(MARKERS)
    assert ids == list(range(tokenizer.vocabulary_size, tokenizer.vocabulary_size + 4))


def test_frame_is_cls_and_sep(tokenizer: WordTokenizer) -> None:
    assert (tokenizer.prefix, tokenizer.suffix) == ([CLS], [SEP])
