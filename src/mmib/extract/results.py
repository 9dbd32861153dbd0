"""Results of the extraction from a post: plain data that can be written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any

from mmib.labels import shown
from mmib.schema import InputError

# Keys that `Extraction.to_dict` omits if they are empty.
OPTIONAL = ("evidence", "spread", "labels")


@dataclass(frozen=True)
class Evidence:
    """The evidence for a prediction.

    Attributes:
        tokens: character offsets [start, end) of each word.
        kl: KL divergence of each word's latents in nats; None for a word that the encoder does not see.
        regions: box x0 y0 x1 y1 in 0..1 of each image region, zeros if unknown; empty without an image.
        kl_image: KL divergence of each region's latents in nats.
        attention: weights over the regions, which sum to 1: for each word (entities; None if the word is not seen),
            for head and tail (relations), or for the positions the classifier reads (labels of posts). Empty without
            an image, or if the fusion has no attention.
        similarity: how well text and image match, as trained: a cosine (InfoNCE) or a probability (JSD); None without
            an image.
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
        text: the text of the mention.
        start, end: its character offsets in the post, [start, end).
        type: a type of the label set; None if the entity was given without one.
        confidence: 0 to 1, the lowest calibrated CRF marginal of its words; None if the entity was given.
        spread: standard deviation of the confidence over samples of the latents, if requested.
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
        label: a label of the label set other than the negative class.
        head, tail: indices into `Extraction.entities`.
        confidence: 0 to 1, the calibrated probability of the label.
        compatible: whether the entities have the label's argument types; an entity without a type fits every relation,
            and a relation without argument types fits every pair.
        spread: standard deviation of the confidence over samples of the latents, if requested.
        evidence: the evidence for the label, if requested.
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
        label: a label of the label set, which may be the negative class.
        confidence: 0 to 1, the calibrated probability of the label.
        spread: standard deviation of the confidence over samples of the latents, if requested.
        evidence: the evidence for the label, if requested.
    """

    label: str
    confidence: float
    spread: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Extraction:
    """The result of the extraction from one post.

    Attributes:
        text: the text of the post.
        entities: in text order.
        relations: type-compatible ones first, then by decreasing confidence.
        notes: remarks for the reader of the result: which parts of the input were not read, and why.
        evidence: the evidence for the entities, if requested.
        labels: labels of the whole post, by the name of the task.
    """

    text: str
    entities: list[Entity]
    relations: list[Relation]
    notes: list[str] = field(default_factory=list)
    evidence: Evidence | None = None
    labels: dict[str, PostLabel] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON, without evidence, spread and labels that are empty."""
        result: dict[str, Any] = _filled(asdict(self))
        return result


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part) for key, part in value.items() if key not in OPTIONAL or part not in (None, {})}
    return [_filled(part) for part in value] if isinstance(value, list | tuple) else value


def given_entity(text: str, entity: Any, types: Sequence[str] | None = None) -> Entity:
    """Convert an entity given by a caller: an `Entity`, a mapping with start, end and maybe type, or a tuple.

    Args:
        text: the text of the post.
        entity: the given entity.
        types: allowed types; None for any.

    Raises:
        InputError: it is not an entity, is outside the text, or has another type.
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
        raise InputError(f"{entity!r} is not an entity: give start and end in characters, and the type if known")
    if not all(isinstance(place, Integral) and not isinstance(place, bool) for place in (start, end)):
        raise InputError(f"start and end of an entity are whole numbers of characters, got {start!r} and {end!r}")
    start, end = int(start), int(end)  # integers of NumPy cannot be written as JSON
    if not 0 <= start < end <= len(text):
        raise InputError(f"the entity [{start}, {end}) is outside the text of {len(text)} characters")
    if not text[start:end].strip():
        raise InputError(f"the entity [{start}, {end}) is nothing but space")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InputError(f"the entity type {name!r} is no text: name a type, or leave it out")
    if name is not None and types is not None and name not in types:
        raise InputError(f"the entity type {name!r} is none of {shown(types)}, those of the model")
    return Entity(text[start:end], start, end, name)
