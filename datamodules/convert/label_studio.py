"""Label Studio: reading of its JSON export, and writing of tasks with predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mmib.base.files import parse_json
from mmib.datamodules.convert.images import image_name, looks_like_image
from mmib.datamodules.convert.offsets import Offsets, Unit
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import (
    AnnotatedPost,
    Arrow,
    Link,
    Mention,
    Notes,
    checked_id,
    checked_text,
    linked,
    placed,
)
from mmib.datamodules.files import open_data
from mmib.schema import DataError

LAYOUT = "name a file that Label Studio exported as JSON"
# Older versions counted UTF-16 code units, as JavaScript does.
OFFSETS: Unit = "characters"
LABELS, RELATION = "labels", "relation"
FROM_NAME, TO_NAME = "label", "text"
REVERSED, BOTH = "left", "bi"


def read(path: Path, options: Options, notes: Notes) -> Iterator[AnnotatedPost]:
    """Yield the annotated tasks of an export.

    Raises:
        DataError: the file cannot be read, or a task is malformed.
    """
    for number, task in enumerate(_tasks(path), start=1):
        place = f"task {task['id'] if isinstance(task, dict) and 'id' in task else number}"
        try:
            post = _post(place, task, options, notes)
        except DataError as error:
            raise DataError(f"{path}, {error}") from error
        if post is not None:
            yield post


def write(posts: Iterable[AnnotatedPost], file: BinaryIO, options: Options, notes: Notes) -> None:
    """Write tasks with predictions as a JSON list, one per line."""
    del notes
    for number, post in enumerate(posts):
        file.write(b",\n" if number else b"[\n")
        file.write(json.dumps(_task(post, options), ensure_ascii=False, allow_nan=False).encode())
    file.write(b"\n]\n")


def _tasks(path: Path) -> list[Any]:
    with open_data(path, LAYOUT) as file:
        try:
            tasks = parse_json(file.read().decode("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{path} is no JSON: {error}; {LAYOUT}") from error
    if not isinstance(tasks, list):
        raise DataError(f"{path} holds a {type(tasks).__name__}, not a list of tasks; {LAYOUT}")
    return tasks


def _post(place: str, task: Any, options: Options, notes: Notes) -> AnnotatedPost | None:
    data = task.get("data") if isinstance(task, dict) else None
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise DataError(f"{place} has no 'data' and 'annotations': export as JSON, not as JSON-MIN or another format")
    results = _results(annotations, place, notes)
    if results is None:
        return None
    marked = _sorted(results, options, place, notes)
    text = _text(data, options.text_field, marked.to_name, place)
    if not text.strip():
        notes.add("tasks without text: left out", place)
        return None
    ids: dict[int | str, int] = {}
    entities: list[Mention] = []
    offsets = Offsets(text, options.offsets or OFFSETS)
    for region in marked.regions:
        mentions = _mentions(region, offsets, place, notes)
        if mentions:
            ids.setdefault(str(region.get("id")), len(entities))
        entities += mentions
    address = _image(data, options.image_field, place)
    image = image_name(address, options.images, place, notes) if address else ""
    identity = checked_id(data.get("id", task.get("id")), place)
    return AnnotatedPost(identity, text, image, entities, linked(ids, marked.arrows, place, notes), place)


def _results(annotations: list[Any], place: str, notes: Notes) -> list[Any] | None:
    """The results of the annotation to use: the first ground truth, or else the first; None without annotations."""
    if not all(isinstance(made, dict) and isinstance(made.get("result"), list) for made in annotations):
        raise DataError(f"{place}: each of 'annotations' must be an object with a list 'result'")
    valid = [made for made in annotations if not made.get("was_cancelled")]
    if not valid:
        notes.add("tasks without an annotation: left out", place)
        return None
    chosen = next((made for made in valid if made.get("ground_truth")), valid[0])
    for _ in valid[1:]:
        notes.add("annotations of a task beside the chosen one: left out", place)
    results: list[Any] = chosen["result"]
    return results


@dataclass
class _Marked:
    """The results of an annotation: regions of the text, relations, and the name of the text's tag."""

    regions: list[dict[str, Any]] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    to_name: str | None = None


