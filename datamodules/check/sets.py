"""Data sets to check: the reader of their files, their task and their label set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmib.datamodules.files import Malformed, inside
from mmib.datamodules.labels import label_set
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.readers import Reader
from mmib.datamodules.released import RELEASED, RELEASED_LABELS, TITLES
from mmib.datamodules.twitter_files import TwitterReader
from mmib.labels import LabelSet
from mmib.schema import DataError, Post, task_named
from mmib.tagging import entities

SPLITS = ("train", "val", "test")
DEMO_MANIFEST = "demo.json"


@dataclass
class ReadSplit:
    """The posts of a split by their position in the file, which crop dictionaries refer to.

    Attributes:
        posts: posts that can be read.
        malformed: posts that cannot be read.
        doubtful: reasons why some of `posts` are probably wrong.
        note: the reader's changes to the posts.
    """

    posts: dict[int, Post] = field(default_factory=dict)
    malformed: dict[int, Malformed] = field(default_factory=dict)
    doubtful: dict[int, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Labelling:
    """The labels that a data set is checked against.

    Attributes:
        labels: the label set; None if nothing is labelled.
        source: description of its source.
    """

    labels: LabelSet | None
    source: str


class SetFiles:
    """A data set on disk.

    Args:
        reader: reader of its files.
        task: name of its task.
        title: its name in reports; empty for the default name.
        remarks: assumptions that were made to read it.
    """

    def __init__(self, reader: Reader, task: str, title: str = "", remarks: Sequence[str] = ()) -> None:
        self.reader = reader
        self.task = task
        self.remarks = remarks
        self.name = reader.corpus
        self.root = reader.root
        self.is_demo = (reader.root / DEMO_MANIFEST).is_file()
        # Data of another format may have any name.
        self.has_released_layout = isinstance(reader, MNREReader | TwitterReader)
        self.title = title or (TITLES[self.name] if self.has_released_layout else self.name)

    def has_any(self) -> bool:
        """Whether the text of any split exists."""
        return any(self.reader.has_split(split) for split in SPLITS)

    def read(self, split: str) -> ReadSplit:
        """Read the posts of a split; a post whose image is outside the folder of images is malformed too.

        Raises:
            DataError: the file holds no posts, or cannot be read.
        """
        read = ReadSplit()
        for number, post in enumerate(self.reader.scan(split)):
            if isinstance(post, Malformed):
                read.malformed[number] = post
                continue
            try:
                if post.image:
                    inside(self.reader.image_folder(split), post.image, post.place)
            except DataError as error:
                read.malformed[number] = Malformed(line_of(post.place), error)
            else:
                read.posts[number] = post
                doubt = _doubt(post)
                if doubt is not None:
                    read.doubtful[number] = doubt
        read.note = self.reader.note(split)
        return read

    def labels_of(self, post: Post) -> list[str]:
        """See `mmib.schema.Task.labels_of`."""
        # Without the built-in tasks, whose networks take seconds to import.
        if isinstance(post, RelationPost):
            return [post.relation]
        if isinstance(post, TaggedPost):
            return [entity.type for entity in entities(post.tags)]
        return task_named(self.task).labels_of(post)

    def labelling(self, reads: Mapping[str, ReadSplit]) -> Labelling:
        """The most likely label set: that of the release, the data set's own list, or the labels that occur."""
        known = RELEASED_LABELS[self.name] if self.has_released_layout else None
        posts = [post for read in reads.values() for post in read.posts.values()]
        occurring = tuple(dict.fromkeys(label for post in posts for label in self.labels_of(post)))
        if known is not None and (set(occurring) <= set(known.names) or self._is_release(reads)):
            return Labelling(known, f"as released with {TITLES[self.name]}")
        listed = self.reader.label_file
        if listed is not None and listed.is_file():
            try:
                return Labelling(label_set(str(listed)), self.below(listed))
            except DataError:
                pass  # `mmib.datamodules.check.whole` reports it
        return Labelling(LabelSet(occurring) if occurring else None, "those that occur in the data")

    def expected(self, split: str) -> dict[str, int]:
        """The expected counts of a split, as far as they are known."""
        if not self.is_demo:
            return RELEASED[self.name][split] if self.has_released_layout else {}
        from mmib.datamodules.demo.reading import read_ceilings  # noqa: PLC0415 - imports the training code

        levels = (read_ceilings(self.root, split, self.task) or {"levels": {}})["levels"]
        return {self.reader.rows: sum(level["rows"] for level in levels.values())}

    def below(self, path: Path) -> str:
        """Return a path relative to the root if it is below it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _is_release(self, reads: Mapping[str, ReadSplit]) -> bool:
        """Whether any split has the same number of posts as the release."""
        sizes = {split: len(read.posts) + len(read.malformed) for split, read in reads.items()}
        return any(self.expected(split).get(self.reader.rows) == size for split, size in sizes.items())


def _doubt(post: Post) -> str | None:
    """The reason why a post is probably wrong: the words of a span differ from the name of the entity."""
    if not isinstance(post, RelationPost):
        return None
    for key, (start, end), name in zip(("head", "tail"), (post.head, post.tail), post.names, strict=True):
        words = post.words[start:end]
        if name is not None and "".join(name.split()) != "".join("".join(words).split()):
            return f"{post.place}: the span [{start}, {end}) of the {key} holds {' '.join(words)!r}, named {name!r}"
    return None


def line_of(place: str) -> int:
    """The line of a `file:line`."""
    return int(place.rpartition(":")[2])
