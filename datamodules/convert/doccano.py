"""doccano: reading and writing of its JSON lines, with or without relations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mmib.datamodules.convert.images import image_name
from mmib.datamodules.convert.lines import parsed
from mmib.datamodules.convert.offsets import Offsets, Unit
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import (
    AnnotatedPost,
    Arrow,
    Mention,
    Notes,
    checked_id,
    checked_text,
    linked,
    placed,
)
from mmib.schema import DataError

# Unit of doccano's offsets, unless a project enables "count grapheme clusters as one character".
OFFSETS: Unit = "utf-16"
SPANS = ("label", "labels")
ENTITIES, RELATIONS = "entities", "relations"


def read(path: Path, options: Options, notes: Notes) -> Iterator[AnnotatedPost]:
    """Yield the annotated posts of an export.

    Raises:
        DataError: the file cannot be read, or a line is malformed.
    """
    return parsed(path, partial(_post, options=options, notes=notes))


def write(posts: Iterable[AnnotatedPost], file: BinaryIO, options: Options, notes: Notes) -> None:
    """Write one post per line: entities with ids and relations if any post has relations, else [start, end, type]."""
    every = list(posts)
    with_relations = any(post.relations for post in every)
    for post in every:
        file.write(json.dumps(_line(post, with_relations, options, notes), ensure_ascii=False).encode() + b"\n")


def _post(place: str, line: dict[str, Any], options: Options, notes: Notes) -> AnnotatedPost | None:
    text = checked_text(line.get("text"), place)
    if not text.strip():
        notes.add("posts without text: left out", place)
        return None
    keys = [key for key in (*SPANS, ENTITIES) if key in line]
    if len(keys) > 1:
        raise DataError(f"{place} has {keys[0]!r} and {keys[1]!r}: keep one of them")
    spans = _list(line, keys[0], place) if keys else []
    if not keys:
        notes.add(
            f"posts without any of {', '.join(map(repr, (*SPANS, ENTITIES)))}: taken for posts without entities", place
        )
    if line.get("Comments"):
        notes.add("posts with comments: the comments are left out", place)
    offsets = Offsets(text, options.offsets or OFFSETS)
    ids: dict[int | str, int] = {}
    entities: list[Mention] = []
    for span in spans:
        identity, start, end, name = _span(span, keys[0], place)
        characters = placed(offsets, start, end, place, notes)
        if characters is None:
            continue
        if identity is not None:
            ids[identity] = len(entities)
        entities.append(Mention(*characters, name))
    arrows = [_arrow(relation, place) for relation in _list(line, RELATIONS, place)]
    image = line.get(options.image_field or "image")
    name = image_name(image, options.images, place, notes) if isinstance(image, str) and image else ""
    return AnnotatedPost(
        checked_id(line.get("id"), place), text, name, entities, linked(ids, arrows, place, notes), place
    )


def _list(line: dict[str, Any], key: str, place: str) -> list[Any]:
    value = line.get(key) or []
    if not isinstance(value, list):
        raise DataError(f"{place}: {key!r} is {value!r}: expected a list")
    return value


def _span(span: Any, key: str, place: str) -> tuple[int | None, int, int, str]:
    """Id, offsets and type of an entity."""
    if isinstance(span, list) and len(span) == 3:
        identity, (start, end, name) = None, span
    elif isinstance(span, dict):
        identity, start, end, name = (span.get(part) for part in ("id", "start_offset", "end_offset", "label"))
    else:
        start = end = name = identity = None
    if type(start) is not int or type(end) is not int or not isinstance(name, str) or not name:
        raise DataError(
            f"{place}: {key!r} holds {str(span)[:80]}: expected [start, end, type], or id, start_offset, "
            "end_offset and label, as doccano exports sequence labelling"
        )
    return identity if type(identity) is int else None, start, end, name


def _arrow(relation: Any, place: str) -> Arrow:
    head, tail, name = (
        relation.get(part) if isinstance(relation, dict) else None for part in ("from_id", "to_id", "type")
    )
    if type(head) is not int or type(tail) is not int or not isinstance(name, str) or not name:
        raise DataError(f"{place}: the relation {str(relation)[:80]} must have from_id, to_id and type")
    return Arrow(head, tail, name)


def _line(post: AnnotatedPost, with_relations: bool, options: Options, notes: Notes) -> dict[str, Any]:
    offsets = Offsets(post.text, options.offsets or OFFSETS)
    spans = [(*offsets.units(entity.start, entity.end), entity.type) for entity in post.entities]
    if post.confidences():
        notes.add("posts with confidences: the confidences are left out", post.place)
    line: dict[str, Any] = {"text": post.text} if post.id is None else {"id": post.id, "text": post.text}
    if post.image:
        line[options.image_field or "image"] = options.image_prefix + post.image
    if not with_relations:
        return {**line, "label": [list(span) for span in spans]}
    entities = [
        {"id": number, "start_offset": start, "end_offset": end, "label": name}
        for number, (start, end, name) in enumerate(spans)
    ]
    relations = [
        {"id": number, "from_id": relation.head, "to_id": relation.tail, "type": relation.type}
        for number, relation in enumerate(post.relations)
    ]
    return {**line, ENTITIES: entities, RELATIONS: relations}
