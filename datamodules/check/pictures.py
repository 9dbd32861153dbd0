"""Checks images and object crops: missing, unreadable and duplicate files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmib.base.wording import counted
from mmib.datamodules.check.findings import FileCounts, Finding, SplitReport
from mmib.datamodules.check.sets import ReadSplit, SetFiles
from mmib.datamodules.crops import Crops
from mmib.datamodules.files import Digests, inside
from mmib.datamodules.image_names import searched_folder, split_ending
from mmib.datamodules.images import unreadable_images, why_unreadable
from mmib.schema import DataError


class Decoded:
    """Whether files can be read as images; each file is decoded and hashed only once.

    Attributes:
        digests: SHA-256 of the files' contents.
    """

    def __init__(self) -> None:
        self.digests = Digests()
        self._reasons: dict[Path, str | None] = {}

    def read(self, files: Iterable[Path]) -> None:
        """Decode the files that have not been decoded yet."""
        new = sorted(set(files) - self._reasons.keys())
        self._reasons |= dict.fromkeys(new) | unreadable_images(new)

    def reason(self, file: Path) -> str | None:
        """The reason why a file cannot be read as an image, or None."""
        if file not in self._reasons:
            self._reasons[file] = why_unreadable(file)
        return self._reasons[file]


@dataclass(frozen=True)
class SplitImages:
    """The whole images of a split.

    Attributes:
        folder: folder of the images.
        files: the file of each name, or None if there is none.
        readable: names of the readable images.
    """

    folder: Path
    files: dict[str, Path | None]
    readable: set[str]


def check_images(
    files: SetFiles, read: ReadSplit, decoded: Decoded, report: SplitReport, max_missing: float
) -> SplitImages:
    """Add counts and findings of a split's whole images to its report.

    Args:
        files: the data set.
        read: the posts of the split.
        decoded: the decoded files.
        report: report of the split.
        max_missing: largest share of images that may be missing in training.
    """
    images = [post.image for post in read.posts.values() if post.image]
    names = list(dict.fromkeys(images))
    pictures = files.reader.pictures(report.split, names, max_crops=0)
    wanted = {name: found[0].file if found else None for name, found in zip(names, pictures, strict=True)}
    good, counts, findings = _sort(wanted, images, decoded, "images")
    report.images = counts
    report.findings += findings
    lost = counts.missing + counts.unreadable
    if lost:
        share = lost / counts.named
        refused = share > max_missing
        absent = sorted(name for name, file in wanted.items() if file is None)
        folder = searched_folder(files.reader.image_folder(report.split), absent)
        text = f"{lost:,} of {counts.named:,} images ({share:.1%}) are missing or unreadable in {folder}" + (
            f", and training allows {max_missing:.0%} unless data.max_missing_images is higher (mmib init sets it)"
            if refused
            else ""
        )
        report.findings.append(Finding("problem" if refused else "note", "missing_images", text, absent))
    renamed = sorted(f"{name} = {file.name}" for name, file in wanted.items() if file and file.name != Path(name).name)
    if renamed:
        text = f"{counted(len(renamed), 'images')} found under another ending than the posts name"
        report.findings.append(Finding("note", "renamed_images", text, renamed))
    return SplitImages(files.reader.image_folder(report.split), wanted, good)


def check_crops(files: SetFiles, read: ReadSplit, decoded: Decoded, report: SplitReport) -> None:
    """Add counts and findings of a split's object crops to its report."""
    try:
        crops = files.reader.crops(report.split)
    except DataError as error:
        report.findings.append(Finding("problem", "crops", f"the object crops cannot be read: {error}"))
        return
    if crops is None:
        return
    is_listed = crops.source.is_file()
    report.crop_layout = f"{files.below(crops.folder)}/"
    if is_listed:
        report.crop_layout = f"{files.below(crops.source)} with {report.crop_layout}"
    keys = {number: files.reader.crop_key(number, post.image) for number, post in read.posts.items()}
    listed = sorted({name for key in keys.values() for name in crops.names.get(key, [])})
    wanted, outside = _inside(crops, listed)
    if outside:
        text = f"{counted(len(outside), 'names')} of crops outside their folder: training stops at the first"
        report.findings.append(Finding("problem", "crops_outside", text, outside))
    rows = [next((name for name in crops.names.get(key, []) if name in wanted), "") for key in keys.values()]
    _, counts, findings = _sort(wanted, rows, decoded, "crops")
    report.crops = counts
    report.findings += findings
    if counts.missing:
        absent = sorted(name for name, file in wanted.items() if file is None)
        text = (
            f"{counts.missing:,} of {counts.named:,} crops are missing, and their {files.reader.rows} go without them"
        )
        report.findings.append(Finding("problem", "missing_crops", text, absent))
    strange = sorted(map(str, crops.names.keys() - set(keys.values()) - read.malformed.keys()))
    # A folder of crops that are found by their file names serves all splits.
    if strange and is_listed:
        text = f"crops are listed for {counted(len(strange), 'images')} or numbers that no {files.reader.rows} have"
        report.findings.append(Finding("note", "crops_of_nothing", text, strange))


