"""Writes the same posts in the layouts of MNRE and Twitter-2017, in one root folder.

Images are written to the folders of Twitter-2017, which has all posts; those of MNRE have links to the images of posts
with pairs. The feature cache is keyed by content, so an image that both tasks read is encoded once.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmib.datamodules.crops import write_crop_dictionary
from mmib.datamodules.demo.pictures import Box
from mmib.datamodules.demo.posts import Post

# Both data sets call the validation split "val", except in the names of these files.
_MNRE_CROP_LISTS = {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth", "test": "mre_test_dict.pth"}
_TWITTER_TEXTS = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}

Boxes = dict[str, dict[str, Box]]  # image name -> crop name -> box, in the listed order of crops


@dataclass(frozen=True)
class ImageFolders:
    """The folders of a split's images and of their crops."""

    images: Path
    crops: Path

    def make(self) -> None:
        """Create both folders."""
        for folder in (self.images, self.crops):
            folder.mkdir(parents=True, exist_ok=True)


def mnre_folders(root: Path, split: str) -> ImageFolders:
    """The image folders of MNRE."""
    return ImageFolders(root / "img_org" / split, root / "img_vg" / split / "crops")


def twitter_folders(root: Path, split: str) -> ImageFolders:
    """The image folders of Twitter-2017; all splits share the folder of the whole images."""
    return ImageFolders(root / "twitter2017_images", root / "twitter2017_aux_images" / split / "crops")


def write_twitter(root: Path, split: str, posts: list[Post], boxes: Boxes) -> None:
    """Write the text file of a split, the list of its crops and their boxes; the images exist already.

    Args:
        root: folder of the corpus.
        split: the split.
        posts: all posts of the split.
        boxes: boxes of the crops of every existing image.
    """
    folder = root / "twitter2017"
    folder.mkdir(exist_ok=True)
    (folder / _TWITTER_TEXTS[split]).write_text("".join(map(_tagged, posts)), encoding="utf-8")
    shown = {post.image: boxes[post.image] for post in posts if post.image in boxes}
    write_crop_dictionary(
        folder / f"twitter2017_{split}_dict.pth", {image: list(crops) for image, crops in shown.items()}
    )
    _write_boxes(twitter_folders(root, split), shown)


def write_mnre(root: Path, split: str, posts: list[Post], boxes: Boxes) -> None:
    """Write the rows of a split, links to the images of Twitter-2017, the list of crops and their boxes.

    Args: see `write_twitter`.
    """
    folder = root / "txt"
    folder.mkdir(exist_ok=True)
    rows = [(post, row) for post in posts for row in _rows(post)]
    (folder / f"ours_{split}.txt").write_text("".join(f"{row!r}\n" for _, row in rows), encoding="utf-8")
    shown = {post.image: boxes[post.image] for post, _ in rows if post.image in boxes}
    crops = {number: list(shown[post.image]) for number, (post, _) in enumerate(rows) if post.image in shown}
    write_crop_dictionary(folder / _MNRE_CROP_LISTS[split], crops)
    folders = mnre_folders(root, split)
    _link_images(twitter_folders(root, split), folders, shown)
    _write_boxes(folders, shown)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _tagged(post: Post) -> str:
    """Format a post as in Twitter-2017: its id, a line per token with its BIO tag, an empty line."""
    tags = ["O"] * len(post.tokens)
    for start, end, entity_type in post.entities:
        tags[start:end] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (end - start - 1)]
    lines = [f"{token}\t{tag}\n" for token, tag in zip(post.tokens, tags, strict=True)]
    return f"IMGID:{post.identity}\n{''.join(lines)}\n"


def _rows(post: Post) -> list[dict[str, Any]]:
    """Format a post as in MNRE: one row per pair."""
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
    """Create a hard link, or a copy if the file system has no hard links; an existing file is replaced."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
