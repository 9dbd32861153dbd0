"""BIO tags: tag names of a label set, and the entities that tags mark."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from mmib.records import Entity

OUTSIDE = "O"
BEGIN, INSIDE = "B", "I"


def bio_tags(types: Iterable[str]) -> tuple[str, ...]:
    """Return the tag names of entity types, by id: O, then B- and I- of each type."""
    return (OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in (BEGIN, INSIDE)))


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag at its first hyphen into prefix and type; the type of O, and of a tag without hyphen, is empty."""
    prefix, _, name = tag.partition("-")
    return prefix, name


def repair(tags: Sequence[str]) -> list[str]:
    """Convert tags to valid BIO: stray I- tags open an entity, as in seqeval's default mode."""
    repaired = []
    for before, tag in itertools.pairwise([OUTSIDE, *tags]):
        prefix, name = split_tag(tag)
        stray = prefix == INSIDE and (before == OUTSIDE or split_tag(before)[1] != name)
        repaired.append(f"{BEGIN}-{name}" if stray else tag)
    return repaired


def count_mentions(tags: Sequence[str]) -> list[int]:
    """Return the number of each tag's mention, from 1, or 0 for O; the tags must be valid BIO."""
    opened = itertools.accumulate(split_tag(tag)[0] == BEGIN for tag in tags)
    return [0 if tag == OUTSIDE else number for tag, number in zip(tags, opened, strict=True)]


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a post as in seqeval's default mode: a stray I- opens an entity."""
    found: list[Entity] = []
    for word, (mention, tag) in enumerate(zip(count_mentions(repair(tags)), tags, strict=True)):
        if mention == 0:
            continue
        if mention > len(found):
            found.append(Entity(split_tag(tag)[1], word, word + 1))
        else:
            found[-1] = Entity(found[-1].type, found[-1].start, word + 1)
    return found
