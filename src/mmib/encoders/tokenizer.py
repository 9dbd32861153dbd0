"""Tokenisation of words to word pieces, with the tokenizer of any text encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mmib.base.files import checksum
from mmib.encoders.pretrained import locate, unreachable
from mmib.schema import MARKERS, EncoderError, InputError


class WordTokenizer:
    """Splits words into word pieces.

    Marker tokens have ids after the vocabulary and no spelling, and special tokens are not recognised in text. Any text
    of a post, such as `[SEP]`, `<s>` or `<mmib:head>`, is read as plain characters.

    Attributes:
        vocabulary_size: largest id of a piece plus 1.
        prefix: ids that open a sequence, such as [CLS].
        suffix: ids that close it, such as [SEP].
        pad_id: padding id; as padding is masked, it is 0 if the tokenizer has none.
        unknown_id: id for words without pieces; another special piece if the tokenizer has no unknown piece.
        mask_id: id of the mask piece, or of the unknown piece if the tokenizer has none.
        space: prefix of each word: a space for byte-level tokenizers, which make it part of the first piece.
        marker_ids: id of each of `schema.MARKERS`.
        max_length: maximum sequence length of the encoder, or None.

    Raises:
        EncoderError: If the tokenizer cannot be loaded.
    """

    def __init__(self, folder: str, max_length: int | None, **options: Any) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        except ImportError as error:
            reason = " ".join(str(error).split())
            raise EncoderError(f"the tokenizer of text encoder {folder!r} needs another package: {reason}") from error
        # Errors of the package tokenizers have no common base class.
        except Exception as error:
            raise unreachable("text", folder, error) from error
        vocabulary = self._tokenizer.get_vocab()
        if vocabulary.keys() <= set(self._tokenizer.all_special_tokens):
            # transformers returns such a tokenizer for a folder without tokenizer files.
            raise unreachable("text", folder, ValueError("the tokenizer has no vocabulary"))
        self.vocabulary_size = 1 + max(vocabulary.values())
        self.marker_ids = {marker: self.vocabulary_size + number for number, marker in enumerate(MARKERS)}
        token = self._tokenizer
        # Decoders such as GPT-2 have few special tokens or none; recent models have no unknown piece.
        self.unknown_id = _first(token.unk_token_id, token.mask_token_id, token.pad_token_id, token.eos_token_id)
        self.pad_id = _first(token.pad_token_id)
        self.mask_id = _first(token.mask_token_id, self.unknown_id)
        self.max_length = max_length
        self._special = frozenset(token.all_special_ids) - {self.unknown_id}
        plain = token("a", add_special_tokens=False)["input_ids"]
        framed = token("a", add_special_tokens=True)["input_ids"]
        start = next(at for at in range(len(framed)) if framed[at : at + len(plain)] == plain)
        self.prefix: list[int] = framed[:start]
        self.suffix: list[int] = framed[start + len(plain) :]
        # Only old classes of byte-level tokenizers have an option that adds the space.
        self.space = ""
        apart = [piece for word in self._encode([["a", "a"]])[0] for piece in word]
        if apart != token("a a", add_special_tokens=False)["input_ids"]:
            self.space = " "

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that word pieces depend on."""
        state = [self._state(), self.prefix, self.suffix, self.unknown_id, self.space]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files to a folder, from which it can be loaded again."""
        self._tokenizer.save_pretrained(folder)
        # Python tokenizers do not always write what they read: BERTweet's omits the end of each merge.
        for name, path in self._source_files().items():
            shutil.copyfile(path, folder / self._tokenizer.vocab_files_names[name])

    def pieces(self, posts: list[list[str]]) -> list[list[list[int]]]:
        """Return the word-piece ids of each word of each post; the unknown piece for words without any.

        Raises:
            InputError: If a regular expression of the tokenizer fails on a text.
        """
        return [[ids or [self.unknown_id] for ids in words] for words in self.split(posts)]

    def split(self, posts: list[list[str]]) -> list[list[list[int]]]:
        """Like `pieces`, but a word that the tokenizer drops has no pieces."""
        encoded = self._encode(posts)
        for words, pieces in zip(posts, encoded, strict=True):
            for number, ids in enumerate(pieces):
                # Unigram vocabularies contain special tokens as pieces. Single characters never spell one.
                if not self._special.isdisjoint(ids):
                    characters = self._encode([list(words[number])])[0]
                    pieces[number] = [id_ for piece in characters for id_ in piece if id_ not in self._special]
        return encoded

    def _encode(self, posts: list[list[str]]) -> list[list[list[int]]]:
        if not posts:
            return []
        spaced = [[word if word.startswith(" ") else self.space + word for word in words] for words in posts]
        options = {"add_special_tokens": False, "split_special_tokens": True}
        if not self._tokenizer.is_fast:  # Python tokenizers do not return the word of each piece
            return [[self._tokenizer(word, **options)["input_ids"] for word in words] for words in spaced]
        try:
            encoded = self._tokenizer(spaced, is_split_into_words=True, **options)
        except BaseException as error:
            # A BaseException that tokenizers raises if one of its regular expressions backtracks for too long.
            if type(error).__name__ != "PanicException":
                raise
            raise InputError(f"the tokenizer cannot split the text into word pieces: {error}") from error
        result = []
        for number, words in enumerate(posts):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoded["input_ids"][number], encoded.word_ids(number), strict=True):
                pieces[word].append(piece)
            result.append(pieces)
        return result

    def _state(self) -> Any:
        if self._tokenizer.is_fast:
            return self._tokenizer.backend_tokenizer.to_str()
        settings = self._tokenizer.init_kwargs.items()
        switches = {name: value for name, value in settings if isinstance(value, bool) and "local" not in name}
        files = {name: checksum(path) for name, path in self._source_files().items()}
        return [type(self._tokenizer).__name__, self._tokenizer.get_vocab(), switches, files]

    def _source_files(self) -> dict[str, Path]:
        """Return the vocabulary files of a Python tokenizer, by the name of their argument."""
        if self._tokenizer.is_fast:
            return {}
        paths = {name: getattr(self._tokenizer, name, None) for name in self._tokenizer.vocab_files_names}
        return {name: Path(path) for name, path in paths.items() if path is not None}


def load_tokenizer(name: str) -> WordTokenizer:
    """Load the tokenizer of a text encoder by the encoder's name, without its weights.

    Raises:
        EncoderError: If it cannot be loaded.
    """
    folder, options = locate(name)
    return WordTokenizer(folder, None, **options)


def _first(*ids: int | None) -> int:
    """Return the first id that is not None, or 0."""
    return next((id_ for id_ in ids if id_ is not None), 0)
