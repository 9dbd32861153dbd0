"""Posts as readers yield them, with what their data set knows of each."""

from __future__ import annotations

from dataclasses import dataclass

from mmib.schema import Post, Span


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
    """

    tags: list[str]


@dataclass(frozen=True, kw_only=True)
class LabelledPost(Post):
    """A post with one label as a whole.

    Attributes:
        label: its name.
    """

    label: str
