"""The same posts in two data sets' own layouts: MNRE's and Twitter-2017's, in one root folder.

Images are drawn into Twitter-2017's folders, which hold every post; MNRE's hold links to those of the posts with pairs.
The feature cache goes by content, so an image that both tasks read is encoded once.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.datamodules.demo.pictures import Box
from mmib.datamodules.demo.posts import Post

# Both data sets call the validation split "val" everywhere but in the names of these files.
_MNRE_CROP_LISTS = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}
_TWITTER_TEXTS = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}

Boxes = dict[str, dict[str, Box]]  # image name -> crop name -> box, in the order in which crops are listed


@dataclass(frozen=True)
class ImageFolders:
    """Where a data set keeps the images of a split, and the crops of these."""

    images: Path
    crops: Path

    def make(self) -> None:
        """Make both folders."""
        for folder in (self.images, self.crops):
            folder.mkdir(parents=True, exist_ok=True)


def mnre_folders(root: Path, split: str) -> ImageFolders:
    """MNRE's image folders."""
    return ImageFolders(root / "img_org" / split, root / "img_vg" / split / "crops")


def twitter_folders(root: Path, split: str) -> ImageFolders:
    """Twitter-2017's image folders; all splits share that of the whole images."""
    return ImageFolders(root / "twitter2017_images", root / "twitter2017_aux_images" / split / "crops")


def write_twitter(root: Path, split: str, posts: list[Post], boxes: Boxes) -> None:
    """The text file of a split, its list of crops and their boxes; the images are there already.

    Args:
        root: folder of the corpus.
        split: the split.
        posts: all its posts.
        boxes: of the crops of every image that is there.
    """
    folder = root / "twitter2017"
    folder.mkdir(exist_ok=True)
    (folder / _TWITTER_TEXTS[split]).write_text("".join(map(_tagged, posts)), encoding="utf-8")
    shown = {post.image: boxes[post.image] for post in posts if post.image in boxes}
    _save_lists(folder / f"twitter2017_{split}_dict.pth", {image: list(crops) for image, crops in shown.items()})
    _write_boxes(twitter_folders(root, split), shown)


def write_mnre(root: Path, split: str, posts: list[Post], boxes: Boxes) -> None:
    """The rows of a split, its images as links to Twitter-2017's, its list of crops and their boxes.

    Args: see `write_twitter`.
    """
    folder = root / "txt"
    folder.mkdir(exist_ok=True)
    rows = [(post, row) for post in posts for row in _rows(post)]
    (folder / f"ours_{split}.txt").write_text("".join(f"{row!r}\n" for _, row in rows), encoding="utf-8")
    shown = {post.image: boxes[post.image] for post, _ in rows if post.image in boxes}
    crops = {number: list(shown[post.image]) for number, (post, _) in enumerate(rows) if post.image in shown}
    _save_lists(folder / _MNRE_CROP_LISTS[split], crops)
    folders = mnre_folders(root, split)
    _link_images(twitter_folders(root, split), folders, shown)
    _write_boxes(folders, shown)


def write_json(path: Path, value: Any) -> None:
    """A JSON file that a person can read."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _tagged(post: Post) -> str:
    """A post as Twitter-2017 writes it: its id, a line a token with its BIO tag, an empty line."""
    tags = ["O"] * len(post.tokens)
    for start, end, entity_type in post.entities:
        tags[start:end] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (end - start - 1)]
    lines = [f"{token}\t{tag}\n" for token, tag in zip(post.tokens, tags, strict=True)]
    return f"IMGID:{post.identity}\n{''.join(lines)}\n"


def _rows(post: Post) -> list[dict[str, Any]]:
    """A post as MNRE writes it: a row a pair."""
    return [
        {
            "token": list(post.tokens),
            "h": _mention(post, pair.head),
            "t": _mention(post, pair.tail),
            "img_id": post.image,
            "relation": pair.relation,
        }
        for pair in post.pairs
    ]


def _mention(post: Post, entity: int) -> dict[str, Any]:
    start, end, _ = post.entities[entity]
    return {"name": " ".join(post.tokens[start:end]), "pos": [start, end]}


def _save_lists(path: Path, crops: dict[int, list[str]] | dict[str, list[str]]) -> None:
    import torch  # noqa: PLC0415 - slow to import, and only these files are in its format

    torch.save(crops, path)


def _write_boxes(folders: ImageFolders, shown: Boxes) -> None:
    flat = {crop: [round(side, 5) for side in box] for crops in shown.values() for crop, box in crops.items()}
    write_json(folders.crops.parent / "boxes.json", flat)


def _link_images(source: ImageFolders, target: ImageFolders, shown: Boxes) -> None:
    target.make()
    for image in shown:
        link(source.images / image, target.images / image)
    for crop in {crop for crops in shown.values() for crop in crops}:
        link(source.crops / crop, target.crops / crop)


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
