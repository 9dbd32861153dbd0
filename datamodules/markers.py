"""Entity markers, in a text or levitating over it, and the window of words that contains both entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mmib.schema import HEAD_END, HEAD_START, MARKERS, NO_WORD, OPENING, TAIL_END, TAIL_START, DataError, Span

if TYPE_CHECKING:
    from mmib.encoders.text import WordTokenizer


class MarkedPost(NamedTuple):
    """A post as the encoder sees it.

    Attributes:
        input_ids: word pieces with special tokens and the four markers.
        head_index: position of the head's opening marker.
        tail_index: position of the tail's opening marker.
        word_ids: the word of each of `input_ids`; -1 for special tokens and markers.
        mentions: for each of `input_ids`, 1 inside the head, 2 inside the tail (or both), 0 elsewhere.
        places: positions of the pieces over which the markers levitate, in the order of `MARKERS`; empty if they are
            in the text.
    """

    input_ids: list[int]
    head_index: int
    tail_index: int
    word_ids: list[int]
    mentions: list[int]
    places: list[int]


def mark_entities(
    pieces: list[list[int]], head: Span, tail: Span, tokenizer: WordTokenizer, max_length: int
) -> MarkedPost:
    """Insert markers around two entities, which may touch, overlap, nest, coincide or end the post.

    A post that is too long is cut to a window of words around both entities, with as much context on the left as on
    the right if possible.

    Args:
        pieces: word pieces of each word.
        head: words [start, end) of the head entity.
        tail: words [start, end) of the tail entity.
        tokenizer: provides special tokens and marker ids.
        max_length: maximum length of the result, special tokens and markers included.

    Raises:
        DataError: the two entities and the words between them do not fit.
    """
    frame = len(tokenizer.prefix) + len(tokenizer.suffix) + len(MARKERS)
    first, last = _window(pieces, head, tail, max_length - frame)
    before, after = _markers_by_boundary(head, tail)
    ids = list(tokenizer.prefix)
    word_ids = [NO_WORD] * len(ids)
    positions: dict[str, int] = {}
    for word in range(first, last + 1):
        # Closing markers come before opening ones.
        for marker in after.get(word, []) + before.get(word, []):
            positions[marker] = len(ids)
            ids.append(tokenizer.marker_ids[marker])
            word_ids.append(NO_WORD)
        if word < last:
            ids.extend(pieces[word])
            word_ids.extend([word] * len(pieces[word]))
    ids.extend(tokenizer.suffix)
    word_ids.extend([NO_WORD] * len(tokenizer.suffix))
    mentions = _mentions(word_ids, head, tail)
    return MarkedPost(ids, positions[HEAD_START], positions[TAIL_START], word_ids, mentions, [])


def levitate_markers(
    pieces: list[list[int]], head: Span, tail: Span, tokenizer: WordTokenizer, max_length: int
) -> MarkedPost:
    """Levitate markers over two entities: opening markers over their first pieces, closing ones over their last.

    The text contains no markers, so that its pieces are the same for all pairs of entities unless it is too long. The
    window of words is that of `mark_entities`, with room for more words.

    Raises:
        DataError: the two entities and the words between them do not fit.
    """
    frame = len(tokenizer.prefix) + len(tokenizer.suffix)
    window = range(*_window(pieces, head, tail, max_length - frame))
    ids = [*tokenizer.prefix, *(piece for word in window for piece in pieces[word]), *tokenizer.suffix]
    inside = [word for word in window for _ in pieces[word]]
    word_ids = [NO_WORD] * len(tokenizer.prefix) + inside + [NO_WORD] * len(tokenizer.suffix)
    starts = {word: word_ids.index(word) for word in window}
    places = [
        place for start, end in (head, tail) for place in (starts[start], starts[end - 1] + len(pieces[end - 1]) - 1)
    ]
    return MarkedPost(ids, places[0], places[2], word_ids, _mentions(word_ids, head, tail), places)


def marker_places(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """(B, P, 4) `places` of each row's pairs, padded with -1."""
    padded = torch.full((len(rows), max(map(len, rows)), len(MARKERS)), -1)
    for row, pairs in enumerate(rows):
        padded[row, : len(pairs)] = torch.tensor(pairs)
    return padded


def opening(places: Tensor) -> Tensor:
    """(B, 2P) places of the opening markers, head first, from (B, P, 4)."""
    return places[:, :, OPENING].flatten(1)


def _mentions(word_ids: list[int], head: Span, tail: Span) -> list[int]:
    return [2 if tail[0] <= word < tail[1] else int(head[0] <= word < head[1]) for word in word_ids]


def _markers_by_boundary(head: Span, tail: Span) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Opening and closing markers by the word that they precede; a longer span encloses a shorter one."""
    spans = [(head, HEAD_START, HEAD_END), (tail, TAIL_START, TAIL_END)]
    spans.sort(key=lambda item: item[0][0] - item[0][1])  # longest first; the head encloses a tail of equal length
    opening: dict[int, list[str]] = {}
    closing: dict[int, list[str]] = {}
    for (start, end), open_marker, close_marker in spans:
        opening.setdefault(start, []).append(open_marker)
        closing.setdefault(end, []).insert(0, close_marker)
    return opening, closing


def _window(pieces: list[list[int]], head: Span, tail: Span, budget: int) -> Span:
    """Return the words [first, last) with both entities and as much context as the budget of pieces allows."""
    first, last = min(head[0], tail[0]), max(head[1], tail[1])
    used = sum(map(len, pieces[first:last]))
    if used > budget:
        raise DataError(
            f"the two entities and the words between them take {used} word pieces, {max(budget, 0)} fit: "
            "raise max_length or leave the row out"
        )
    left_used = right_used = 0
    while True:
        can_left = first > 0 and used + len(pieces[first - 1]) <= budget
        can_right = last < len(pieces) and used + len(pieces[last]) <= budget
        if not can_left and not can_right:
            return first, last
        if can_left and (left_used <= right_used or not can_right):
            first -= 1
            left_used += len(pieces[first])
            used += len(pieces[first])
        else:
            right_used += len(pieces[last])
            used += len(pieces[last])
            last += 1
