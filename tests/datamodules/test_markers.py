"""Entity markers in corner cases, and the window that keeps both entities."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.markers import MarkedPost, Span, levitate_markers, mark_entities, marker_places, opening
from mmib.encoders.text import WordTokenizer
from mmib.schema import HEAD_END, HEAD_START, MARKERS, NO_WORD, TAIL_END, TAIL_START, DataError

LETTERS = string.ascii_lowercase
SIGNS = {HEAD_START: "<", HEAD_END: ">", TAIL_START: "[", TAIL_END: "]"}


def mark(post: str, head: Span, tail: Span, tokenizer: WordTokenizer, max_length: int = 200) -> MarkedPost:
    return mark_entities(tokenizer.pieces([post.split()])[0], head, tail, tokenizer, max_length)


def spelled(marked: MarkedPost, tokenizer: WordTokenizer) -> str:
    """One-letter words and markers as a string, without the special tokens at both ends."""
    signs = {tokenizer.marker_ids[marker]: sign for marker, sign in SIGNS.items()}
    letters = dict(zip((ids[0] for ids in tokenizer.pieces([list(LETTERS)])[0]), LETTERS, strict=True))
    assert marked.input_ids[0] == tokenizer.prefix[0]
    assert marked.input_ids[-1] == tokenizer.suffix[0]
    assert signs[marked.input_ids[marked.head_index]] == "<"
    assert signs[marked.input_ids[marked.tail_index]] == "["
    return "".join({**letters, **signs}[piece] for piece in marked.input_ids[1:-1])


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ((0, 1), (2, 3), "<a>b[c]de"),
        ((2, 3), (0, 1), "[a]b<c>de"),
        ((1, 2), (4, 5), "a<b>cd[e]"),
        ((3, 5), (0, 1), "[a]bc<de>"),
        ((0, 2), (2, 4), "<ab>[cd]e"),
        ((2, 4), (0, 2), "[ab]<cd>e"),
        ((0, 5), (2, 3), "<ab[c]de>"),
        ((2, 3), (0, 5), "[ab<c>de]"),
        ((1, 4), (1, 2), "a<[b]cd>e"),
        ((1, 2), (1, 4), "a[<b>cd]e"),
        ((1, 4), (3, 4), "a<bc[d]>e"),
        ((3, 4), (1, 4), "a[bc<d>]e"),
        ((1, 3), (1, 3), "a<[bc]>de"),
        ((0, 5), (0, 5), "<[abcde]>"),
        ((0, 3), (1, 5), "<a[bc>de]"),
        ((1, 5), (0, 3), "[a<bc]de>"),
    ],
    ids=[
        "apart",
        "tail first",
        "tail ends the post",
        "head ends the post",
        "adjacent",
        "adjacent, tail first",
        "tail nested",
        "head nested",
        "tail nested at the start",
        "head nested at the start",
        "tail nested at the end",
        "head nested at the end",
        "same words",
        "same words, the whole post",
        "overlap",
        "overlap, tail first",
    ],
)
def test_markers_surround_their_entities(head: Span, tail: Span, expected: str, tokenizer: WordTokenizer) -> None:
    assert spelled(mark("a b c d e", head, tail, tokenizer), tokenizer) == expected


def test_defect_19_an_entity_that_ends_the_sentence_keeps_its_closing_marker(tokenizer: WordTokenizer) -> None:
    """STYLE.md 2.1, defect 19: the released code dropped it."""
    ids = mark("a b c", (0, 1), (2, 3), tokenizer).input_ids
    assert ids[-2] == tokenizer.marker_ids[TAIL_END]
    assert all(ids.count(marker) == 1 for marker in tokenizer.marker_ids.values())


@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_defect_20_truncation_keeps_both_entities(at: str, tokenizer: WordTokenizer) -> None:
    """STYLE.md 2.1, defect 20: plain right truncation cut an opening marker off."""
    first = {"start": 0, "middle": 40, "end": 77}[at]
    post = " ".join(LETTERS[number % 26] for number in range(80))
    marked = mark(post, (first, first + 1), (first + 2, first + 3), tokenizer, max_length=17)
    text = spelled(marked, tokenizer)
    assert len(marked.input_ids) == 17
    a, b, c = (LETTERS[(first + number) % 26] for number in range(3))
    assert f"<{a}>{b}[{c}]" in text


def test_context_on_both_sides_is_as_even_as_it_can_be(tokenizer: WordTokenizer) -> None:
    post = " ".join(LETTERS[:21])
    assert spelled(mark(post, (10, 11), (10, 11), tokenizer, 13), tokenizer) == "hij<[k]>lmn"
    assert spelled(mark(post, (10, 11), (10, 11), tokenizer, 12), tokenizer) == "hij<[k]>lm"


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ((0, 1), (2, 4), "001000222000"),
        ((3, 4), (0, 1), "002000001000"),
        ((0, 4), (2, 3), "001102201000"),
        ((1, 3), (1, 3), "000022200000"),
    ],
    ids=["apart", "tail first", "tail inside the head", "the same span"],
)
def test_piece_indices_of_both_mentions_are_returned(
    head: Span, tail: Span, expected: str, tokenizer: WordTokenizer
) -> None:
    marked = mark("a b cd e f", head, tail, tokenizer)
    assert len(marked.mentions) == len(marked.input_ids)
    assert "".join(map(str, marked.mentions)) == expected


def test_unused_room_on_one_side_goes_to_the_other(tokenizer: WordTokenizer) -> None:
    post = " ".join(LETTERS[:12])
    assert spelled(mark(post, (1, 2), (1, 2), tokenizer, 12), tokenizer) == "a<[b]>cdef"
    assert spelled(mark(post, (10, 11), (10, 11), tokenizer, 12), tokenizer) == "ghij<[k]>l"


def test_a_long_word_is_kept_whole_or_dropped(tokenizer: WordTokenizer) -> None:
    marked = mark("abcdefgh a b", (1, 2), (2, 3), tokenizer, max_length=13)
    assert spelled(marked, tokenizer) == "<a>[b]"


def test_markers_in_the_text_are_plain_characters(tokenizer: WordTokenizer) -> None:
    """STYLE.md 2.1, defect 20: a marker spelled out in the post was found as a second one."""
    post = f"{HEAD_START} [SEP] [CLS] {TAIL_END} a b"
    ids = mark(post, (4, 5), (5, 6), tokenizer).input_ids
    special = [*tokenizer.marker_ids.values(), *tokenizer.prefix, *tokenizer.suffix]
    assert [ids.count(piece) for piece in special] == [1] * 6


@pytest.mark.parametrize("nothing", ["\ufe0f", "\u200b", "\u200d", "\u00ad", "\u00a0", "\u0092", "\ufffd", ""])
def test_a_word_that_the_tokenizer_drops_keeps_its_position(nothing: str, tokenizer: WordTokenizer) -> None:
    words = ["a", nothing, "b", nothing]
    pieces = tokenizer.pieces([words])[0]
    assert [len(ids) for ids in pieces] == [1, 1, 1, 1]
    marked = mark_entities(pieces, (1, 2), (3, 4), tokenizer, 80)
    head, tail = tokenizer.marker_ids[HEAD_START], tokenizer.marker_ids[TAIL_START]
    unknown = tokenizer.unknown_id
    assert marked.input_ids[marked.head_index : marked.head_index + 2] == [head, unknown]
    assert marked.input_ids[marked.tail_index : marked.tail_index + 2] == [tail, unknown]


def test_a_window_that_cannot_hold_both_entities_is_an_error(tokenizer: WordTokenizer) -> None:
    post = " ".join(LETTERS)
    with pytest.raises(DataError, match="take 26 word pieces, 10 fit: raise max_length"):
        mark(post, (0, 1), (25, 26), tokenizer, max_length=16)
    assert len(mark(post, (0, 1), (25, 26), tokenizer, max_length=32).input_ids) == 32
    with pytest.raises(DataError, match="take 26 word pieces, 0 fit"):
        mark(post, (0, 1), (25, 26), tokenizer, max_length=3)


@st.composite
def posts(draw: st.DrawFn) -> tuple[list[list[int]], Span, Span, int]:
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=25))
    spans = []
    for _ in range(2):
        start = draw(st.integers(0, len(lengths) - 1))
        spans.append((start, draw(st.integers(start + 1, len(lengths)))))
    # All pieces have distinct ids below the markers' ids, so that ids identify positions.
    numbers = iter(range(1000, 2000))
    pieces = [[-next(numbers) for _ in range(length)] for length in lengths]
    return pieces, spans[0], spans[1], draw(st.integers(6, 80))


@given(posts())
def test_the_result_without_markers_is_a_window_of_the_post(
    tokenizer: WordTokenizer, drawn: tuple[list[list[int]], Span, Span, int]
) -> None:
    pieces, head, tail, max_length = drawn
    both = [piece for word in pieces[min(head[0], tail[0]) : max(head[1], tail[1])] for piece in word]
    budget = max_length - len(MARKERS) - 2
    if len(both) > budget:
        with pytest.raises(DataError):
            mark_entities(pieces, head, tail, tokenizer, max_length)
        return
    marked = mark_entities(pieces, head, tail, tokenizer, max_length)
    markers = set(tokenizer.marker_ids.values())
    ids = marked.input_ids
    window = [piece for piece in ids if piece not in markers][1:-1]
    whole = [piece for word in pieces for piece in word]
    start = whole.index(window[0])
    assert window == whole[start : start + len(window)]
    assert set(both) <= set(window)
    assert len(ids) <= max_length
    for piece, word in zip(ids, marked.word_ids, strict=True):
        assert word == next((number for number, word_pieces in enumerate(pieces) if piece in word_pieces), NO_WORD)
    # Only whole words, and no further word would have fitted on either side.
    kept = [word for word in pieces if set(word) & set(window)]
    assert [piece for word in kept for piece in word] == window
    first, last = pieces.index(kept[0]), pieces.index(kept[-1])
    neighbours = pieces[max(0, first - 1) : first] + pieces[last + 1 : last + 2]
    assert all(len(window) + len(word) > budget for word in neighbours)
    for span, opens, closes, index in (
        (head, HEAD_START, HEAD_END, marked.head_index),
        (tail, TAIL_START, TAIL_END, marked.tail_index),
    ):
        assert [ids.count(tokenizer.marker_ids[marker]) for marker in (opens, closes)] == [1, 1]
        assert ids[index] == tokenizer.marker_ids[opens]
        inner = ids[index : ids.index(tokenizer.marker_ids[closes])]
        entity = [piece for word in pieces[slice(*span)] for piece in word]
        assert [piece for piece in inner if piece not in markers] == entity
        # There are only markers between an opening marker and its entity, and between entity and closing marker.
        assert set(ids[index : ids.index(entity[0])]) <= markers


@pytest.mark.parametrize(
    ("head", "tail", "places"),
    [
        ((0, 1), (3, 5), [1, 2, 5, 7]),
        ((3, 5), (0, 1), [5, 7, 1, 2]),
        ((0, 5), (2, 3), [1, 7, 4, 4]),
        ((0, 3), (1, 5), [1, 4, 3, 7]),
        ((1, 3), (1, 3), [3, 4, 3, 4]),
        ((4, 5), (3, 4), [6, 7, 5, 5]),
    ],
    ids=["apart", "tail first", "nested", "overlapping", "the same", "adjacent, at the end"],
)
def test_levitated_markers_are_at_the_first_and_last_piece(
    head: Span, tail: Span, places: list[int], tokenizer: WordTokenizer
) -> None:
    pieces = tokenizer.pieces([["ab", "c", "d", "e", "fg"]])[0]
    marked = levitate_markers(pieces, head, tail, tokenizer, 200)
    assert marked.places == places
    assert (marked.head_index, marked.tail_index) == (places[0], places[2])
    assert marked.input_ids == [*tokenizer.prefix, *(piece for word in pieces for piece in word), *tokenizer.suffix]
    assert marked.word_ids == [NO_WORD, 0, 0, 1, 2, 3, 4, 4, NO_WORD]
    assert [number > 0 for number in marked.mentions] == [
        any(start <= word < end for start, end in (head, tail)) for word in marked.word_ids
    ]


def test_levitated_markers_take_no_room_and_move_with_the_window(tokenizer: WordTokenizer) -> None:
    pieces = tokenizer.pieces([list("abcdefghij")])[0]
    whole = levitate_markers(pieces, (4, 5), (6, 8), tokenizer, 12)
    assert whole.input_ids[1:-1] == [piece for word in pieces for piece in word]
    cut = levitate_markers(pieces, (4, 5), (6, 8), tokenizer, 8)
    assert cut.word_ids == [NO_WORD, 3, 4, 5, 6, 7, 8, NO_WORD]
    assert cut.places == [2, 2, 4, 5]
    with pytest.raises(DataError, match="take 4 word pieces, 3 fit: raise max_length or leave the row out"):
        levitate_markers(pieces, (4, 5), (6, 8), tokenizer, 5)


def test_positions_of_several_pairs_are_padded() -> None:
    places = marker_places([[[1, 2, 4, 4], [3, 3, 1, 1]], [[5, 6, 2, 2]]])
    assert places.tolist() == [[[1, 2, 4, 4], [3, 3, 1, 1]], [[5, 6, 2, 2], [-1] * 4]]
    assert opening(places).tolist() == [[1, 4, 3, 1], [5, 2, -1, -1]]
