"""What is extracted from a post: plain data that JSON can hold."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

from mmib.schema import ENTITY_TYPES, NO_RELATION, RELATIONS, InputError


@dataclass(frozen=True)
class Evidence:
    """What a prediction rests on.

    Attributes:
        tokens: characters [start, end) of each word.
        kl: nats that the latents of each word hold; None for a word that the encoder does not see.
        regions: box x0 y0 x1 y1 in 0..1 of each image region, zeros where unknown; empty without an image.
        kl_image: nats that the latents of each region hold.
        attention: weights over the regions, adding up to 1: of each word (entities), None where it is not seen, or of
            head and tail (relations). Empty without an image or for a fusion that does not attend.
        agreement: how well text and image belong together, as the model was trained to tell: a cosine (InfoNCE) or a
            probability (JSD); None without an image.
    """

    tokens: list[tuple[int, int]]
    kl: list[float | None]
    regions: list[tuple[float, float, float, float]]
    kl_image: list[float]
    attention: list[list[float] | None]
    agreement: float | None


@dataclass(frozen=True)
class Entity:
    """A named entity.

    Attributes:
        text: its characters.
        start, end: where they stand in the post, [start, end).
        type: PER, LOC, ORG or MISC; None where it was given without one.
        confidence: 0 to 1, the least calibrated CRF marginal among its words; None where it was given.
        spread: standard deviation of the confidence over samples of the latents, where these were asked for.
    """

    text: str
    start: int
    end: int
    type: str | None = None
    confidence: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Relation:
    """A relation between two entities.

    Attributes:
        label: one of `mmib.schema.RELATIONS` but None.
        head, tail: positions in `Extraction.entities`.
        confidence: 0 to 1, the calibrated probability of the label.
        compatible: whether the label's argument types are those of the entities; of an unknown type nothing is asked.
        spread: standard deviation of the confidence over samples of the latents, where these were asked for.
        evidence: where it was asked for.
    """

    label: str
    head: int
    tail: int
    confidence: float
    compatible: bool
    spread: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Extraction:
    """What was found in a post.

    Attributes:
        text: the post.
        entities: in order of the text.
        relations: type-compatible ones first, surest first.
        notes: what the reader of the result should know: what was not looked at, and why.
        evidence: of the entities, where it was asked for.
    """

    text: str
    entities: list[Entity]
    relations: list[Relation]
    notes: list[str] = field(default_factory=list)
    evidence: Evidence | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what was not asked for is left out."""
        return _known(asdict(self))


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        absent = {"evidence", "spread"}
        return {key: _known(own) for key, own in value.items() if own is not None or key not in absent}
    return [_known(own) for own in value] if isinstance(value, list | tuple) else value


def argument_types(label: str) -> tuple[str, str] | None:
    """Types that a relation asks of head and tail, which its name tells: /per/org/member_of; None of no relation."""
    if label == NO_RELATION:
        return None
    _, head, tail, _ = label.split("/")
    return head.upper(), tail.upper()


def fits(label: str, head: str | None, tail: str | None) -> bool:
    """Whether a relation may hold between entities of these types; an unknown type fits everything."""
    wanted = argument_types(label)
    return wanted is not None and all(
        own is None or own == asked for own, asked in zip((head, tail), wanted, strict=True)
    )


@functools.cache
def may_relate(head: str | None, tail: str | None) -> bool:
    """Whether any relation may hold between entities of these types, in this order."""
    return any(fits(label, head, tail) for label in RELATIONS)


def given_entity(text: str, entity: Any) -> Entity:
    """An entity as a caller gives it: an `Entity`, a mapping with start, end and maybe type, or a tuple of these.

    Raises:
        InputError: it is none, or does not lie in the text.
    """
    start: Any
    end: Any
    name: Any
    if isinstance(entity, Entity):
        start, end, name = entity.start, entity.end, entity.type
    elif isinstance(entity, dict):
        start, end, name = entity.get("start"), entity.get("end"), entity.get("type")
    elif isinstance(entity, list | tuple) and len(entity) in (2, 3):
        start, end, name = (*entity, None)[:3]
    else:
        raise InputError(f"{entity!r} is no entity: give start and end, in characters, and its type where known")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise InputError(f"the entity [{start!r}, {end!r}) does not lie in the text of {len(text)} characters")
    if not text[start:end].strip():
        raise InputError(f"the entity [{start}, {end}) is nothing but space")
    if name is not None and name not in ENTITY_TYPES:
        raise InputError(f"the entity type {name!r} is none of {', '.join(ENTITY_TYPES)}")
    return Entity(text[start:end], start, end, name)
