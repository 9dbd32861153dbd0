"""A post as a line of JSON: where its entities are, and refusals."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.datamodules.jsonl_lines import AnnotatedPost, Relation, parse_post
from mmib.records import Entity
from mmib.schema import DataError

PLACE = "posts.jsonl:7"


def entity(start: Any, end: Any, name: Any = "TEAM", **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "type": name, **more}


def parsed(**row: Any) -> AnnotatedPost:
    return parse_post(json.dumps({"entities": [], "relations": [], **row}), PLACE, ("entities", "relations"))


def texts(post: AnnotatedPost) -> list[list[str]]:
    return [post.words[found.start : found.end] for found in post.entities]


def test_offsets_count_characters_in_a_text() -> None:
    text = "RT @ada: Foo United won, \U0001f525!"
    post = parsed(text=text, entities=[entity(9, 19), entity(25, 26, "emoji")], image="a.jpg", id=3)
    assert post == AnnotatedPost(
        words=["RT", "@ada", ":", "Foo", "United", "won", ",", "\U0001f525", "!"],
        image="a.jpg",
        place=PLACE,
        entities=[Entity("TEAM", 3, 5), Entity("emoji", 7, 8)],
        relations=[],
    )


def test_offsets_count_words_in_tokens() -> None:
    post = parsed(tokens=["Foo", "United", "\u00a0", "won."], entities=[entity(0, 2), entity(2, 3)])
    assert post.words == ["Foo", "United", "\u00a0", "won."]
    assert post.entities == [Entity("TEAM", 0, 2), Entity("TEAM", 2, 3)]


@pytest.mark.parametrize(
    ("text", "span", "words"),
    [
        ("Pre-Foo-post", (4, 7), ["Pre", "-", "Foo", "-", "post"]),
        ("#FooUnited", (1, 4), ["#", "Foo", "United"]),
        ("東京タワー", (0, 2), ["東", "京", "タ", "ワ", "ー"]),
        ("a Foo b", (1, 6), ["a", "Foo", "b"]),  # including the surrounding blanks
        # Persian: the plural suffix follows a zero-width non-joiner.
        ("\u0628\u062a\u200c\u0646\u0627", (0, 2), ["\u0628\u062a", "\u200c", "\u0646\u0627"]),
    ],
)
def test_a_word_is_split_where_an_entity_ends_inside_it(text: str, span: tuple[int, int], words: list[str]) -> None:
    post = parsed(text=text, entities=[entity(*span)])
    assert post.words == words
    assert "".join(texts(post)[0]) == text[slice(*span)].strip()


@given(st.text(st.sampled_from("ab -#@.é東\U0001f525"), min_size=1, max_size=20), st.data())
def test_the_words_of_an_entity_cover_its_characters_without_blanks(text: str, data: st.DataObject) -> None:
    spans = data.draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=4))
    spans = [(start, end) for start, end in spans if text[start:end].strip()]
    if text.strip():
        post = parsed(text=text, entities=[entity(*span) for span in spans])
        assert ["".join(words) for words in texts(post)] == ["".join(text[s:e].split()) for s, e in spans]


def test_relations_refer_to_entities_by_position() -> None:
    relations = [{"head": 1, "tail": 0, "type": "plays-for"}, {"head": 0, "tail": 1, "type": "fan of"}]
    post = parsed(tokens=["a", "b"], entities=[entity(0, 1), entity(1, 2)], relations=relations)
    assert post.relations == [Relation("plays-for", 1, 0), Relation("fan of", 0, 1)]


@pytest.mark.parametrize("ids", [("e7", "e9"), (1, 0), ("1", 1)])
def test_relations_refer_to_entities_by_id_if_they_have_ids(ids: tuple[Any, Any]) -> None:
    entities = [entity(0, 1, id=ids[0]), entity(1, 2, id=ids[1])]
    post = parsed(tokens=["a", "b"], entities=entities, relations=[{"head": ids[0], "tail": ids[1], "type": "r"}])
    assert post.relations == [Relation("r", 0, 1)]


@pytest.mark.parametrize("image", [None, ""])
def test_a_post_may_have_no_image(image: Any) -> None:
    assert parsed(text="a", image=image).image == parsed(text="a").image == ""


def test_additional_keys_are_ignored() -> None:
    post = parsed(text="a b", meta={"x": [1]}, entities=[entity(0, 1, score=0.3)])
    assert post.entities == [Entity("TEAM", 0, 1)]


def test_optional_lists_may_be_missing() -> None:
    assert parse_post('{"text": "a", "entities": []}', PLACE, ("entities",)).relations == []


def refused(line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^{PLACE}: .*{message}") as caught:
        parse_post(line, PLACE, ("entities", "relations"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON \(.*\): write each post as one object in one line"),
        ("[" * 5_000, r"not JSON \(it is nested too deeply\)"),
        ('["a"]', r"expected an object with 'text' or 'tokens', got \['a'\]"),
        ('{"entities": []}', "give a post either 'text' or 'tokens'"),
        ('{"text": "a", "tokens": ["a"]}', "give a post either 'text' or 'tokens', whichever the offsets"),
        (
            '{"text": "a", "entites": []}',
            "'entities' is missing: is 'entites' meant for it\\? Else write an empty list",
        ),
        ('{"text": "a", "entities": []}', "'relations' is missing: write an empty list"),
    ],
)
def test_an_invalid_line_is_refused_with_its_location(line: str, message: str) -> None:
    refused(line, message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": " \n"}, r"'text' is ' \\n': give a text with at least one word"),
        ({"text": 3}, "'text' is 3: give a text"),
        ({"tokens": []}, r"'tokens' is \[\]: give a list of at least one word, none of them empty"),
        ({"tokens": ["a", ""]}, "none of them empty"),
        ({"tokens": "a b"}, "'tokens' is 'a b': give a list"),
        ({"text": "a", "image": 7}, "'image' is 7: give the name of a file, or leave it out"),
        ({"text": "a", "entities": {"start": 0}}, "'entities' is .*: give a list of objects"),
        ({"text": "a", "entities": [[0, 1, "X"]]}, "'entities' is .*: give a list of objects"),
        (
            {"text": "ab", "entities": [entity(0, 3)]},
            r"entities\[0\] from 0 to 3 lies outside the post of 2 characters",
        ),
        ({"text": "ab", "entities": [entity(-1, 1)]}, "lies outside the post of 2 characters .*: count characters"),
        ({"tokens": ["ab"], "entities": [entity(0, 2)]}, "from 0 to 2 lies outside the post of 1 tokens: count tokens"),
        ({"text": "ab", "entities": [entity(1, 1)]}, r"entities\[0\] from 1 to 1 is empty or reversed: count"),
        ({"text": "ab", "entities": [entity(0, 1), entity(2, 0)]}, r"entities\[1\] from 2 to 0 is empty or reversed"),
        ({"text": "a  b", "entities": [entity(1, 3)]}, "from 1 to 3 is blank: correct its offsets, or remove it"),
        ({"text": "ab", "entities": [entity("0", 1)]}, "has the start '0' and the end 1: give two whole numbers"),
        ({"text": "ab", "entities": [entity(0, True)]}, "and the end True: give two whole numbers"),
        ({"text": "ab", "entities": [{"start": 0, "type": "X"}]}, "and the end None: give two whole numbers"),
        (
            {"text": "ab", "entities": [entity(0, 1, None)]},
            r"the type of entities\[0\] is None: give its name as 'type'",
        ),
        ({"text": "ab", "entities": [entity(0, 1, " ")]}, r"the type of entities\[0\] is ' ': give its name as 'type'"),
        # Inside a woman with a laptop, an accented letter, a flag.
        ({"text": "\U0001f469\u200d\U0001f4bb", "entities": [entity(0, 1)]}, "lies inside a character: make it 0 or 3"),
        ({"text": "xe\u0301y", "entities": [entity(2, 4)]}, "the offset 2 .* lies inside a character: make it 1 or 3"),
        ({"text": "\U0001f1eb\U0001f1f7!", "entities": [entity(1, 3)]}, "lies inside a character: make it 0 or 2"),
        ({"text": "a \ud83d b"}, "holds an unpaired surrogate"),
        ({"text": "a", "image": "\udc00.jpg"}, "holds an unpaired surrogate, which is not a character"),
    ],
)
def test_invalid_text_and_entities_are_refused(row: dict[str, Any], message: str) -> None:
    refused(json.dumps({"entities": [], "relations": [], **row}), message)


TWO = [entity(0, 1), entity(1, 2)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"relations": "none"}, "'relations' is 'none': give a list of objects"),
        ({"relations": [{"head": 0, "tail": 2, "type": "r"}]}, "the tail of .* is 2: give its position among the 2"),
        (
            {"relations": [{"head": "0", "tail": 1, "type": "r"}]},
            r"the head of relations\[0\] is '0': give its position",
        ),
        ({"relations": [{"head": True, "tail": 0, "type": "r"}]}, "the head of .* is True: give its position"),
        ({"relations": [{"head": -1, "tail": 0, "type": "r"}]}, "the head of .* is -1: give its position"),
        ({"relations": [{"tail": 0, "type": "r"}]}, "the head of .* is None: give its position"),
        ({"relations": [{"head": 1, "tail": 1, "type": "r"}]}, "head and tail of .* are the same entity"),
        ({"relations": [{"head": 1, "tail": 0}]}, r"the type of relations\[0\] is None: give its name as 'type'"),
        ({"entities": [{**TWO[0], "id": 1}, TWO[1]]}, "give every entity of the post a unique 'id'"),
        ({"entities": [{**entry, "id": 1} for entry in TWO]}, "give every entity of the post a unique 'id'"),
        ({"entities": [{**TWO[0], "id": [1]}, {**TWO[1], "id": 2}]}, "a number or a string, or give none"),
        (
            {
                "entities": [{**TWO[0], "id": "e1"}, {**TWO[1], "id": "e2"}],
                "relations": [{"head": 0, "tail": "e2", "type": "r"}],
            },
            r"the head of relations\[0\] is 0: give the id of an entity",
        ),
    ],
)
def test_invalid_relations_are_refused(row: dict[str, Any], message: str) -> None:
    refused(json.dumps({"tokens": ["a", "b"], "entities": TWO, "relations": [], **row}), message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["start", "end", "type", "head", "tail", "id"]), inner, max_size=4)
    ),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(["text", "tokens", "entities", "relations", "image", "id"]), VALUES)


@given(st.builds(json.dumps, ROWS | VALUES) | st.text(max_size=20))
def test_any_line_is_either_a_post_or_refused(line: str) -> None:
    with contextlib.suppress(DataError):
        post = parse_post(line, PLACE, ("entities",))
        assert post.words
        assert all(0 <= found.start < found.end <= len(post.words) for found in post.entities)