def check_folders(files: SetFiles, images: Mapping[str, SplitImages], decoded: Decoded) -> list[Finding]:
    """Return the findings on whole images that depend on all splits.

    Args:
        files: the data set.
        images: images of each split.
        decoded: the decoded files.
    """
    named: dict[Path, set[Path]] = {}
    for split in images.values():
        named.setdefault(split.folder, set()).update(filter(None, split.files.values()))
    # If the images are directly in the root, it may also hold unrelated images.
    folders = {folder: found for folder, found in named.items() if folder != files.root}
    orphans = sorted(
        name
        for folder, found in folders.items()
        for name in files_below(folder)
        if split_ending(name)[1] and folder / name not in found
    )
    findings = []
    if orphans:
        text = f"{counted(len(orphans), 'images')} in the image folders, not named by any {files.reader.rows}"
        findings.append(Finding("note", "orphans", text, orphans))
    return findings + _copies(images, decoded)


def _copies(images: Mapping[str, SplitImages], decoded: Decoded) -> list[Finding]:
    """Findings on images with the same content under several names or in several splits."""
    contents: dict[str, dict[str, set[str]]] = {}
    for split, found in images.items():
        for name, file in found.files.items():
            if file is not None and name in found.readable:
                contents.setdefault(decoded.digests[file], {}).setdefault(split, set()).add(name)
    findings = []
    copies = [sorted(set().union(*by_split.values())) for by_split in contents.values()]
    duplicates = sorted(" = ".join(names) for names in copies if len(names) > 1)
    if duplicates:
        text = f"{counted(len(duplicates), 'images')} with several names for the same content"
        findings.append(Finding("note", "duplicate_images", text, duplicates))
    shared = [by_split for by_split in contents.values() if len(by_split) > 1]
    if shared:
        text = f"{counted(len(shared), 'images')} in more than one split"
        places = sorted(f"{min(names)} ({', '.join(by)})" for by in shared for names in [set().union(*by.values())])
        findings.append(Finding("note", "shared_images", text, places))
    return findings


def _sort(
    wanted: Mapping[str, Path | None], rows: list[str], decoded: Decoded, what: str
) -> tuple[set[str], FileCounts, list[Finding]]:
    """Decode files; return the names of readable ones, the counts, and findings on unreadable ones."""
    there = {name: file for name, file in wanted.items() if file is not None}
    decoded.read(there.values())
    good = {name for name, file in there.items() if decoded.reason(file) is None}
    bad = [f"{name} ({decoded.reason(file)})" for name, file in there.items() if name not in good]
    counts = FileCounts(len(wanted), len(good), len(wanted) - len(there), len(bad), sum(name in good for name in rows))
    if not bad:
        return good, counts, []
    text = f"{len(bad):,} {what} exist but cannot be read"
    return good, counts, [Finding("problem", f"unreadable_{what}", text, sorted(bad))]


def _inside(crops: Crops, names: list[str]) -> tuple[dict[str, Path | None], list[str]]:
    """Return the file of each name, or None if it does not exist, and the names that point outside the folder."""
    files: dict[str, Path | None] = {}
    outside = []
    for name in names:
        try:
            file = inside(crops.folder, name, str(crops.source))
        except DataError:
            outside.append(name)
        else:
            files[name] = file if os.path.lexists(file) else None
    return files, outside


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder; links to folders are included but not followed."""
    names = []
    for where, folders, files in os.walk(folder):
        below = Path(where).relative_to(folder)
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        names += [(below / name).as_posix() for name in (*files, *links)]
    return names
