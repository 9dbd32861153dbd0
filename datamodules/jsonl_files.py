"""Reader of posts as JSON lines, for entity recognition and for relation extraction."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmib.datamodules.files import Malformed, read_lines
from mmib.datamodules.jsonl_lines import AnnotatedPost, parse_post
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.split_files import HoldOut, Notes, SplitFiles, SplitReader
from mmib.labels import LabelSet
from mmib.records import Entity
from mmib.schema import ConfigError, DataError, Post
from mmib.tagging import BEGIN, INSIDE, OUTSIDE

ENDINGS = (".jsonl",)
# Required keys of a line, by task.
REQUIRED = {"mner": ("entities",), "mre": ("entities", "relations")}


class JSONLinesReader(SplitReader[AnnotatedPost]):
    """Reads posts of JSON lines; the format is described in docs/reference/formats.md.

    For `mner`, each post has the tags of its entities. For `mre`, there is a row for each annotated relation, and a row
    of the negative class for each other ordered pair (head, tail) of entities between which the label set's argument
    types allow a relation: a pair that is annotated in one order is negative in the other.

    Args:
        root: folder of the data, or the file of the training posts, with `val` and `test` beside it.
        task: `mner` or `mre`.
        labels: the relations, for the rows of the negative class.
        negatives: whether to add such rows; None adds them if the label set has a negative class.
        images: see `SplitReader`.
        hold_out: shares of the posts for splits without a file.

    Raises:
        ConfigError: another task, or `negatives` without a negative class.
    """

    def __init__(
        self,
        root: Path,
        task: str,
        labels: LabelSet | None = None,
        negatives: bool | None = None,
        images: Path | None = None,
        hold_out: HoldOut | None = None,
    ) -> None:
        super().__init__(SplitFiles(root, ENDINGS, hold_out or HoldOut()), images)
        if task not in REQUIRED:
            raise ConfigError(f"JSON lines hold posts for the tasks {' and '.join(REQUIRED)}, not for {task!r}")
        if negatives and (labels is None or labels.negative is None):
            raise ConfigError(
                "negatives asks for rows of the negative class, and the label set has none: name it as 'negative' in "
                "data.labels, or leave negatives out"
            )
        self._task = task
        self.rows = "posts" if task == "mner" else "relations"
        self.labels = None if negatives is False else labels

    def entries(self, path: Path) -> Iterator[AnnotatedPost | Malformed]:
        """See `SplitReader.entries`."""
        for number, line in enumerate(read_lines(path, self.layout), start=1):
            if not line.strip():
                continue
            try:
                post = parse_post(line, f"{path}:{number}", REQUIRED[self._task])
            except DataError as error:
                yield Malformed(number, error)
            else:
                yield post

    def make_posts(self, entry: AnnotatedPost, notes: Notes) -> Iterator[Post]:
        """See `SplitReader.make_posts`."""
        if self._task == "mre":
            yield from self._related(entry, notes)
        else:
            yield _tagged(entry, notes)

    def options(self) -> dict[str, Any]:
        """See `Reader.options`."""
        rows = {} if self._task == "mner" else {"negatives": self._negative is not None}
        return {**super().options(), **rows}

    @property
    def _negative(self) -> str | None:
        return self.labels.negative if self.labels is not None and self._task == "mre" else None

    def _related(self, post: AnnotatedPost, notes: Notes) -> Iterator[RelationPost]:
        """Yield the rows of a post."""
        rows = [(relation.head, relation.tail, relation.type) for relation in post.relations]
        annotated = {(head, tail) for head, tail, _ in rows}
        notes.add("rows of a pair that has another relation too", post.place, len(rows) - len(annotated))
        if self.labels is not None and self._negative is not None:
            types = [entity.type for entity in post.entities]
            rows += [
                (head, tail, self._negative)
                for head, tail in itertools.permutations(range(len(types)), 2)
                if (head, tail) not in annotated and self.labels.may_relate(types[head], types[tail])
            ]
        notes.add("posts without a row: they have no relation and no pair that may have one", post.place, not rows)
        for head, tail, relation in rows:
            spans = post.entities[head].span, post.entities[tail].span
            yield RelationPost(
                words=post.words, image=post.image, place=post.place, head=spans[0], tail=spans[1], relation=relation
            )


def _tagged(post: AnnotatedPost, notes: Notes) -> TaggedPost:
    """Return the post with BIO tags, without entities that overlap a longer one or an earlier one of equal length."""
    kept: list[Entity] = []
    for entity in sorted(post.entities, key=lambda entity: entity.start - entity.end):
        if not any(entity.overlaps(other) for other in kept):
            kept.append(entity)
    notes.add(
        "entities left out for a longer one that they overlap, or an earlier one of the same length",
        post.place,
        len(post.entities) - len(kept),
    )
    tags = [OUTSIDE] * len(post.words)
    for entity in kept:
        inside = [f"{INSIDE}-{entity.type}"] * (entity.end - entity.start - 1)
        tags[entity.start : entity.end] = [f"{BEGIN}-{entity.type}", *inside]
    return TaggedPost(words=post.words, image=post.image, place=post.place, tags=tags)