def _sorted(results: list[Any], options: Options, place: str, notes: Notes) -> _Marked:
    marked = _Marked(to_name=options.to_name)
    for result in results:
        name = result.get("type") if isinstance(result, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{place}: a result without a 'type': {str(result)[:80]}")
        if name == RELATION:
            marked.arrows += _arrows(result, place, notes)
        elif name != LABELS:
            notes.add(f"results of the type {name!r}: left out", place)
        elif options.from_name not in (None, result.get("from_name")):
            notes.add(f"regions not labelled with {options.from_name!r}: left out", place)
        elif marked.to_name not in (None, result.get("to_name")):
            if options.to_name is None:
                raise DataError(
                    f"{place} has regions in {marked.to_name!r} and in {result.get('to_name')!r}, and a post is one "
                    "text: choose with --to-name"
                )
            notes.add(f"regions not in {options.to_name!r}: left out", place)
        else:
            marked.to_name = result.get("to_name")
            marked.regions.append(result)
    return marked


def _arrows(result: dict[str, Any], place: str, notes: Notes) -> list[Arrow]:
    names = result.get("labels") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{place}: the 'labels' of a relation are {names!r}: expected a list of names")
    if not names:
        notes.add("relations without a label: left out", place)
    ends = result.get("from_id"), result.get("to_id")
    if not all(isinstance(end, str) for end in ends):
        raise DataError(f"{place}: a relation leads from {ends[0]!r} to {ends[1]!r}: expected the ids of two regions")
    one, other = map(str, ends)
    direction = result.get("direction")
    forward = [] if direction == REVERSED else [(one, other)]
    backward = [(other, one)] if direction in (REVERSED, BOTH) else []
    return [Arrow(head, tail, name) for name in names for head, tail in (*forward, *backward)]


def _mentions(region: dict[str, Any], offsets: Offsets, place: str, notes: Notes) -> list[Mention]:
    """Return an entity for each label of a region."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise DataError(f"{place}: a region without a 'value'")
    start, end, labels = value.get("start"), value.get("end"), value.get(LABELS)
    if type(start) is not int or type(end) is not int:
        raise DataError(f"{place}: a region needs whole numbers 'start' and 'end', got {start!r} and {end!r}")
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise DataError(f"{place}: the 'labels' of a region are {labels!r}: expected a list of names")
    text, marked = value.get("text"), offsets.characters(start, end)
    if isinstance(text, str) and marked is not None and _plain(text) != _plain(offsets.text[slice(*marked)]):
        notes.add("regions whose 'text' is not what stands at their place: left out (see --offsets)", place)
        return []
    if not labels:
        notes.add("regions without a label: left out", place)
    span = placed(offsets, start, end, place, notes)
    return [] if span is None else [Mention(*span, label) for label in labels]


def _plain(text: str) -> str:
    """Remove differences that Label Studio makes to the text of a region: it writes line feeds as \\n."""
    return "".join(text.replace("\\n", " ").split())


def _text(data: dict[str, Any], name: str | None, to_name: str | None, place: str) -> str:
    texts = [
        key for key, value in data.items() if isinstance(value, str) and key != "id" and not looks_like_image(value)
    ]
    chosen = [name] if name else [key for key in ("text", to_name) if key in texts][:1] or texts
    if len(chosen) != 1 or chosen[0] not in data:
        found = ", ".join(map(repr, data)) or "nothing"
        raise DataError(f"{place}: which field of 'data' is the text is not clear, it has {found}: use --text-field")
    return checked_text(data[chosen[0]], place)


def _image(data: dict[str, Any], name: str | None, place: str) -> str:
    """Address of the image, or an empty string."""
    if name:
        return str(data.get(name) or "")
    images = [key for key, value in data.items() if looks_like_image(value)]
    chosen = ["image"] if isinstance(data.get("image"), str) else images
    if len(chosen) > 1:
        raise DataError(f"{place} has the images {', '.join(chosen)}, and a post has one: use --image-field")
    return str(data[chosen[0]]) if chosen else ""


def _task(post: AnnotatedPost, options: Options) -> dict[str, Any]:
    offsets = Offsets(post.text, options.offsets or OFFSETS)
    regions = [_region(number, entity, offsets, options) for number, entity in enumerate(post.entities)]
    relations = [_relation(relation) for relation in post.relations]
    sure = post.confidences()
    prediction: dict[str, Any] = {"model_version": "mmib", "result": [*regions, *relations]}
    if sure:
        # The lowest confidence: sorted by score, the posts that need review come first.
        prediction["score"] = min(sure)
    data: dict[str, Any] = {} if post.id is None else {"id": post.id}
    data[options.text_field or "text"] = post.text
    if post.image:
        data[options.image_field or "image"] = options.image_prefix + post.image
    return {"data": data, "predictions": [prediction]}


def _region(number: int, entity: Mention, offsets: Offsets, options: Options) -> dict[str, Any]:
    start, end = offsets.units(entity.start, entity.end)
    text = offsets.text[entity.start : entity.end]
    return _scored(
        {
            "id": f"e{number}",
            "from_name": options.from_name or FROM_NAME,
            "to_name": options.to_name or TO_NAME,
            "type": LABELS,
            "value": {"start": start, "end": end, "text": text, LABELS: [entity.type]},
        },
        entity.confidence,
    )


def _relation(relation: Link) -> dict[str, Any]:
    ends = {"from_id": f"e{relation.head}", "to_id": f"e{relation.tail}"}
    return _scored({**ends, "type": RELATION, "direction": "right", "labels": [relation.type]}, relation.confidence)


def _scored(result: dict[str, Any], confidence: float | None) -> dict[str, Any]:
    return result if confidence is None else {**result, "score": confidence}
