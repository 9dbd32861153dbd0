"""The file of corrections: JSON lines that `mmib fit` can train on, saved completely after each correction."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Self

from mmib.base.files import check_output, write_text
from mmib.datamodules.convert.json_lines import UNTYPED
from mmib.datamodules.convert.lines import objects
from mmib.datamodules.jsonl_lines import parse_post
from mmib.review.predictions import Annotation, Entity, Post, Predictions, Relation
from mmib.schema import ConfigError, DataError, InputError
from mmib.serve.receive import RefusedError

ROW = "row"
IDENTITY = ("tokens", "text")
BOTH = ("entities", "relations")
# Version of a post without corrections.
FIRST_VERSION = 0


class Corrections:
    """Corrections of posts; posts that have not been reviewed are not in the file.

    Args:
        path: the file; corrections in an existing file are kept.
        predictions: the reviewed predictions.

    Raises:
        DataError: the file cannot be read, or has corrections of other posts or two of one post.
    """

    def __init__(self, path: Path, predictions: Predictions) -> None:
        self.path = path
        self.predictions = predictions
        self._posts = {post.row: post for post in predictions.posts}
        self._versions: dict[int, int] = {}
        self._lock = Lock()
        self._lines = dict(self._read()) if path.exists() else {}
        self._state = _state(path)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, predictions: Predictions, inputs: Sequence[Path]) -> Iterator[Self]:
        """Open the corrections, locked against other processes.

        Raises:
            ConfigError: the file is one of the inputs, is being reviewed by another process, or cannot be written.
            DataError: see `Corrections`.
        """
        check_output(path, inputs)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(f".{path.name}.lock").open("w")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error}; choose another place with -o") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another mmib review has {path} open: use its page, end it, or name another file with -o"
                ) from error
            yield cls(path, predictions)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, row: int) -> bool:
        return row in self._lines

    def version(self, row: int) -> int:
        """Number of times a post has been saved in this session."""
        return self._versions.get(row, FIRST_VERSION)

    def annotation(self, row: int) -> Annotation:
        """Annotation of a post: the correction, or else the model's proposal.

        Raises:
            RefusedError: the post does not exist.
        """
        post = self.post(row)
        return _annotation(post, self._lines[row]) if row in self._lines else post.proposal

    def post(self, row: int) -> Post:
        """Return the post of a row.

        Raises:
            RefusedError: the post does not exist.
        """
        if row not in self._posts:
            raise RefusedError(404, f"there is no post {row}: load the page again")
        return self._posts[row]

    def save(self, row: int, annotation: Annotation | None, version: int) -> int:
        """Save or withdraw a correction; the file is complete on disk when this returns.

        Args:
            row: row of the post.
            annotation: the new annotation; None removes the post from the file.
            version: version of the post when it was opened.

        Returns:
            The new version of the post.

        Raises:
            InputError: the annotation cannot be trained on.
            RefusedError: the post was saved in another window, or the file was changed by another program.
        """
        post = self.post(row)
        line = None if annotation is None else _line(post, annotation, self.predictions)
        with self._lock:
            if version != self.version(row):
                raise RefusedError(409, "this post was saved in another window: save again to replace what it says")
            if _state(self.path) != self._state:
                raise RefusedError(
                    409, f"{self.path} was changed by another program: end mmib review and start it again"
                )
            lines = {number: kept for number, kept in self._lines.items() if number != row}
            if line is not None:
                lines[row] = line
            lines = dict(sorted(lines.items()))
            try:
                write_text(self.path, "".join(json.dumps(kept, ensure_ascii=False) + "\n" for kept in lines.values()))
            except OSError as error:
                raise RefusedError(
                    507, f"the correction cannot be saved: {error}; free disk space and save again"
                ) from error
            self._lines, self._state = lines, _state(self.path)
            self._versions[row] = version + 1
            return version + 1

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        rows: set[int] = set()
        for place, line in objects(self.path):
            post = self._posts.get(line.get(ROW, -1)) if isinstance(line.get(ROW), int) else None
            if post is None or any(line.get(key) != post.content.get(key) for key in IDENTITY):
                raise DataError(
                    f"{self.path}, {place} is no correction of these predictions, but of another data set: name "
                    "another file with -o"
                )
            if post.row in rows:
                raise DataError(
                    f"{self.path}, {place} is a second correction of row {post.row}: remove one of its lines"
                )
            rows.add(post.row)
            # Validate as strictly as training does.
            parse_post(json.dumps(line), f"{self.path}, {place}", BOTH)
            # The labels of a run are fixed; those to choose from for `mmib extract` are options of each session.
            if "tokens" in line:
                self._check_labels(line, place)
            # The image may be known only now, or only when the correction was saved.
            image = line.get("image") or post.image
            known = {"image": image} if image else {}
            self._posts[post.row] = replace(post, content={**post.content, **known})
            yield post.row, {ROW: post.row, **post.content, **line, **known}

    def _check_labels(self, line: dict[str, Any], place: str) -> None:
        """Check that a correction is of the task and the labels of the predictions.

        Raises:
            DataError: it is of another model, for example of the relations of the same posts.
        """
        types, relations = self.predictions.types or (UNTYPED,), self.predictions.relations
        foreign = [entry["type"] for entry in line["entities"] if entry["type"] not in types]
        foreign += [entry["type"] for entry in line["relations"] if entry["type"] not in relations]
        if foreign or not (self.predictions.types or line["entities"]):
            fault = f"it has the label {foreign[0]}" if foreign else "it has no entities to relate"
            raise DataError(
                f"{self.path}, {place} corrects other predictions of this post, {fault}: name another file with -o"
            )


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return values that change when another program writes the file; None if it does not exist."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _line(post: Post, annotation: Annotation, predictions: Predictions) -> dict[str, Any]:
    """Format a correction as a line of training data.

    Raises:
        InputError: it cannot be trained on.
    """
    for name, known in (
        *((entity.type, predictions.types) for entity in annotation.entities if predictions.types),
        *((relation.type, predictions.relations) for relation in annotation.relations),
    ):
        if name not in known:
            raise InputError(f"{name!r} is not one of the labels {', '.join(known)}: choose one of them")
    entities = []
    for entity in annotation.entities:
        start, end = _offsets(post, entity)
        entities.append({"start": start, "end": end, "type": entity.type or UNTYPED})
    relations = [{"head": link.head, "tail": link.tail, "type": link.type} for link in annotation.relations]
    line = {ROW: post.row, **post.content, "entities": entities, "relations": relations}
    try:
        parse_post(json.dumps(line), "this post", BOTH)
    except DataError as error:
        raise InputError(f"it could not be trained on: {error}") from error
    return line


def _offsets(post: Post, entity: Entity) -> tuple[int, int]:
    """Span of an entity in the unit of its line: words if the post is given as tokens, else characters."""
    if "tokens" not in post.content:
        return entity.start, entity.end
    starts, ends = ([span[place] for span in post.words] for place in (0, 1))
    try:
        return starts.index(entity.start), ends.index(entity.end) + 1
    except ValueError as error:
        raise InputError(f"the entity [{entity.start}, {entity.end}) ends inside a word: mark whole words") from error


def _annotation(post: Post, line: dict[str, Any]) -> Annotation:
    """Annotation of a line of the file, with the model's evidence for the same entities and relations."""
    known = {_span(entity): entity for entity in post.proposal.entities}
    entities = []
    for entry in line["entities"]:
        start, end = entry["start"], entry["end"]
        if "tokens" in line:
            start, end = post.words[start][0], post.words[end - 1][1]
        before = known.get((start, end))
        name = None if entry["type"] == UNTYPED and (before is None or before.type is None) else entry["type"]
        entities.append(Entity(start, end, name, evidence=before.evidence if before else None))
    proposed = post.proposal.entities
    looking = {
        (_span(proposed[link.head]), _span(proposed[link.tail])): link.evidence for link in post.proposal.relations
    }
    links = []
    for entry in line["relations"]:
        head, tail = entry["head"], entry["tail"]
        evidence = looking.get((_span(entities[head]), _span(entities[tail])))
        links.append(Relation(head, tail, entry["type"], evidence=evidence))
    return Annotation(entities, links)


def _span(entity: Entity) -> tuple[int, int]:
    return entity.start, entity.end
