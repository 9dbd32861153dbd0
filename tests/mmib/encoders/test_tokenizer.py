"""Words to word pieces: every word keeps its position in any post, and no text is read as a special token."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from mmib.encoders.tokenizer import WordTokenizer, load_tokenizer
from mmib.schema import MARKERS, EncoderError, InputError

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL_TEXTS = ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", *MARKERS]


@pytest.fixture(scope="module")
def tokenizer(bert_folder: str) -> WordTokenizer:
    return WordTokenizer(bert_folder, max_length=64, local_files_only=True)


def spelled(tokenizer: WordTokenizer, words: list[str]) -> list[list[str]]:
    return [tokenizer._tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer.pieces([words])[0]]


def test_words_become_pieces_and_keep_their_position(tokenizer: WordTokenizer) -> None:
    assert spelled(tokenizer, ["Anna", "meets", "bo"]) == [["anna"], ["meets"], ["b", "##o"]]


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
def test_special_tokens_and_markers_in_a_post_are_read_as_characters(tokenizer: WordTokenizer, text: str) -> None:
    """Defect 20: a marker in the text was read as a real one."""
    for word in (text, f"x{text}x"):
        (ids,) = tokenizer.pieces([[word]])[0]
        assert len(ids) > 1
        assert not {PAD, CLS, SEP, MASK} & set(ids)
        assert max(ids) < tokenizer.vocabulary_size


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(posts=st.lists(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(SPECIAL_TEXTS)), max_size=5), max_size=3))
def test_every_word_of_any_text_gets_pieces_that_are_not_special(
    tokenizer: WordTokenizer, posts: list[list[str]]
) -> None:
    pieces = tokenizer.pieces(posts)
    assert [len(words) for words in pieces] == [len(words) for words in posts]
    for word in (ids for words in pieces for ids in words):
        assert word
        assert all(id_ == UNKNOWN or MASK < id_ < tokenizer.vocabulary_size for id_ in word)


@pytest.mark.parametrize("nothing", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", "", " "])
def test_a_word_without_pieces_gets_the_unknown_piece(tokenizer: WordTokenizer, nothing: str) -> None:
    assert tokenizer.pieces([["the", nothing, "bob"]]) == [
        [tokenizer.pieces([["the"]])[0][0], [UNKNOWN], tokenizer.pieces([["bob"]])[0][0]]
    ]


def test_markers_have_ids_after_the_vocabulary(tokenizer: WordTokenizer) -> None:
    ids = list(tokenizer.marker_ids.values())
    assert list(tokenizer.marker_ids) == list(MARKERS)
    assert ids == list(range(tokenizer.vocabulary_size, tokenizer.vocabulary_size + 4))


def test_the_special_tokens_are_cls_and_sep(tokenizer: WordTokenizer) -> None:
    assert (tokenizer.prefix, tokenizer.suffix) == ([CLS], [SEP])


def test_a_tokenizer_that_needs_another_package_names_it(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("You need to install sacremoses.\nSee its page.")

    monkeypatch.setattr("mmib.encoders.tokenizer.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(EncoderError, match=r"needs another package: You need to install sacremoses\. See its page"):
        WordTokenizer(bert_folder, None)


def test_a_fingerprint_of_a_python_tokenizer_depends_on_vocabulary_merges_and_options(
    family_folder: Callable[[str], str], tmp_path: Path
) -> None:
    """A copy in another folder has the same fingerprint."""
    expected = load_tokenizer(family_folder("BERTweet")).fingerprint()
    changes: dict[str, tuple[str, str]] = {
        "vocab.txt": ("na 1", "nb 1"),
        "bpe.codes": ("a n 10", "a m 10"),
        "tokenizer_config.json": ('"normalization": false', '"normalization": true'),
    }
    for file, (before, after) in changes.items():
        folder = tmp_path / file.partition(".")[0]
        load_tokenizer(family_folder("BERTweet")).save(folder)
        shutil.copy(Path(family_folder("BERTweet")) / "config.json", folder)
        assert load_tokenizer(str(folder)).fingerprint() == expected
        content = (folder / file).read_text(encoding="utf-8")
        assert before in content
        (folder / file).write_text(content.replace(before, after, 1), encoding="utf-8")
        assert load_tokenizer(str(folder)).fingerprint() != expected


def test_catastrophic_backtracking_of_a_pattern_is_an_error_of_the_text(bert_folder: str) -> None:
    """An untrusted tokenizer.json may contain any pattern; the library panics, which is no Exception."""
    tokenizer = WordTokenizer(bert_folder, max_length=64, local_files_only=True)
    tokenizer._tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(InputError, match=r"the tokenizer cannot split the text into word pieces: .*retry-limit"):
        tokenizer.pieces([["a" * 40 + "!"]])
    assert tokenizer.pieces([["b"]])
