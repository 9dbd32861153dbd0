"""Data sets for benchmarks: real posts if available, else generated ones, with images as in published code.

Images are generated: whole images of 600 x 450 pixels, object crops of half that, JPEG. Each row has its own images.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmib.base.files import write_text
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.crops import write_crop_dictionary
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.readers import Reader
from mmib.datamodules.twitter import TwitterDataModule
from mmib.datamodules.twitter_files import IMAGE_LINE, TwitterReader

DATA_ROOT = Path("../shared/data")
WHOLE_SIZE = (600, 450)
CROP_SIZE = (300, 225)
# Images are noise at a fifteenth of the resolution, enlarged: their files are as large as those of photographs.
GRAIN = 15
SPLIT = "train"


@dataclass(frozen=True)
class PostSet:
    """A data set as published code reads it.

    Attributes:
        task: task of the data set.
        year: year of a Twitter set.
        crops: object crops per row, besides the whole image.
        max_length: word pieces to which every row is padded.
    """

    task: str
    year: int
    crops: int
    max_length: int

    @property
    def regions(self) -> int:
        """Images per row."""
        return 1 + self.crops


SETS = {
    "mnre": PostSet("mre", 0, crops=3, max_length=80),
    "twitter2017": PostSet("mner", 2017, crops=4, max_length=128),
    "twitter2015": PostSet("mner", 2015, crops=4, max_length=128),
}


def write_set(folder: Path, name: str, rows: int, data_root: Path, pictured: int | None = None) -> str:
    """Write a training split with this many rows, in the layout of the set.

    Args:
        folder: becomes the root of the data module.
        name: a key of `SETS`.
        rows: number of rows.
        data_root: folder of the real sets, by these names; posts of the demo corpus replace a missing set.
        pictured: number of rows with their own images, which later rows reuse; None for all.

    Returns:
        The source of the posts, for display.
    """
    source, found = read_posts_of(name, data_root)
    # Shuffled once; small sources are repeated.
    random.Random(0).shuffle(found)
    chosen = list(itertools.islice(itertools.cycle(found), rows))
    write = _write_mnre if SETS[name].task == "mre" else _write_twitter
    write(reader_of(folder, name), chosen, SETS[name].crops, pictured or rows)
    return source


def reader_of(root: Path, name: str) -> Any:
    """Create the reader of a set below a root."""
    return MNREReader(root) if SETS[name].task == "mre" else TwitterReader(root, SETS[name].year)


def read_posts_of(name: str, data_root: Path) -> tuple[str, list[Any]]:
    """Return the source of the posts of a set, for display, and the posts; arguments as in `write_set`."""
    real: Reader = reader_of(data_root / name if SETS[name].task == "mre" else data_root, name)
    if real.has_split(SPLIT):
        return f"real posts of {name}", list(real.posts(SPLIT))
    with tempfile.TemporaryDirectory() as temporary:
        demo = Path(temporary, "demo")
        write_demo_corpus(demo, DemoSettings(size="tiny"))
        posts = MNREReader(demo) if SETS[name].task == "mre" else TwitterReader(demo, 2017)
        return "posts of the demo corpus", list(posts.posts(SPLIT))


def open_set(folder: Path, name: str, module: Any, cache: Path | None, **options: Any) -> PostDataModule:
    """Create the data module of a set written by `write_set`, without reading the set.

    Args:
        folder: root of the set.
        name: a key of `SETS`.
        module: model of the task, whose encoders the data module uses.
        cache: folder of the feature cache; None uses pixels, and keeps nothing.
        options: options of the data module.
    """
    posts = SETS[name]
    known = {
        "max_length": posts.max_length,
        "max_crops": posts.crops,
        "cache_dir": str(cache or tempfile.mkdtemp(dir=folder)),
        **options,
    }
    encoders = {"text_encoder": module.text_encoder, "image_encoder": module.image_encoder}
    data: PostDataModule
    if posts.task == "mre":
        data = MNREDataModule(str(folder), **encoders, **known)
    else:
        data = TwitterDataModule(str(folder), year=posts.year, **encoders, **known)
    if cache is None:
        data.cache = None
        # Published code does not check its images in advance.
        data.unreadable = lambda files: {}
    return data


def read_set(data: PostDataModule) -> None:
    """Read the set of a data module, and build the features that are not cached."""
    data.examples[SPLIT] = data.read_split(SPLIT)


def _write_mnre(reader: MNREReader, rows: Sequence[RelationPost], crops: int, pictured: int) -> None:
    lines, names = [], {}
    for number, row in enumerate(rows):
        image = f"{number % pictured}.jpg"
        names[number] = _crop_names(number % pictured, crops)
        _write_images(reader, image, names[number])
        entities = {key: {"name": "", "pos": list(span)} for key, span in (("h", row.head), ("t", row.tail))}
        lines.append(repr({"token": row.words, **entities, "img_id": image, "relation": row.relation}))
    _write_text(reader, "".join(f"{line}\n" for line in lines), names)


def _write_twitter(reader: TwitterReader, posts: Sequence[TaggedPost], crops: int, pictured: int) -> None:
    blocks, names = [], {}
    for number, post in enumerate(posts):
        image = f"{number % pictured}.jpg"
        names[image] = _crop_names(number % pictured, crops)
        _write_images(reader, image, names[image])
        words = (f"{word}\t{tag}\n" for word, tag in zip(post.words, post.tags, strict=True))
        blocks.append(f"{IMAGE_LINE}{number % pictured}\n{''.join(words)}\n")
    _write_text(reader, "".join(blocks), names)


def _write_text(reader: MNREReader | TwitterReader, text: str, crops: dict[Any, list[str]]) -> None:
    write_text(reader.text_file(SPLIT), text)
    write_crop_dictionary(reader.crop_files(SPLIT).dictionary, crops)


def _crop_names(number: int, crops: int) -> list[str]:
    return [f"{number}-{crop}.jpg" for crop in range(crops)]


def _write_images(reader: MNREReader | TwitterReader, image: str, crops: Sequence[str]) -> None:
    files = [(reader.image_folder(SPLIT) / image, WHOLE_SIZE)]
    files += [(reader.crop_files(SPLIT).crops / crop, CROP_SIZE) for crop in crops]
    for file, (width, height) in files:
        if file.exists():
            continue
        noise = np.random.default_rng(list(file.name.encode())).integers(0, 256, (height // GRAIN, width // GRAIN, 3))
        picture = Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=90)
