"""Writes the demo corpus in MNRE's own layout, with what is known about it beside it.

The folder appears at once and complete, or not at all: everything is written into a hidden sibling, which is renamed
at the end. Of two processes that build the same corpus at the same time, the first to finish wins.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datamodules.demo.ceilings import expected_best_f1
from datamodules.demo.pictures import Box, draw_picture
from datamodules.demo.posteriors import View, relation_posteriors
from datamodules.demo.posts import LEVELS, Post, draw_posts
from datamodules.demo.settings import SPLITS, DemoSettings
from mmib.schema import RELATION_IDS, DataError

VERSION = 1
MANIFEST = "demo.json"

# MNRE calls its validation split "val" everywhere but in the name of this one file.
_CROP_FILES = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}
_VIEWS: tuple[View, ...] = ("text", "multimodal")
_DEFAULTS = DemoSettings()
_CHUNK = 40  # images that a worker draws at a time
_QUALITY = 88

Boxes = dict[str, dict[str, Box]]  # image name -> crop name -> box, in the order in which crops are listed


def write_demo_corpus(root: Path, settings: DemoSettings = _DEFAULTS) -> bool:
    """Writes a demo corpus.

    Args:
        root: the folder to make; its parents are made too.
        settings: what to write.

    Returns:
        True if it was built, False if the same corpus was there already.

    Raises:
        DataError: `root` holds something else.
    """
    root = Path(root)
    if _is_built(root, settings):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}.building-", dir=root.parent))
    try:
        work.chmod(0o755)
        _build(work, settings)
        work.rename(root)  # replaces an empty folder, and nothing else
    except OSError:
        # Another process may have finished the same corpus first; anything else is a real error.
        if _is_built(root, settings):
            return False
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def describe(settings: DemoSettings) -> dict[str, Any]:
    """What identifies a corpus: the writer's version and the settings."""
    return {"version": VERSION, "settings": dataclasses.asdict(settings)}


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a demo corpus; None where `root` is no demo corpus."""
    path = Path(root) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); remove {root} and build the demo corpus again") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: not the manifest of a demo corpus; remove {root} and build the demo corpus again")
    return manifest


def _is_built(root: Path, settings: DemoSettings) -> bool:
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
        raise DataError(f"{root} holds another demo corpus ({found}, not {wanted}); remove it or name another folder")
    return True


def _build(root: Path, settings: DemoSettings) -> None:
    posts = {split: draw_posts(settings, split) for split in SPLITS}
    for split in SPLITS:
        for folder in ("txt", "demo", f"img_org/{split}", f"img_vg/{split}/crops"):
            (root / folder).mkdir(parents=True, exist_ok=True)
    boxes = _draw_all(root, posts, settings.seed)
    for split in SPLITS:
        _write_text(root, split, posts[split])
        _write_crop_lists(root, split, posts[split], boxes)
        _write_truth(root, split, posts[split], settings.noise)
    _write_json(root / "ours_rel2id.json", RELATION_IDS)
    splits = {split: _summary(posts[split], settings.noise) for split in SPLITS}
    _write_json(root / MANIFEST, {**describe(settings), "splits": splits})


def _draw_all(root: Path, posts: dict[str, list[Post]], seed: int) -> Boxes:
    """Draws all images, in several processes where there are many, and gives the boxes of their crops."""
    wanted = [post for split in SPLITS for post in posts[split] if not post.missing]
    jobs = [(root, wanted[start : start + _CHUNK], seed) for start in range(0, len(wanted), _CHUNK)]
    boxes: Boxes = {}
    with tqdm(total=len(wanted), desc="demo corpus", unit="image") as progress:
        for done in _run(jobs):
            boxes.update(done)
            progress.update(len(done))
    return boxes


def _run(jobs: list[tuple[Path, list[Post], int]]) -> Iterator[Boxes]:
    workers = min(os.cpu_count() or 1, len(jobs) // 4)
    if workers < 2:
        yield from itertools.starmap(_draw_chunk, jobs)
        return
    # Not forked: the caller may hold threads, and a fork would copy their locks.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_draw_chunk, *zip(*jobs, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_chunk(root: Path, posts: list[Post], seed: int) -> Boxes:
    boxes: Boxes = {}
    for post in posts:
        drawing = draw_picture(post, seed)
        drawing.image.save(root / "img_org" / post.split / post.image, quality=_QUALITY)
        for name, crop in drawing.crops.items():
            crop.save(root / "img_vg" / post.split / "crops" / name, quality=_QUALITY)
        boxes[post.image] = drawing.boxes
    return boxes


def _write_text(root: Path, split: str, posts: list[Post]) -> None:
    with (root / "txt" / f"ours_{split}.txt").open("w", encoding="utf-8") as file:
        for post in posts:
            for pair in post.pairs:
                row = {
                    "token": list(post.tokens),
                    "h": _mention(post, pair.head),
                    "t": _mention(post, pair.tail),
                    "img_id": post.image,
                    "relation": pair.relation,
                }
                file.write(f"{row!r}\n")


def _mention(post: Post, entity: int) -> dict[str, Any]:
    start, end, _ = post.entities[entity]
    return {"name": " ".join(post.tokens[start:end]), "pos": [start, end]}


def _write_crop_lists(root: Path, split: str, posts: list[Post], boxes: Boxes) -> None:
    import torch  # noqa: PLC0415 - slow to import, and only this file is in its format

    shown = {post.image: boxes[post.image] for post in posts if post.image in boxes}
    rows = enumerate(post.image for post in posts for _ in post.pairs)
    crops = {row: list(shown[image]) for row, image in rows if image in shown}
    torch.save(crops, root / "txt" / _CROP_FILES[split])
    flat = {crop: [round(side, 5) for side in box] for crops in shown.values() for crop, box in crops.items()}
    _write_json(root / "img_vg" / split / "boxes.json", flat)


def _write_truth(root: Path, split: str, posts: list[Post], noise: float) -> None:
    """What is known about each post and each row; no model reads it."""
    row = 0
    with (
        (root / "demo" / f"{split}.jsonl").open("w", encoding="utf-8") as post_file,
        (root / "demo" / f"rows_{split}.jsonl").open("w", encoding="utf-8") as row_file,
    ):
        for post in posts:
            numbers = list(range(row, row + len(post.pairs)))
            row += len(numbers)
            post_file.write(_json_line(_post_record(post, numbers)))
            for record in _row_records(post, numbers, noise):
                row_file.write(_json_line(record))


def _post_record(post: Post, numbers: list[int]) -> dict[str, Any]:
    return {
        "id": post.identity,
        "level": post.level,
        "tokens": post.tokens,
        "entities": post.entities,
        "relations": [(pair.head, pair.tail, pair.relation) for pair in post.pairs],
        "image": None if post.missing else post.image,
        "noisy": post.noisy,
        "clauses": [
            {"family": clause.family, "theme": clause.theme, "colour": clause.colour} for clause in post.clauses
        ],
        "picture": {"scene": post.picture.scene, "people": post.picture.people},
        "rows": numbers,
    }


def _row_records(post: Post, numbers: list[int], noise: float) -> Iterator[dict[str, Any]]:
    posteriors = zip(*(relation_posteriors(post, view, noise) for view in _VIEWS), strict=True)
    for number, pair, (text, multimodal) in zip(numbers, post.pairs, posteriors, strict=True):
        yield {
            "row": number,
            "post": post.identity,
            "level": post.level,
            "kind": pair.kind,
            "relation": pair.relation,
            "posterior_text": text,
            "posterior_multimodal": multimodal,
        }


def _summary(posts: list[Post], noise: float) -> dict[str, Any]:
    by_level = {level: [post for post in posts if post.level == level] for level in LEVELS}
    return {
        **_counts(posts),
        "ceiling": _ceilings(posts, noise),
        "levels": {
            level: {
                **_counts(members),
                "ceiling": _ceilings(members, noise),
                # With every colour and every prop known, but not who holds what: what regions are needed for.
                "unbound": _ceiling(members, "unbound", noise),
            }
            for level, members in by_level.items()
        },
    }


def _counts(posts: list[Post]) -> dict[str, int]:
    return {
        "posts": len(posts),
        "rows": sum(len(post.pairs) for post in posts),
        "images": sum(not post.missing for post in posts),
    }


def _ceilings(posts: list[Post], noise: float) -> dict[str, float]:
    return {view: _ceiling(posts, view, noise) for view in _VIEWS}


def _ceiling(posts: list[Post], view: View, noise: float) -> float:
    return expected_best_f1([row for post in posts for row in relation_posteriors(post, view, noise)])


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
