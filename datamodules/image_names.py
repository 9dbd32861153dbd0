"""Which file of a folder the name of an image means, where the endings of the two differ."""

from __future__ import annotations

import os
from pathlib import Path

from mmib.datamodules.tables import HashedTable
from mmib.schema import DataError

# In the order of preference where a folder holds an image in several formats.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class ImageNames:
    """Finds the files of images by name.

    Where the file `1.jpg` is not there, `1.JPG`, `1.jpeg`, `1.png` and so on are taken for it, and `1.png.jpg` for
    `1.png`. Each folder is listed once, when a name in it is first asked for.

    Args:
        folder: names are relative to it; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[str, _Listing] = {}
        self._others = HashedTable()

    @property
    def renamed(self) -> int:
        """How many distinct names were found under another one."""
        return len(self._others)

    def find(self, name: str) -> Path | None:
        """The file that a name means, or None where there is none.

        Args:
            name: is known to lie inside the folder (`mmib.datamodules.files.inside`).

        Raises:
            DataError: the folder cannot be listed.
        """
        below, _, file_name = name.rpartition("/")
        if below not in self._listings:
            self._listings[below] = _Listing(self.folder / below)
        found = self._listings[below].find(file_name)
        if found is None:
            return None
        if found != file_name:
            self._others.setdefault(name, 1)
        return self.folder / below / found


class _Listing:
    """The names of a folder's files, in 24 bytes a name."""

    def __init__(self, folder: Path) -> None:
        self._stems = {ending: HashedTable() for ending in ENDINGS}
        for name in _file_names(folder):
            stem, ending = split_ending(name)
            self._stems.setdefault(ending, HashedTable()).setdefault(stem, 1)

    def find(self, name: str) -> str | None:
        stem, ending = split_ending(name)
        if self._holds(stem, ending):
            return name
        # The same format in other letters comes first.
        endings = sorted(filter(None, self._stems), key=lambda other: other.lower() != ending.lower())
        # A name that looks complete may be the stem of a file, as an IMGID that ends in `.png`.
        names = ((tried, other) for tried in (stem, name) for other in endings)
        return next((f"{tried}{other}" for tried, other in names if self._holds(tried, other)), None)

    def _holds(self, stem: str, ending: str) -> bool:
        return ending in self._stems and self._stems[ending].get(stem) is not None


def split_ending(name: str) -> tuple[str, str]:
    """Stem and ending of an image's name; the ending is empty where no image format has it."""
    stem, _, format_name = name.rpartition(".")
    ending = f".{format_name}"
    return (stem, ending) if stem and ending.lower() in ENDINGS else (name, "")


def _file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"the folder of images {folder} cannot be listed: {error.strerror}") from error
