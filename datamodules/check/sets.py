"""The layouts that a check knows: where a data set keeps its files, and how its posts read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmib.datamodules import mnre_files, twitter_files
from mmib.datamodules.crops import CropFiles, Crops, image_name, row_number
from mmib.datamodules.files import Malformed, inside
from mmib.datamodules.mnre_files import RelationRow
from mmib.datamodules.released import RELEASED
from mmib.datamodules.twitter_files import TaggedPost
from mmib.schema import DataError, Task

SPLITS = ("train", "val", "test")
DEMO_MANIFEST = "demo.json"


@dataclass(frozen=True)
class ReadSplit:
    """The rows of a split by their position in the file, which crop dictionaries count by.

    Attributes:
        rows: those that can be read.
        malformed: the others.
        doubtful: why some of `rows` are wrong in all likelihood.
    """

    rows: dict[int, Any] = field(default_factory=dict)
    malformed: dict[int, Malformed] = field(default_factory=dict)
    doubtful: dict[int, str] = field(default_factory=dict)


class SetFiles(ABC):
    """A data set on disk.

    Args:
        root: its folder.

    Attributes:
        name: `mnre`, `twitter2015` or `twitter2017`.
        task: what it is for.
        layout: which files are expected where.
        counted: names of what `mmib.datamodules.released` counts.
        unit: what a row is called.
    """

    name: str
    task: Task
    layout: str
    counted: tuple[str, ...]
    unit: str
    parse_key: Callable[[object], Any]

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def is_demo(self) -> bool:
        """Whether it is the drawn demo corpus and no real set."""
        return (self.root / DEMO_MANIFEST).is_file()

    @property
    def labels_file(self) -> Path | None:
        """The set's own list of labels, which need not be there."""
        return None

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the layout, for people."""

    @abstractmethod
    def text_file(self, split: str) -> Path:
        """Its text."""

    @abstractmethod
    def image_folder(self, split: str) -> Path:
        """Its whole images."""

    @abstractmethod
    def crop_files(self, split: str) -> CropFiles:
        """Its object crops, with a dictionary."""

    @abstractmethod
    def scan(self, split: str) -> Iterator[Any]:
        """Its rows, or `Malformed` in their place."""

    @abstractmethod
    def words(self, row: Any) -> list[str]:
        """The words of a row."""

    @abstractmethod
    def crop_key(self, number: int, row: Any) -> Any:
        """What a row is called in a crop dictionary."""

    def doubt(self, row: Any) -> str | None:
        """Why a row is wrong in all likelihood, although it can be read, or None."""
        del row
        return None

    def crops(self, split: str, rows: Iterable[Any]) -> tuple[str, Crops] | None:
        """The object crops of a split and how they are laid out; None where there are none.

        Raises:
            DataError: dictionary or boxes cannot be read.
        """
        del rows
        files = self.crop_files(split)
        if not files.dictionary.is_file():
            return None
        return f"{self._below(files.dictionary)} with {self._below(files.crops)}/", Crops.listed(files, self.parse_key)

    def has_any(self) -> bool:
        """Whether the text of any split is there."""
        return any(self.text_file(split).is_file() for split in SPLITS)

    def read(self, split: str) -> ReadSplit:
        """The rows of a split; one whose image lies outside the folder of images is malformed too.

        Raises:
            DataError: the file holds none, or cannot be read.
        """
        read = ReadSplit()
        for number, row in enumerate(self.scan(split)):
            if isinstance(row, Malformed):
                read.malformed[number] = row
                continue
            try:
                inside(self.image_folder(split), row.image, row.place)
            except DataError as error:
                read.malformed[number] = Malformed(line_of(row.place), error)
            else:
                read.rows[number] = row
                doubt = self.doubt(row)
                if doubt is not None:
                    read.doubtful[number] = doubt
        return read

    def expected(self, split: str) -> dict[str, int]:
        """The counts of a split as far as they are known."""
        if not self.is_demo:
            return dict(zip(self.counted, RELEASED[self.name][split], strict=True))
        from mmib.datamodules.demo.reading import read_ceilings  # noqa: PLC0415 - brings the training code along

        levels = (read_ceilings(self.root, split, self.task) or {"levels": {}})["levels"]
        return {self.counted[0]: sum(level["rows"] for level in levels.values())}

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


class MNRESet(SetFiles):
    """MNRE, or any corpus in its layout."""

    name = "mnre"
    task: Task = "mre"
    layout = mnre_files.LAYOUT
    counted = ("rows", "none")
    unit = "rows"
    parse_key = staticmethod(row_number)

    @property
    def title(self) -> str:
        """See `SetFiles.title`."""
        return "MNRE"

    def text_file(self, split: str) -> Path:
        """See `SetFiles.text_file`."""
        return mnre_files.text_file(self.root, split)

    def image_folder(self, split: str) -> Path:
        """See `SetFiles.image_folder`."""
        return mnre_files.image_folder(self.root, split)

    def crop_files(self, split: str) -> CropFiles:
        """See `SetFiles.crop_files`."""
        return mnre_files.crop_files(self.root, split)

    def scan(self, split: str) -> Iterator[RelationRow | Malformed]:
        """See `SetFiles.scan`."""
        return mnre_files.scan_rows(self.text_file(split))

    def words(self, row: RelationRow) -> list[str]:
        """See `SetFiles.words`."""
        return row.tokens

    def crop_key(self, number: int, row: RelationRow) -> int:
        """See `SetFiles.crop_key`."""
        return number

    def doubt(self, row: RelationRow) -> str | None:
        """See `SetFiles.doubt`: a span that does not hold what the file calls the entity."""
        for key, (start, end), name in zip("ht", (row.head, row.tail), row.names, strict=True):
            words = row.tokens[start:end]
            if name is not None and "".join(name.split()) != "".join("".join(words).split()):
                return f"{row.place}: the span [{start}, {end}) of {key!r} holds {' '.join(words)!r}, named {name!r}"
        return None

    @property
    def labels_file(self) -> Path:
        """See `SetFiles.labels_file`."""
        return self.root / "ours_rel2id.json"


class TwitterSet(SetFiles):
    """Twitter-2015 or Twitter-2017, or any corpus in their layout.

    Args:
        root: the folder that holds `twitter2015` or `twitter2017`.
        year: which of them.
    """

    task: Task = "mner"
    counted = ("posts", "entities", "entities_strict")
    unit = "posts"
    parse_key = staticmethod(image_name)

    def __init__(self, root: Path, year: int) -> None:
        super().__init__(root)
        self.year = year
        self.name = f"twitter{year}"
        self.layout = twitter_files.LAYOUT.format(year=year)

    @property
    def title(self) -> str:
        """See `SetFiles.title`."""
        return f"Twitter-{self.year}"

    def text_file(self, split: str) -> Path:
        """See `SetFiles.text_file`."""
        return twitter_files.text_file(self.root, self.year, split)

    def image_folder(self, split: str) -> Path:
        """See `SetFiles.image_folder`."""
        del split  # all splits share one folder
        return twitter_files.image_folder(self.root, self.year)

    def crop_files(self, split: str) -> CropFiles:
        """See `SetFiles.crop_files`."""
        return twitter_files.crop_files(self.root, self.year, split)

    def crops(self, split: str, rows: Iterable[TaggedPost]) -> tuple[str, Crops] | None:
        """See `SetFiles.crops`; without a dictionary they go by the names of files."""
        listed = super().crops(split, rows)
        folder = twitter_files.typed_crop_folder(self.root, self.year)
        if listed is not None or not folder.is_dir():
            return listed
        names = twitter_files.typed_crops(folder, {post.image for post in rows})
        return f"{folder.name}/<IMGID>/crop_<type>_<IMGID>.jpg", Crops(folder, names, folder, folder / "boxes.json")

    def scan(self, split: str) -> Iterator[TaggedPost | Malformed]:
        """See `SetFiles.scan`."""
        return twitter_files.scan_posts(self.text_file(split), self.layout)

    def words(self, row: TaggedPost) -> list[str]:
        """See `SetFiles.words`."""
        return row.words

    def crop_key(self, number: int, row: TaggedPost) -> str:
        """See `SetFiles.crop_key`."""
        return row.image


def line_of(place: str) -> int:
    """The line of a `file:line`."""
    return int(place.rpartition(":")[2])
