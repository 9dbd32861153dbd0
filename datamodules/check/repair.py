"""Writes a repaired copy of data sets; the original files are unchanged."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from mmib.base.files import write_text
from mmib.datamodules.check.findings import ITEMS_SHOWN
from mmib.datamodules.check.pictures import Decoded, files_below
from mmib.datamodules.check.sets import SPLITS, ReadSplit, SetFiles, line_of
from mmib.datamodules.crops import Crops, write_crop_dictionary
from mmib.datamodules.files import inside
from mmib.datamodules.mnre_files import check_relation_ids
from mmib.datamodules.posts import TaggedPost
from mmib.labels import LabelSet, shown
from mmib.schema import DataError
from mmib.tagging import repair


def write_repaired(sets: Sequence[SetFiles], out: Path, labels: LabelSet | None = None) -> list[str]:
    """Write a copy of data sets in a released layout, without problems that would stop a training run or go unnoticed.

    Rows that cannot be read or whose spans differ from the names of their entities, missing or unreadable images and
    crops, and unreadable crop dictionaries are left out; stray I- tags become B-. Rows with labels that the label set
    lacks are kept. The copy appears when it is complete. Files are copied, not linked, so that changes to the copy do
    not affect the original.

    Args:
        sets: data sets to copy.
        out: folder of the copy.
        labels: see `mmib.datamodules.check.whole.check_set`.

    Returns:
        A sentence for each change.

    Raises:
        DataError: `out` exists and is not empty, is inside a data set or contains one; a data set is the demo corpus or
            has another format; a text cannot be read at all; the disk is full or not writable.
    """
    base = Path(os.path.commonpath([files.root.absolute() for files in sets]))
    _check_target(out, base)
    for files in sets:
        if files.is_demo:
            raise DataError(f"{files.root} is a demo corpus: remove it and write it again with `mmib demo-data`")
        if not files.has_released_layout:
            raise DataError(
                f"{files.root} holds {files.title}, and --fix writes copies of MNRE's and the Twitter sets' layouts "
                "only: correct what is listed in the file itself"
            )
    work = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex}")
    changes: list[str] = []
    try:
        work.mkdir(parents=True)
        copied: set[Path] = set()
        for files in sets:
            changes += _Copy(files, work / files.root.absolute().relative_to(base), copied, labels).write()
        if out.exists():
            out.rmdir()
        work.rename(out.absolute())
    except OSError as error:
        raise DataError(f"the repaired copy {out} cannot be written: {error}; name a folder elsewhere") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return changes


def _check_target(out: Path, base: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already: name a new or an empty folder for the repaired copy")
    here, there = base.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise DataError(f"{out} lies within {base} or around it: name a folder elsewhere for the repaired copy")


class _Copy:
    """Copies one data set.

    Args:
        files: the data set.
        root: folder of the copy.
        copied: folders of images that have been copied already, by this data set or by another that shares them.
        labels: the label set; None for the most likely one.
    """

    def __init__(self, files: SetFiles, root: Path, copied: set[Path], labels: LabelSet | None) -> None:
        self.files = files
        self.reader = files.reader
        self.labels = labels
        self.root = root
        self.copied = copied
        self.decoded = Decoded()
        self.changes: list[str] = []

    def write(self) -> list[str]:
        """Write all files; return the changes."""
        reads = {split: self.files.read(split) for split in SPLITS if self.reader.has_split(split)}
        for split, read in reads.items():
            self._write_text(split, read)
            self._copy_images(self.reader.image_folder(split), "image")
            self._copy_crops(split, read)
        self._copy_labels(self.labels or self.files.labelling(reads).labels)
        return self.changes

    def _target(self, path: Path) -> Path:
        return self.root / path.relative_to(self.files.root)

    def _write_text(self, split: str, read: ReadSplit) -> None:
        """Write the lines of the rows that are kept, with repaired stray tags."""
        path = self.reader.text_file(split)
        lines = path.read_bytes().decode("utf-8").split("\n")
        if len(read.posts) == len(read.doubtful):
            raise DataError(f"{path}: no row can be read, and there is nothing to copy; `mmib check-data` shows why")
        good, bad = read.posts.values(), read.malformed.values()
        starts = sorted([line_of(post.place) for post in good] + [fault.line for fault in bad])
        ends = dict(zip(starts, [*starts[1:], len(lines) + 1], strict=True))
        kept = lines[: starts[0] - 1]
        for number in range(len(starts)):
            reason = read.malformed[number].error if number in read.malformed else read.doubtful.get(number)
            start = starts[number]
            block = lines[start - 1 : ends[start] - 1]
            if reason is not None:
                last = start + max(place for place, line in enumerate(block) if line.strip())
                self.changes.append(f"left out: {reason}{f' (lines {start} to {last})' if last > start else ''}")
                continue
            post = read.posts[number]
            if isinstance(post, TaggedPost):
                self._mend_tags(post.tags, block, path, start)
            kept += block
        write_text(self._target(path), "\n".join(kept))

    def _mend_tags(self, tags: list[str], block: list[str], path: Path, start: int) -> None:
        """Change stray I- tags to B-; in a well-formed post each line with a tab is a word."""
        words = [place for place, line in enumerate(block) if "\t" in line]
        for place, tag, mended in zip(words, tags, repair(tags), strict=True):
            if tag != mended:
                block[place] = block[place].replace("\tI-", "\tB-")
                self.changes.append(f"{path}:{start + place}: the stray tag {tag} became {mended}")

    def _copy_images(self, folder: Path, what: str) -> None:
        """Copy all files of a folder that can be read as images, even if no row names them."""
        target = self._target(folder)
        if target in self.copied or not folder.is_dir():
            return
        self.copied.add(target)
        names = files_below(folder)
        self.decoded.read(folder / name for name in names)
        for name in names:
            reason = self.decoded.reason(folder / name)
            if reason is not None:
                self.changes.append(f"left out: the {what} {folder / name}: {reason}")
                continue
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)

    def _copy_crops(self, split: str, read: ReadSplit) -> None:
        """Copy the readable crops and the file of boxes, and write a dictionary of these crops."""
        try:
            crops = self.reader.crops(split)
        except DataError as error:
            self.changes.append(f"left out, with the crops of {split}: {error}")
            return
        if crops is None:
            return
        self._copy_images(crops.folder, "crop")
        if crops.source.is_file():
            self._write_dictionary(crops, read)
        if crops.boxes_file.is_file():
            self._copy_file(crops.boxes_file)

    def _write_dictionary(self, crops: Crops, read: ReadSplit) -> None:
        """Write the crops of the rows that are kept; rows are renumbered if some were left out."""
        kept: dict[object, list[str]] = {}
        lost = []
        for place, number in enumerate(sorted(read.posts.keys() - read.doubtful.keys())):
            image = read.posts[number].image
            names = crops.names.get(self.reader.crop_key(number, image), [])
            good = [name for name in names if self._is_good(crops, name)]
            lost += [name for name in names if name not in good]
            if names:
                kept[self.reader.crop_key(place, image)] = good
        if lost:
            lacking = shown(sorted(set(lost)), ITEMS_SHOWN)
            self.changes.append(f"left out of {crops.source}: missing or unreadable crops: {lacking}")
        write_crop_dictionary(self._target(crops.source), kept)

    def _is_good(self, crops: Crops, name: str) -> bool:
        try:
            file = inside(crops.folder, name, str(crops.source))
        except DataError:
            return False
        return os.path.lexists(file) and self.decoded.reason(file) is None

    def _copy_labels(self, labels: LabelSet | None) -> None:
        """Copy the data set's own list of labels if it matches the label set."""
        listed = self.reader.label_file
        if listed is None or labels is None or not listed.is_file():
            return
        try:
            check_relation_ids(listed, labels)
        except DataError as error:
            self.changes.append(f"left out: {error}")
        else:
            self._copy_file(listed)

    def _copy_file(self, path: Path) -> None:
        target = self._target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
