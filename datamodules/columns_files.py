"""Reader of posts in columns, one line per word with its tag, in any of the variants of CoNLL files."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmib.datamodules.files import Malformed, read_lines
from mmib.datamodules.posts import TaggedPost
from mmib.datamodules.schemes import ALL_LETTERS, ForeignTagError, Scheme, converted, recognise, to_bio
from mmib.datamodules.split_files import HoldOut, Notes, SplitFiles, SplitReader
from mmib.schema import ConfigError, DataError
from mmib.tagging import OUTSIDE, split_tag

ENDINGS = (".txt", ".conll", ".tsv", ".bio")
# Number of lines from which the separator and the number of columns are determined.
LINES_SURVEYED = 1_000
BLANKS = " \t"
DOCUMENT, COMMENT = "-DOCSTART-", "# "
# `IMGID:` as in the Twitter files, or a comment.
IMAGE = re.compile(r"(?:IMGID:|#[ ]+image[ ]*[:=])([^\t]*)")


@dataclass(frozen=True)
class Columns:
    """Column layout of the lines of a file.

    Attributes:
        separator: column separator; None for any number of blanks.
        count: number of columns of most lines.
        word: position of the word.
        tag: position of the tag.
    """

    separator: str | None
    count: int
    word: int
    tag: int

    def fields(self, line: str) -> list[str]:
        """Split a line into its columns, word and tag included.

        Raises:
            DataError: there are not enough columns, or the word or the tag is empty.
        """
        found = split_line(line, self.separator)
        if len(found) <= max(self.word, self.tag) or not found[self.word] or not found[self.tag]:
            between = "blanks" if self.separator is None else repr(self.separator)
            raise DataError(
                f"expected a word in column {self.word} and its tag in column {self.tag}, with {between} between "
                f"columns, got {line[:80]!r}"
            )
        return found

    def is_comment(self, line: str) -> bool:
        """Whether a line before a post is a comment; `# O` is a word with its tag."""
        if not line.startswith(COMMENT):
            return False
        try:
            tag = self.fields(line)[self.tag]
        except DataError:
            return True
        return tag != OUTSIDE and split_tag(tag)[0] not in ALL_LETTERS


@dataclass(frozen=True, kw_only=True)
class ColumnPost(TaggedPost):
    """A post with the tags of its file.

    Attributes:
        first: line of its first word; the other words follow on the next lines.
        longer: number of its lines that have extra columns.
        scheme: scheme of its tags.
    """

    first: int
    longer: int
    scheme: Scheme = Scheme.BIO


@dataclass
class _Draft:
    """A post whose lines are being read.

    Attributes:
        path, start: file and line of its start.
        image: name of its image; None if no line names one.
        error: the first error in it.
    """

    path: Path
    start: int
    image: str | None = None
    first: int = 0
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    longer: int = 0
    error: DataError | None = None

    def add(self, number: int, line: str, columns: Columns) -> None:
        """Add the word of a line."""
        try:
            found = columns.fields(line)
        except DataError as error:
            self.error = self.error or DataError(f"{self.path}:{number}: {error}")
            return
        self.first = self.first or number
        self.words.append(found[columns.word])
        self.tags.append(found[columns.tag])
        self.longer += len(found) > columns.count

    @property
    def begun(self) -> bool:
        """Whether a line of its words has been read."""
        return bool(self.words or self.error)

    def finished(self) -> Iterator[ColumnPost | Malformed]:
        """Yield the post if there is one."""
        place = f"{self.path}:{self.start}"
        error = self.error
        if error is None and self.image == "":
            error = DataError(f"{place}: the name of the image is missing: add it, or remove the line")
        elif error is None and not self.words and self.image is not None:
            error = DataError(f"{place}: no words follow the image {self.image}: add them, or remove the line")
        if error is not None:
            yield Malformed(self.start, error)
        elif self.words:
            yield ColumnPost(
                words=self.words,
                tags=self.tags,
                image=self.image or "",
                place=place,
                first=self.first,
                longer=self.longer,
            )


class ColumnsReader(SplitReader[ColumnPost]):
    """Reads posts in columns; the format is described in docs/reference/formats.md.

    Args:
        root: folder of the data, or the file of the training posts, with `val` and `test` beside it.
        separator: column separator; None for a tab if most lines have one, or else any number of blanks.
        word_column: column of the words, counted from 0; negative numbers count from the last column of most lines, -1.
        tag_column: column of the tags, counted in the same way.
        scheme: scheme of the tags; None recognises it in each file.
        images: see `SplitReader`.
        hold_out: shares of the posts for splits without a file.

    Raises:
        ConfigError: the separator is empty, or word and tag are in the same column.
    """

    def __init__(
        self,
        root: Path,
        separator: str | None = None,
        word_column: int = 0,
        tag_column: int = -1,
        scheme: Scheme | None = None,
        images: Path | None = None,
        hold_out: HoldOut | None = None,
    ) -> None:
        super().__init__(SplitFiles(root, ENDINGS, hold_out or HoldOut()), images)
        if separator == "":
            raise ConfigError("separator is empty: give the separator of columns, or leave it out")
        if word_column == tag_column:
            raise ConfigError(f"word_column and tag_column are both {tag_column}: give each its own")
        self.separator = separator
        self.word_column = word_column
        self.tag_column = tag_column
        self.scheme = scheme

    def entries(self, path: Path) -> Iterator[ColumnPost | Malformed]:
        """See `SplitReader.entries`."""
        columns = self._survey(path)
        posts = (post for post in self._scan(path, columns) if isinstance(post, ColumnPost))
        scheme = self.scheme or recognise(post.tags for post in posts)
        for post in self._scan(path, columns):
            yield replace(post, scheme=scheme) if isinstance(post, ColumnPost) else post

    def make_posts(self, entry: ColumnPost, notes: Notes) -> Iterator[TaggedPost | Malformed]:
        """See `SplitReader.make_posts`."""
        try:
            tags = to_bio(entry.tags, entry.scheme)
        except ForeignTagError as error:
            path, _, start = entry.place.rpartition(":")
            yield Malformed(int(start), DataError(f"{path}:{entry.first + error.position}: {error}"))
            return
        notes.add(f"tags converted from {entry.scheme} to BIO", entry.place, converted(entry.tags, tags))
        notes.add("lines with further columns, which are ignored", entry.place, entry.longer)
        lines = list(range(entry.first, entry.first + len(tags)))
        yield TaggedPost(words=entry.words, image=entry.image, place=entry.place, tags=tags, lines=lines)

    def options(self) -> dict[str, Any]:
        """See `Reader.options`."""
        return {**super().options(), "scheme": None if self.scheme is None else self.scheme.value}

    def _survey(self, path: Path) -> Columns:
        """Determine the column layout of a file from its first lines."""
        lines = filter(_holds_word, read_lines(path, self.layout))
        words = (line for line in lines if not line.startswith(COMMENT) and not IMAGE.fullmatch(line))
        first = list(itertools.islice(words, LINES_SURVEYED))
        separator = self.separator
        if separator is None and 2 * sum("\t" in line for line in first) > len(first):
            separator = "\t"
        counts = Counter(len(split_line(line, separator)) for line in first)
        count = counts.most_common(1)[0][0] if counts else 0
        word, tag = (at if at >= 0 else count + at for at in (self.word_column, self.tag_column))
        if counts and (min(word, tag) < 0 or max(word, tag) >= count or word == tag):
            between = "blanks" if separator is None else repr(separator)
            raise DataError(
                f"{path} has lines of {count} columns with {between} between them, which do not have both word_column "
                f"{self.word_column} and tag_column {self.tag_column}: name other columns, or the separator"
            )
        return Columns(separator, count, word, tag)

    def _scan(self, path: Path, columns: Columns) -> Iterator[ColumnPost | Malformed]:
        """Yield the posts of a file with unconverted tags."""
        draft = _Draft(path, 0)
        for number, line in enumerate(read_lines(path, self.layout), start=1):
            image = IMAGE.fullmatch(line)
            if image is not None or (draft.begun and not _holds_word(line)):
                yield from draft.finished()
                draft = _Draft(path, number, None if image is None else image.group(1).strip())
            elif _holds_word(line) and (draft.begun or not columns.is_comment(line)):
                if not draft.begun and draft.image is None:
                    draft.start = number
                draft.add(number, line, columns)
        yield from draft.finished()


def split_line(line: str, separator: str | None) -> list[str]:
    """Split a line into its columns, without empty ones at its end.

    Only spaces and tabs are blanks: words may contain U+00A0 or U+3000, at which `str.split` would split.
    """
    if separator in (None, " "):
        return re.split(r"[ \t]+", line.strip(BLANKS))
    found = [column.strip(BLANKS) for column in line.split(separator)]
    while found and not found[-1]:
        found.pop()
    return found


def _holds_word(line: str) -> bool:
    return bool(line.strip(BLANKS)) and not line.startswith(DOCUMENT)
