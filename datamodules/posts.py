"""Posts as readers yield them, with the annotations of their data set."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmib.schema import Post, Span
from mmib.tagging import split_tag


@dataclass(frozen=True, kw_only=True)
class RelationPost(Post):
    """A post with two marked entities.

    Attributes:
        head: words [start, end) of the head entity.
        tail: words [start, end) of the tail entity.
        relation: name of the relation between them.
        names: the file's texts of head and tail, if it has them; used only in checks of `mmib check-data`.
    """

    head: Span
    tail: Span
    relation: str
    names: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True, kw_only=True)
class TaggedPost(Post):
    """A post with a tag for each word.

    Attributes:
        tags: BIO tag of each word as in the file, stray I- tags included.
        lines: line number of each word if the file has a line per word; else empty.
    """

    tags: list[str]
    lines: list[int] = field(default_factory=list)

    def place_of(self, label: str) -> str:
        """See `Post.place_of`; the line of the first word with this entity type if it is known."""
        lines = (line for line, tag in zip(self.lines, self.tags, strict=False) if split_tag(tag)[1] == label)
        line = next(lines, None)
        return self.place if line is None else f"{self.place.rpartition(':')[0]}:{line}"


@dataclass(frozen=True, kw_only=True)
class LabelledPost(Post):
    """A post with one label for the whole post.

    Attributes:
        label: name of the label.
    """

    label: str
