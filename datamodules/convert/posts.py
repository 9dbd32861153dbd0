"""Annotated posts in a common form, which all formats are converted to and from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmib.base.wording import counted
from mmib.datamodules.convert.offsets import Offsets
from mmib.labels import shown
from mmib.schema import DataError

PLACES_SHOWN = 3


class Mention(NamedTuple):
    """An entity of a post.

    Attributes:
        start, end: its characters, [start, end).
        type: its type.
        confidence: confidence of a prediction, 0 to 1.
    """

    start: int
    end: int
    type: str
    confidence: float | None = None


class Link(NamedTuple):
    """A relation of a post.

    Attributes:
        head, tail: indices in the post's entities.
        type: its name.
        confidence: confidence of a prediction, 0 to 1.
    """

    head: int
    tail: int
    type: str
    confidence: float | None = None


@dataclass(frozen=True)
class AnnotatedPost:
    """A post with its annotated entities and relations.

    Attributes:
        id: its id in the file.
        text: its text.
        image: path of its image, in the form used in the file; empty without one.
        entities, relations: its annotations.
        place: its location in the file, for messages.
    """

    id: str | int | None
    text: str
    image: str
    entities: list[Mention]
    relations: list[Link]
    place: str

    def confidences(self) -> list[float]:
        """The confidences of the entities and relations that have one."""
        found = [entity.confidence for entity in self.entities] + [relation.confidence for relation in self.relations]
        return [confidence for confidence in found if confidence is not None]


@dataclass
class Notes:
    """Records of what was left out or changed in a conversion, with places."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, place: str) -> None:
        """Record a change at a place; `text` names the things, in the plural, and what was done to them."""
        self.places.setdefault(text, []).append(place)

    def __str__(self) -> str:
        return "\n".join(
            f"{counted(len(places), text)} ({_first(list(dict.fromkeys(places)))})"
            for text, places in self.places.items()
        )


class Arrow(NamedTuple):
    """A relation as in a file: between entity ids."""

    head: int | str
    tail: int | str
    type: str
    confidence: float | None = None


def linked(ids: Mapping[int | str, int], arrows: Iterable[Arrow], place: str, notes: Notes) -> list[Link]:
    """Convert relations between ids to relations between entity indices.

    Args:
        ids: index of each entity by its id.
        arrows: relations between ids.
        place: location of the post.
        notes: records relations that are left out.
    """
    links = []
    for arrow in arrows:
        if arrow.head not in ids or arrow.tail not in ids:
            notes.add("relations whose head or tail is not an entity of the post: left out", place)
        elif arrow.head == arrow.tail:
            notes.add("relations of an entity with itself: left out", place)
        else:
            links.append(Link(ids[arrow.head], ids[arrow.tail], arrow.type, arrow.confidence))
    return links


def placed(offsets: Offsets, start: int, end: int, place: str, notes: Notes) -> tuple[int, int] | None:
    """Return the characters [start, end) of an entity; record and return None if the span is invalid.

    The span is extended to whole grapheme clusters, such as an emoji of several characters: training rejects parts of
    them.
    """
    span = offsets.characters(start, end)
    if span is None or not offsets.text[slice(*span)].strip():
        notes.add("entities blank, outside the text or ending inside a character: left out (see --offsets)", place)
        return None
    seen = Offsets(offsets.text, "graphemes")
    whole = seen.characters(*seen.units(*span)) or span
    if whole != span:
        notes.add("entities starting or ending inside a visible character: extended to the whole character", place)
    return whole


def checked_text(text: Any, place: str) -> str:
    """Check the text of a post.

    Raises:
        DataError: it is not a string.
    """
    if not isinstance(text, str):
        raise DataError(f"{place}: the text is {text!r}: expected a string")
    return text


def checked_id(identity: Any, place: str) -> str | int | None:
    """Check the id of a post, which may be None.

    Raises:
        DataError: it is neither a string nor an integer.
    """
    if not isinstance(identity, str | int | None):
        raise DataError(f"{place}: the id is {identity!r}: expected a text or a whole number")
    return identity


def counts(posts: Iterable[AnnotatedPost]) -> str:
    """Counts of posts, images, and entities and relations by type, in one line."""
    number = pictured = 0
    entities, relations = Counter[str](), Counter[str]()
    for post in posts:
        number += 1
        pictured += bool(post.image)
        entities.update(entity.type for entity in post.entities)
        relations.update(relation.type for relation in post.relations)
    return f"{counted(number, 'posts')} ({pictured:,} with an image), {_by_type(entities, 'entities')}, " + _by_type(
        relations, "relations"
    )


def _first(places: list[str]) -> str:
    more = f" and {len(places) - PLACES_SHOWN:,} more" if len(places) > PLACES_SHOWN else ""
    return "; ".join(places[:PLACES_SHOWN]) + more


def _by_type(found: Counter[str], what: str) -> str:
    types = [f"{name} {count:,}" for name, count in found.most_common()]
    return counted(found.total(), what) + (f" ({shown(types)})" if types else "")
