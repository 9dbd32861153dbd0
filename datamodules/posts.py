"""Posts as readers yield them, with what their data set knows of each."""

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
        names: what the file calls head and tail, where it does; only checked, by `mmib check-data`.
    """

    head: Span
    tail: Span
    relation: str
    names: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True, kw_only=True)
class TaggedPost(Post):
    """A post with a tag for each word.

    Attributes:
        tags: the tag of each word in BIO, as the file has it, stray I- tags included.
        lines: the line of each word, where every word has its own; else empty.
    """

    tags: list[str]
    lines: list[int] = field(default_factory=list)

    def place_of(self, label: str) -> str:
        """See `Post.place_of`: the line of the first word with this entity type, where it is known."""
        lines = (line for line, tag in zip(self.lines, self.tags, strict=False) if split_tag(tag)[1] == label)
        line = next(lines, None)
        return self.place if line is None else f"{self.place.rpartition(':')[0]}:{line}"


@dataclass(frozen=True, kw_only=True)
class LabelledPost(Post):
    """A post with one label as a whole.

    Attributes:
        label: its name.
    """

    label: str
