"""Parsing of posts in JSON lines: words, entities and relations, with offsets in characters or tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import repr as shown
from typing import Any, NamedTuple

import regex

from mmib.base.files import parse_json
from mmib.datamodules.words import tokenize
from mmib.records import Entity
from mmib.schema import DataError, Post, Span

KEYS = ("id", "text", "tokens", "image", "entities", "relations")
# In Persian it separates parts of a word; Unicode's grapheme clusters attach it to the letter before.
NON_JOINER = "\u200c"


class Relation(NamedTuple):
    """A relation between two entities of a post: its name, and the indices of head and tail in `entities`."""

    type: str
    head: int
    tail: int


@dataclass(frozen=True, kw_only=True)
class AnnotatedPost(Post):
    """A post with its annotated entities and relations.

    Attributes:
        entities: in the order of the file; they may overlap.
        relations: in the order of the file.
    """

    entities: list[Entity]
    relations: list[Relation]


def parse_post(line: str, place: str, required: Sequence[str]) -> AnnotatedPost:
    """Parse the post of a line.

    Args:
        line: a JSON object.
        place: its `file:line`.
        required: which of `entities` and `relations` must be present, even if they are empty lists.

    Raises:
        DataError: the line is not such an object, or its values are invalid; the message names file and line.
    """
    try:
        return _post(parse_json(line), place, required)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}): write each post as one object in one line") from error
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _post(row: Any, place: str, required: Sequence[str]) -> AnnotatedPost:
    if not isinstance(row, dict):
        raise DataError(f"expected an object with 'text' or 'tokens', got {shown(row)}")
    if ("text" in row) == ("tokens" in row):
        raise DataError("give a post either 'text' or 'tokens', whichever the offsets of its entities count")
    missing = [key for key in required if key not in row]
    if missing:
        alike = get_close_matches(missing[0], [key for key in row if key not in KEYS], 1)
        meant = f"is {alike[0]!r} meant for it? Else " if alike else ""
        raise DataError(f"{missing[0]!r} is missing: {meant}write an empty list for a post without any")
    image = row.get("image")
    if not isinstance(image, str | None):
        raise DataError(f"'image' is {shown(image)}: give the name of a file, or leave it out")
    listed = _objects(row, "entities")
    words, spans = _in_text(row["text"], listed) if "text" in row else _in_tokens(row["tokens"], listed)
    types = [_name(entity, f"entities[{number}]") for number, entity in enumerate(listed)]
    entities = [Entity(name, start, end) for name, (start, end) in zip(types, spans, strict=True)]
    relations = _relations(_objects(row, "relations"), listed)
    return AnnotatedPost(words=words, image=image or "", place=place, entities=entities, relations=relations)


def _in_text(text: Any, entities: Sequence[dict[str, Any]]) -> tuple[list[str], list[Span]]:
    """Return the words of a text, split at the boundaries of entities, and the word span of each entity."""
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"'text' is {shown(text)}: give a text with at least one word")
    places = _places(text)
    spans = [_characters(text, places, entity, f"entities[{number}]") for number, entity in enumerate(entities)]
    tokens = tokenize(text, [offset for span in spans for offset in span])
    starts = [token.start for token in tokens]
    return [token.text for token in tokens], [(bisect_left(starts, s), bisect_left(starts, e)) for s, e in spans]


def _characters(text: str, places: frozenset[int], entity: dict[str, Any], name: str) -> Span:
    start, end = _span(entity, name, len(text), "characters (Unicode code points)")
    for offset in (start, end):
        if offset not in places:
            whole = f"{max(p for p in places if p < offset)} or {min(p for p in places if p > offset)}"
            raise DataError(f"the offset {offset} of {name} lies inside a character: make it {whole}")
    if not text[start:end].strip():
        raise DataError(f"{name} from {start} to {end} is blank: correct its offsets, or remove it")
    return start, end


def _places(text: str) -> frozenset[int]:
    """The offsets between user-perceived characters (grapheme clusters)."""
    inside = {place for place, character in enumerate(text) if character == NON_JOINER}
    return frozenset({match.start() for match in regex.finditer(r"\X", text)} | inside | {len(text)})


def _in_tokens(tokens: Any, entities: Sequence[dict[str, Any]]) -> tuple[list[str], list[Span]]:
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) and token for token in tokens):
        raise DataError(f"'tokens' is {shown(tokens)}: give a list of at least one word, none of them empty")
    return tokens, [_span(entity, f"entities[{n}]", len(tokens), "tokens") for n, entity in enumerate(entities)]


def _span(entity: dict[str, Any], name: str, length: int, unit: str) -> Span:
    start, end = entity.get("start"), entity.get("end")
    if type(start) is not int or type(end) is not int:
        raise DataError(f"{name} has the start {shown(start)} and the end {shown(end)}: give two whole numbers")
    if not 0 <= start < end <= length:
        wrong = "is empty or reversed" if start >= end else f"lies outside the post of {length} {unit}"
        raise DataError(f"{name} from {start} to {end} {wrong}: count {unit} from 0, with the end one past the last")
    return start, end


def _relations(listed: Sequence[dict[str, Any]], entities: Sequence[dict[str, Any]]) -> list[Relation]:
    """Return the relations between entities, which are named by their ids, or by position if they have none."""
    ids = [entity["id"] for entity in entities if "id" in entity]
    if ids and (any(type(identity) not in (int, str) for identity in ids) or len(set(ids)) < len(entities)):
        raise DataError("give every entity of the post a unique 'id', a number or a string, or give none an 'id'")
    known = ids or list(range(len(entities)))
    expected = "the id of an entity" if ids else f"its position among the {len(known)} entities, counted from 0"
    relations = []
    for number, relation in enumerate(listed):
        places = []
        for key in ("head", "tail"):
            end = relation.get(key)
            if type(end) not in (int, str) or end not in known:
                raise DataError(f"the {key} of relations[{number}] is {shown(end)}: give {expected}")
            places.append(known.index(end))
        if places[0] == places[1]:
            raise DataError(f"head and tail of relations[{number}] are the same entity: correct one of them")
        relations.append(Relation(_name(relation, f"relations[{number}]"), *places))
    return relations


def _objects(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = row.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{key!r} is {shown(listed)}: give a list of objects")
    return listed


def _name(entry: dict[str, Any], name: str) -> str:
    found = entry.get("type")
    if not isinstance(found, str) or not found.strip():
        lacking = "" if "type" in entry else f" ({name} has {', '.join(map(repr, entry))})"
        raise DataError(f"the type of {name} is {shown(found)}: give its name as 'type'{lacking}")
    return found
