"""Writes the demo corpus in the layouts of MNRE and Twitter-2017, with its ground truth.

The folder is created atomically: everything is written to a hidden sibling folder, which is renamed at the end. If two
processes build the same corpus at the same time, the first one to finish wins.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmib.base.cores import allowed_cores
from mmib.base.files import parse_json
from mmib.base.workers import worker_pool
from mmib.datamodules.demo.card import CARD, dataset_card
from mmib.datamodules.demo.layouts import Boxes, link, twitter_folders, write_json, write_mnre, write_twitter
from mmib.datamodules.demo.pictures import draw_picture
from mmib.datamodules.demo.posts import Post, draw_posts
from mmib.datamodules.demo.settings import SPLITS, DemoSettings
from mmib.datamodules.demo.truth import summarise, write_truth
from mmib.datamodules.released import MNRE
from mmib.schema import DataError

log = logging.getLogger(__name__)

VERSION = 4
MANIFEST = "demo.json"

_DEFAULTS = DemoSettings()
_CHUNK = 40  # images that a worker draws at a time
_QUALITY = 88


def write_demo_corpus(root: Path, settings: DemoSettings = _DEFAULTS) -> bool:
    """Write a demo corpus.

    Args:
        root: the folder to create, with its parents.
        settings: settings of the corpus.

    Returns:
        True if it was built, False if the same corpus existed already.

    Raises:
        DataError: `root` holds something else.
    """
    root = Path(root)
    if is_built(root, settings):
        return False
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{root.name}.building-", dir=root.parent, ignore_cleanup_errors=True
        ) as folder:
            work = Path(folder)
            work.chmod(0o755)
            _build(work, settings)
            work.rename(root)  # replaces only an empty folder
    except OSError as error:
        # Another process may have finished the same corpus first; anything else is a real error.
        if is_built(root, settings):
            return False
        raise DataError(f"the demo corpus {root} cannot be written: {error}; name another folder") from error
    return True


def describe(settings: DemoSettings) -> dict[str, Any]:
    """The identity of a corpus: the version of this code and the settings."""
    return {"version": VERSION, "settings": dataclasses.asdict(settings)}


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a demo corpus; None if `root` is no demo corpus."""
    path = Path(root) / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); remove {root} and build the demo corpus again") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: not the manifest of a demo corpus; remove {root} and build the demo corpus again")
    return manifest


def is_built(root: Path, settings: DemoSettings) -> bool:
    """Whether the corpus with these settings exists.

    Raises:
        DataError: `root` holds something else.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        raise DataError(f"{root} is a file; name a new folder for the demo corpus")
    if not any(root.iterdir()):
        return False
    manifest = read_manifest(root)
    if manifest is None:
        raise DataError(f"{root} holds something that is no demo corpus; name a new or an empty folder")
    wanted = describe(settings)
    found = {key: manifest.get(key) for key in wanted}
    if found != wanted:
        raise DataError(
            f"{root} holds another demo corpus ({_difference(found, wanted)}); remove it or name another folder"
        )
    return True


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Describe the difference of two corpora: the version, or else the settings."""
    if found["version"] != wanted["version"]:
        return f"version {found['version']}, not {wanted['version']}"
    settings = dict(found["settings"] or {})
    return ", ".join(
        f"{name} {settings.get(name)!r}, not {value!r}"
        for name, value in wanted["settings"].items()
        if settings.get(name) != value
    )


def _build(root: Path, settings: DemoSettings) -> None:
    posts = {split: draw_posts(settings, split) for split in SPLITS}
    (root / "demo").mkdir()
    for split in SPLITS:
        twitter_folders(root, split).make()
    boxes = _draw_all(root, posts, settings.seed)
    noise = {split: settings.hidden_noise(split) for split in SPLITS}
    for split in SPLITS:
        write_twitter(root, split, posts[split], boxes)
        write_mnre(root, split, posts[split], boxes)
        write_truth(root, split, posts[split], noise[split])
    write_json(root / "ours_rel2id.json", {name: number for number, name in enumerate(MNRE.names)})
    tasks = ("mre", "mner")
    splits = {split: {task: summarise(posts[split], task, noise[split]) for task in tasks} for split in SPLITS}
    manifest = {**describe(settings), "splits": splits}
    write_json(root / MANIFEST, manifest)
    (root / CARD).write_text(dataset_card(manifest), encoding="utf-8")


def _draw_all(root: Path, posts: dict[str, list[Post]], seed: int) -> Boxes:
    """Draw all images, in several processes if there are many, and return the boxes of their crops."""
    showing: dict[str, list[Post]] = {}
    for split in SPLITS:
        for post in posts[split]:
            if not post.missing:
                showing.setdefault(post.drawing, []).append(post)
    wanted = list(showing.values())
    jobs = [(root, wanted[start : start + _CHUNK], seed) for start in range(0, len(wanted), _CHUNK)]
    boxes: Boxes = {}
    with tqdm(total=len(wanted), desc="demo corpus", unit="image") as progress:
        for done in _run(jobs):
            boxes.update(done)
            progress.update(min(_CHUNK, len(wanted) - progress.n))
    return boxes


def _run(jobs: list[tuple[Path, list[list[Post]], int]]) -> Iterator[Boxes]:
    workers = min(allowed_cores(), len(jobs) // 4)
    if workers < 2:
        yield from itertools.starmap(_draw_chunk, jobs)
        return
    done = 0
    try:
        with worker_pool(workers) as pool:
            for boxes in pool.map(_draw_chunk, *zip(*jobs, strict=True)):
                done += 1
                yield boxes
    except BrokenProcessPool:
        log.warning("a process that drew images of the demo corpus ended early: this process draws the others alone")
        yield from itertools.starmap(_draw_chunk, jobs[done:])


def _draw_chunk(root: Path, drawings: list[list[Post]], seed: int) -> Boxes:
    """Draw one image for each list of posts that show it."""
    boxes: Boxes = {}
    for posts in drawings:
        first = posts[0]
        folders = twitter_folders(root, first.split)
        drawing = draw_picture(first, seed)
        drawing.image.save(folders.images / first.image, quality=_QUALITY)
        for name, crop in drawing.crops.items():
            crop.save(folders.crops / name, quality=_QUALITY)
        for post in posts[1:]:
            link(folders.images / first.image, folders.images / post.image)
        boxes.update({post.image: drawing.boxes for post in posts})
    return boxes
