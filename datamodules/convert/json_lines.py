"""mmib's own JSON lines: annotated posts, and the output of `mmib extract`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mmib.datamodules.convert.lines import parsed
from mmib.datamodules.convert.offsets import Offsets
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import AnnotatedPost, Arrow, Mention, Notes, checked_id, checked_text, linked
from mmib.datamodules.files import open_data
from mmib.datamodules.raw_rows import is_csv_file, read_raw_rows
from mmib.schema import DataError

# Type of entities that were given to `mmib extract` without a type.
UNTYPED = "ENTITY"


def read(path: Path, options: Options, notes: Notes) -> Iterator[AnnotatedPost]:
    """Yield the posts of a file.

    Raises:
        DataError: the file cannot be read, or a line is malformed.
    """
    images = {} if options.posts is None else _images(options.posts)
    return parsed(path, partial(_post, images=images, options=options, notes=notes))


def write(posts: Iterable[AnnotatedPost], file: BinaryIO, options: Options, notes: Notes) -> None:
    """Write one post per line, with offsets in characters."""
    for post in posts:
        file.write(json.dumps(_line(post, options, notes), ensure_ascii=False).encode() + b"\n")


def _images(posts: Path) -> dict[int, str | None]:
    """The image of each row of the input of `mmib extract`, without rows that cannot be read.

    Raises:
        DataError: the file cannot be read.
    """
    with open_data(posts, "name the input of mmib extract") as file:
        try:
            rows = read_raw_rows(file, is_csv_file(posts))
            return {row.number: row.content.get("image") for row in rows if row.content is not None}
        except DataError as error:
            raise DataError(f"{posts}: {error}") from error


def _post(
    place: str, line: dict[str, Any], images: dict[int, str | None], options: Options, notes: Notes
) -> AnnotatedPost | None:
    if "error" in line:
        notes.add("posts that nothing could be extracted from: left out", place)
        return None
    offsets: Offsets | _Tokens
    if "tokens" in line:
        offsets = _Tokens(line["tokens"], place)
    else:
        offsets = Offsets(checked_text(line.get("text"), place), options.offsets or "characters")
    if not offsets.text.strip():
        notes.add("posts without text: left out", place)
        return None
    listed = _list(line, "entities", place)
    entities = [_mention(entity, offsets, place, notes) for entity in listed]
    arrows = [_arrow(relation, place) for relation in _list(line, "relations", place)]
    ids: dict[int | str, int] = {_id(entity, number, place): number for number, entity in enumerate(listed)}
    image = line.get("image") or _image(line, place, images, options.posts) or ""
    if not isinstance(image, str):
        raise DataError(f"{place}: 'image' is {image!r}: expected the name of a file")
    return AnnotatedPost(
        checked_id(line.get("id"), place), offsets.text, image, entities, linked(ids, arrows, place, notes), place
    )


class _Tokens:
    """Offsets in words, for a post that is given as words: its text has one space between words."""

    def __init__(self, tokens: Any, place: str) -> None:
        if not isinstance(tokens, list):
            raise DataError(f"{place}: 'tokens' is {tokens!r}: expected a list of words")
        self.starts: list[int] = []
        self.ends: list[int] = []
        end = -1
        for token in tokens:
            self.starts.append(end + 1)
            end += 1 + len(checked_text(token, place))
            self.ends.append(end)
        self.text = " ".join(tokens)

    def characters(self, start: int, end: int) -> tuple[int, int] | None:
        """See `Offsets.characters`."""
        return (self.starts[start], self.ends[end - 1]) if 0 <= start < end <= len(self.starts) else None


def _image(line: dict[str, Any], place: str, images: dict[int, str | None], posts: Path | None) -> str | None:
    """The image of the row that a post was extracted from."""
    row = line.get("row", 0)
    if not isinstance(row, int):
        raise DataError(f"{place}: 'row' is {row!r}: expected a number")
    if row and posts is not None and row not in images:
        raise DataError(
            f"{place} is extracted from row {row:,}, which cannot be read in {posts}: name the input of mmib extract, "
            "with the ending .csv or .csv.gz if it is CSV"
        )
    return images.get(row)


def _list(line: dict[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    value = line.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{place}: {key!r} is {str(value)[:80]}: expected a list of objects")
    return value


def _id(entity: dict[str, Any], number: int, place: str) -> int | str:
    """The id that relations refer to an entity by: its own, or its position if it has none."""
    identity = entity.get("id", number)
    if not isinstance(identity, int | str):
        raise DataError(f"{place}: the id {identity!r} of an entity is neither a number nor a text")
    return identity


def _mention(entity: dict[str, Any], offsets: Offsets | _Tokens, place: str, notes: Notes) -> Mention:
    start, end, name = (entity.get(key) for key in ("start", "end", "type"))
    if type(start) is not int or type(end) is not int or not isinstance(name, str | None):
        raise DataError(f"{place}: the entity {str(entity)[:80]} must have start, end and type")
    span = offsets.characters(start, end)
    if span is None:
        raise DataError(f"{place}: the entity [{start}, {end}) is empty, or not in the text (see --offsets)")
    if name is None:
        notes.add(f"entities without a type: they become {UNTYPED}", place)
    return Mention(*span, name or UNTYPED, _confidence(entity, place))


def _arrow(relation: dict[str, Any], place: str) -> Arrow:
    # `mmib extract` writes the type of a relation as `label`.
    head, tail, name = relation.get("head"), relation.get("tail"), relation.get("type", relation.get("label"))
    if not isinstance(head, int | str) or not isinstance(tail, int | str) or not isinstance(name, str) or not name:
        raise DataError(f"{place}: the relation {str(relation)[:80]} must have head, tail and type")
    return Arrow(head, tail, name, _confidence(relation, place))


def _confidence(found: dict[str, Any], place: str) -> float | None:
    value = found.get("confidence")
    if value is None or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise DataError(f"{place}: the confidence {value!r} is no number from 0 to 1")


def _line(post: AnnotatedPost, options: Options, notes: Notes) -> dict[str, Any]:
    if post.confidences():
        notes.add("posts with confidences: the confidences are left out", post.place)
    line: dict[str, Any] = {"text": post.text} if post.id is None else {"id": post.id, "text": post.text}
    if post.image:
        line["image"] = options.image_prefix + post.image
    entities = [{"start": entity.start, "end": entity.end, "type": entity.type} for entity in post.entities]
    relations = [{"head": relation.head, "tail": relation.tail, "type": relation.type} for relation in post.relations]
    return {**line, "entities": entities, "relations": relations}
