"""Readers of custom data: a file for each split, or one file from which posts are held out for the other splits."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from mmib.datamodules.files import Malformed, is_there
from mmib.datamodules.readers import Reader
from mmib.schema import ConfigError, DataError, Post

NAMES = {"train": ("train",), "val": ("val", "valid", "validation", "dev"), "test": ("test",)}
TRAIN = "train"
IMAGES = "images"

EntryT = TypeVar("EntryT", bound=Post)


@dataclass(frozen=True)
class HoldOut:
    """Shares of the posts that are held out for the splits that have no file.

    The split of a post depends on its text, not on its position: a post stays in its split when others are added, and
    posts with the same text are in the same split.

    Attributes:
        val: share for validation.
        test: share for testing.
        seed: seed of the choice of held-out posts.

    Raises:
        ConfigError: a share is invalid, or nothing is left to train on.
    """

    val: float = 0.1
    test: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the shares."""
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise ConfigError(
                f"holdout is {self.val} and test_holdout {self.test}: give shares from 0 that leave a part to train on"
            )


class SplitFiles:
    """The file of each split.

    Args:
        root: a folder with the files `train`, `val` (or `valid`, `validation`, `dev`) and `test` with one of the
            endings, where a single file of another name is used as `train`; or the file to use as `train`, with
            `val` and `test` beside it.
        endings: endings of the files' names.
        hold_out: shares of the training posts for the splits that have no file.
    """

    def __init__(self, root: Path, endings: tuple[str, ...], hold_out: HoldOut) -> None:
        self.root = root
        self.endings = endings
        self.hold_out = hold_out
        self._is_file = not root.is_dir() and (root.suffix.lower() in endings or root.is_file())
        self.folder = root.parent if self._is_file else root

    @property
    def corpus(self) -> str:
        """Name of the data set: that of the root, without a file's ending."""
        root = self.root.absolute()
        return root.stem if self._is_file else root.name

    def file(self, split: str) -> Path:
        """The file with the posts of `train`, `val` or `test`; held-out splits share the file of `train`.

        Raises:
            DataError: the folder has several files for a split.
        """
        shared = TRAIN if split in self.shares else split
        return self._files.get(shared, self.folder / f"{NAMES[split][0]}{self.endings[0]}")

    def holds(self, split: str, words: Iterable[str]) -> bool:
        """Whether a post in the file of a split belongs to the split."""
        if split != TRAIN and split not in self.shares:
            return True
        # Without spaces, so that the same text is in the same split however it is split into words.
        text = "".join("".join(words).split())
        digest = hashlib.sha256(f"{self.hold_out.seed} {text}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        for other, share in self.shares.items():
            if place < share:
                return split == other
            place -= share
        return split == TRAIN

    @cached_property
    def shares(self) -> dict[str, float]:
        """The shares of the training posts that are held out, by split."""
        wanted = {"val": self.hold_out.val, "test": self.hold_out.test}
        return {split: share for split, share in wanted.items() if share and split not in self._files}

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The existing files, by split."""
        others = [path for path in files_in(self.folder, self.endings) if path != self.root]
        found: dict[str, Path] = {}
        for split, names in NAMES.items():
            named = [path for path in others if path.stem in names]
            if len(named) > 1:
                raise DataError(f"{named[0]} and {named[1]} are both there for the split {split}: keep one of them")
            if named:
                found[split] = named[0]
            others = [path for path in others if path not in named]
        if self._is_file:
            return {**found, TRAIN: self.root}
        return {TRAIN: others[0], **found} if len(others) == 1 else found


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder that have one of the endings, sorted by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and is_there(path))
    except OSError:  # opening the files of the folder raises an error with the reason
        return []


class Notes:
    """Counts of a reader's changes to the posts of a split, with the place of the first of each kind."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: dict[str, str] = {}

    def add(self, what: str, place: str, count: int = 1) -> None:
        """Count changes at a place; `what` names them in the plural. A count of 0 is ignored."""
        if count:
            self._counts[what] += count
            self._places.setdefault(what, place)

    def __str__(self) -> str:
        return "; ".join(f"{what}: {count:,} (first: {self._places[what]})" for what, count in self._counts.items())


class SplitReader(Reader, Generic[EntryT]):
    """Reads posts from `SplitFiles`; a subclass defines the entries of a file, and the posts of an entry.

    An entry that cannot be read is in every split of its file, since its text is unknown.

    Args:
        files: the files of the posts.
        images: the folder of images; None for `images` below the root if it exists, or else the root.
    """

    def __init__(self, files: SplitFiles, images: Path | None) -> None:
        super().__init__(files.folder)
        self.files = files
        self.corpus = files.corpus
        self.layout = (
            "expected: a folder with train, val (or valid, dev) and test, each with the ending "
            f"{' or '.join(files.endings)}; or one such file, to train on. Without val or test, data.holdout and "
            "data.test_holdout set shares of the training posts aside"
        )
        below = files.folder / IMAGES
        self._images = images or (below if below.is_dir() else files.folder)
        self._notes: dict[str, Notes] = {}

    @abstractmethod
    def entries(self, path: Path) -> Iterator[EntryT | Malformed]:
        """Yield the entries of a file.

        Raises:
            DataError: the file is missing, or is not UTF-8 text.
        """

    @abstractmethod
    def make_posts(self, entry: EntryT, notes: Notes) -> Iterator[Post | Malformed]:
        """Yield the posts of an entry, and count changes to them in `notes`."""

    def scan(self, split: str) -> Iterator[Post | Malformed]:
        """See `Reader.scan`."""
        notes = self._notes[split] = Notes()
        empty = True
        for entry in self.entries(self.text_file(split)):
            if isinstance(entry, Malformed):
                empty = False
                yield entry
            elif self.files.holds(split, entry.words):
                for post in self.make_posts(entry, notes):
                    empty = False
                    yield post
        if empty:
            raise self._nothing(split)

    def note(self, split: str) -> str:
        """See `Reader.note`."""
        return str(self._notes.get(split, ""))

    def text_file(self, split: str) -> Path:
        """See `Reader.text_file`; splits may share one."""
        return self.files.file(split)

    def image_folder(self, split: str) -> Path:
        """See `Reader.image_folder`; all splits share one."""
        del split
        return self._images

    def options(self) -> dict[str, Any]:
        """See `Reader.options`."""
        shares = self.files.shares
        held_out = {"held_out": shares, "holdout_seed": self.files.hold_out.seed} if shares else {}
        return {**super().options(), **held_out}

    def _nothing(self, split: str) -> DataError:
        path, shares = self.text_file(split), self.files.shares
        if not shares or split not in (TRAIN, *shares):
            return DataError(f"{path} holds no {self.rows}: put those of the split {split} in there")
        listed = " and ".join(f"{share} for {name}" for name, share in shares.items())
        return DataError(
            f"{path} holds no {self.rows} for the split {split} with the shares {listed} and the seed "
            f"{self.files.hold_out.seed}: add {self.rows}, write a file for the split, or change the shares "
            "(data.holdout, data.test_holdout). The split of a post depends on its text, so corrections of posts that "
            "were held out before are held out again"
        )
