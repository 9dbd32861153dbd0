"""Unpacks images from untrusted zip or tar archives into the folders that readers expect."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tqdm import tqdm

from mmib.base.files import named
from mmib.datamodules.image_names import split_ending
from mmib.schema import DataError

# Limits of an archive of images. Images hardly compress, so an archive that expands more holds something else.
MOST_MEMBERS = 500_000
MOST_GROWTH = 20
ALWAYS_ALLOWED = 16 << 20  # bytes: small archives may expand more
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, BadGzipFile),
    # Raised for a zip that is encrypted, or has a compression that Python lacks.
    *(RuntimeError, NotImplementedError),
)


class _Opened(Protocol):
    def __call__(self) -> IO[bytes] | None: ...


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive; `size` in bytes."""

    name: str
    size: int
    opened: _Opened


def unpack_images(archive: Path, wanted: Iterable[PurePosixPath], folder: Path) -> int:
    """Write the wanted images of an archive, which may have any folders.

    An image is recognised by its name without the ending. If several members match, the one whose path shares the most
    folders with the target path is used.

    Args:
        archive: a zip archive, or a tar archive with any compression.
        wanted: paths of the images below `folder`.
        folder: a new or empty folder.

    Returns:
        The number of images written.

    Raises:
        DataError: the archive is damaged, unsafe, or holds none of the images.
        OSError: an image cannot be written.
    """
    try:
        chosen = _choose(archive, wanted)
        written = 0
        with tqdm(total=sum(map(len, chosen.values())), unit="image", desc="unpacking") as bar:
            for member in _members(archive):
                for target in chosen.pop(member.name, ()):  # of members with the same name, the first
                    _write(member, folder / target)
                    written += 1
                    bar.update()
    except DAMAGED as error:
        raise DataError(f"the archive {archive} is damaged: {error}; delete it to download it again") from error
    if not written:
        raise DataError(
            f"the archive {archive} holds none of the images that the posts name: is it the archive of this data set?"
        )
    return written


def _choose(archive: Path, wanted: Iterable[PurePosixPath]) -> dict[str, list[PurePosixPath]]:
    """Return the target paths of each member that is needed, after a check of all members."""
    by_stem: dict[str, list[PurePosixPath]] = {}
    for target in dict.fromkeys(wanted):
        by_stem.setdefault(split_ending(target.name)[0], []).append(target)
    best: dict[PurePosixPath, tuple[int, str]] = {}
    for member in _members(archive):
        path = PurePosixPath(member.name)
        stem, ending = split_ending(path.name)
        for target in by_stem.get(stem, ()) if ending else ():
            common = len({*path.parent.parts} & {*target.parent.parts})
            if target not in best or common > best[target][0]:
                best[target] = (common, member.name)
    chosen: dict[str, list[PurePosixPath]] = {}
    for target, (_, name) in best.items():
        # In the target folder, with the member's ending, which tells the format of the image.
        chosen.setdefault(name, []).append(target.with_name(PurePosixPath(name).name))
    return chosen


def _members(archive: Path) -> Iterator[_Member]:
    """The regular files of an archive.

    Raises:
        DataError: the file is no archive, or holds members that do not belong in an archive of images.
    """
    most = MOST_GROWTH * archive.stat().st_size + ALWAYS_ALLOWED
    total = 0
    for number, member in enumerate(_zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)):
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
            raise DataError(f"the archive {archive} holds a path that leads out of it, {member.name!r}")
        total += member.size
        if total > most or number >= MOST_MEMBERS:
            raise DataError(
                f"the archive {archive} holds more than images do: over {most >> 20:,} MB unpacked, or over "
                f"{MOST_MEMBERS:,} files"
            )
        yield member


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_file(archive, entry.filename)
            if not entry.is_dir():
                yield _Member(entry.filename, entry.file_size, lambda entry=entry: packed.open(entry))


def _tar_members(archive: Path) -> Iterator[_Member]:
    if not tarfile.is_tarfile(archive):
        raise DataError(f"{archive} is neither a zip nor a tar archive: download it again, or unpack it by hand")
    with tarfile.open(archive) as packed:
        for entry in packed:
            if not (entry.isfile() or entry.isdir()):
                raise _no_file(archive, entry.name)
            if entry.isfile():
                yield _Member(entry.name, entry.size, lambda entry=entry: packed.extractfile(entry))


def _no_file(archive: Path, name: str) -> DataError:
    return DataError(f"the archive {archive} holds a link or a device, {name!r}")


def _write(member: _Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = member.opened()
    if content is not None:
        with content, named(path), path.open("wb") as file:
            shutil.copyfileobj(content, file, length=1 << 20)
