"""What is extracted from a post: plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmib.labels import shown
from mmib.schema import InputError

# Keys that `Extraction.to_dict` leaves out where there is nothing behind them.
OPTIONAL = ("evidence", "spread", "labels")


@dataclass(frozen=True)
class Evidence:
    """What a prediction rests on.

    Attributes:
        tokens: characters [start, end) of each word.
        kl: nats that the latents of each word hold; None for a word that the encoder does not see.
        regions: box x0 y0 x1 y1 in 0..1 of each image region, zeros where unknown; empty without an image.
        kl_image: nats that the latents of each region hold.
        attention: weights over the regions, adding up to 1: of each word (entities), None where it is not seen, of
            head and tail (relations), or of what the classifier reads (labels of posts). Empty without an image or for
            a fusion that does not attend.
        similarity: how well text and image belong together, as the model was trained to judge: a cosine (InfoNCE) or a
            probability (JSD); None without an image.
    """

    tokens: list[tuple[int, int]]
    kl: list[float | None]
    regions: list[tuple[float, float, float, float]]
    kl_image: list[float]
    attention: list[list[float] | None]
    similarity: float | None


@dataclass(frozen=True)
class Entity:
    """A named entity.

    Attributes:
        text: its characters.
        start, end: where they stand in the post, [start, end).
        type: one of the label set's; None where it was given without one.
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
        label: one of the label set's, and not its negative class.
        head, tail: positions in `Extraction.entities`.
        confidence: 0 to 1, the calibrated probability of the label.
        compatible: whether the label's argument types are those of the entities; an entity without a type fits every
            relation, and a relation without argument types every pair.
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
class PostLabel:
    """The label of a post as a whole.

    Attributes:
        label: one of the label set's, its negative class included.
        confidence: 0 to 1, the calibrated probability of the label.
        spread: standard deviation of the confidence over samples of the latents, where these were asked for.
        evidence: where it was asked for.
    """

    label: str
    confidence: float
    spread: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Extraction:
    """What was found in a post.

    Attributes:
        text: the post.
        entities: in order of the text.
        relations: type-compatible ones first, the most confident first.
        notes: what the reader of the result should know: what was not looked at, and why.
        evidence: of the entities, where it was asked for.
        labels: of the whole post, by the name of the task that gives it.
    """

    text: str
    entities: list[Entity]
    relations: list[Relation]
    notes: list[str] = field(default_factory=list)
    evidence: Evidence | None = None
    labels: dict[str, PostLabel] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what was not asked for is left out, and labels of posts where no model gives any."""
        result: dict[str, Any] = _filled(asdict(self))
        return result


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part) for key, part in value.items() if key not in OPTIONAL or part not in (None, {})}
    return [_filled(part) for part in value] if isinstance(value, list | tuple) else value


def given_entity(text: str, entity: Any, types: Sequence[str] | None = None) -> Entity:
    """An entity as a caller gives it: an `Entity`, a mapping with start, end and maybe type, or a tuple of these.

    Args:
        text: the post.
        entity: what was given.
        types: those that it may have; None for any.

    Raises:
        InputError: it is none, does not lie in the text, or is of another type.
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
        raise InputError(f"the entity [{start!r}, {end!r}) is outside the text of {len(text)} characters")
    if not text[start:end].strip():
        raise InputError(f"the entity [{start}, {end}) is nothing but space")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InputError(f"the entity type {name!r} is no text: name a type, or leave it out")
    if name is not None and types is not None and name not in types:
        raise InputError(f"the entity type {name!r} is none of {shown(types)}, those of the model")
    return Entity(text[start:end], start, end, name)
