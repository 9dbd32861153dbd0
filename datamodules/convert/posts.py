"""Annotated posts in the form that every format is read into and written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmib.datamodules.convert.offsets import Offsets
from mmib.labels import shown
from mmib.schema import DataError

PLACES_SHOWN = 3


class Mention(NamedTuple):
    """An entity of a post.

    Attributes:
        start, end: its characters, [start, end).
        type: its type.
        confidence: 0 to 1, of a prediction.
    """

    start: int
    end: int
    type: str
    confidence: float | None = None


class Link(NamedTuple):
    """A relation of a post.

    Attributes:
        head, tail: positions in the post's entities.
        type: its name.
        confidence: 0 to 1, of a prediction.
    """

    head: int
    tail: int
    type: str
    confidence: float | None = None


@dataclass(frozen=True)
class AnnotatedPost:
    """A post with what is marked in it.

    Attributes:
        id: what the file calls it.
        text: its text.
        image: path of its image, in whatever form the file names it; empty without one.
        entities, relations: what is marked in it.
        place: where it stands in its file, for messages.
    """

    id: str | int | None
    text: str
    image: str
    entities: list[Mention]
    relations: list[Link]
    place: str

    def confidences(self) -> list[float]:
        """Those of entities and relations that have one."""
        found = [entity.confidence for entity in self.entities] + [relation.confidence for relation in self.relations]
        return [confidence for confidence in found if confidence is not None]


@dataclass
class Notes:
    """What was left out or changed on the way from one format to another, and where."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, place: str) -> None:
        """Note something that happened at a place; `text` is what is counted, in the plural, and what became of it."""
        self.places.setdefault(text, []).append(place)

    def __str__(self) -> str:
        return "\n".join(
            f"{len(places):,} {text} ({_first(list(dict.fromkeys(places)))})" for text, places in self.places.items()
        )


class Arrow(NamedTuple):
    """A relation as files have it: between entities that are named by ids."""

    head: int | str
    tail: int | str
    type: str
    confidence: float | None = None


def linked(ids: Mapping[int | str, int], arrows: Iterable[Arrow], place: str, notes: Notes) -> list[Link]:
    """Relations between positions of entities.

    Args:
        ids: position of each entity by its id.
        arrows: relations between ids.
        place: where the post stands.
        notes: gets those that are left out.
    """
    links = []
    for arrow in arrows:
        if arrow.head not in ids or arrow.tail not in ids:
            notes.add("relations of which an end is no entity of the post: left out", place)
        elif arrow.head == arrow.tail:
            notes.add("relations of an entity with itself: left out", place)
        else:
            links.append(Link(ids[arrow.head], ids[arrow.tail], arrow.type, arrow.confidence))
    return links


def placed(offsets: Offsets, start: int, end: int, place: str, notes: Notes) -> tuple[int, int] | None:
    """The characters [start, end) of an entity; None where there are none, which is noted.

    What looks like one character stays whole, as in an emoji of several: training refuses a part of it.
    """
    span = offsets.characters(start, end)
    if span is None or not offsets.text[slice(*span)].strip():
        notes.add(
            "entities that are blank, outside the text or end inside a character: left out (see --offsets)", place
        )
        return None
    seen = Offsets(offsets.text, "graphemes")
    whole = seen.characters(*seen.units(*span)) or span
    if whole != span:
        notes.add("entities that end inside what looks like one character: they get the whole of it", place)
    return whole


def checked_text(text: Any, place: str) -> str:
    """The text of a post.

    Raises:
        DataError: it is no text.
    """
    if not isinstance(text, str):
        raise DataError(f"{place}: the text is {text!r}: expected a string")
    return text


def checked_id(identity: Any, place: str) -> str | int | None:
    """What a file calls a post; None where it has no name for it.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    if not isinstance(identity, str | int | None):
        raise DataError(f"{place}: the id is {identity!r}: expected a text or a whole number")
    return identity


def counts(posts: Iterable[AnnotatedPost]) -> str:
    """Posts, images, entities and relations by type, in one line."""
    number = pictured = 0
    entities, relations = Counter[str](), Counter[str]()
    for post in posts:
        number += 1
        pictured += bool(post.image)
        entities.update(entity.type for entity in post.entities)
        relations.update(relation.type for relation in post.relations)
    return f"{number:,} posts ({pictured:,} with an image), {_by_type(entities, 'entities')}, " + _by_type(
        relations, "relations"
    )


def _first(places: list[str]) -> str:
    more = f" and {len(places) - PLACES_SHOWN:,} more" if len(places) > PLACES_SHOWN else ""
    return "; ".join(places[:PLACES_SHOWN]) + more


def _by_type(found: Counter[str], what: str) -> str:
    types = [f"{name} {count:,}" for name, count in found.most_common()]
    return f"{found.total():,} {what}" + (f" ({shown(types)})" if types else "")
