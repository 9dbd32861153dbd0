"""Memory of reading and loading sets of growing size, each in a new process, so that no memory is reused.

    python -m experiments.benchmarks.memory --posts 12500 50000 200000
    python -m experiments.benchmarks.memory --tasks mre --posts 1000000 --own-images

Posts of the demo corpus are repeated in the formats of MNRE and Twitter-2017: with their few images (`--posts`), or
with a tiny image for each post and a tiny image encoder (`--own-images`). For each size, the first process reads and
tokenises, the second finds the cached result, and both go through an epoch of batches. Peaks are of the resident set.
Private memory cannot be dropped when memory is scarce, while mapped files can. Linux only.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from experiments.benchmarks.measure import machine, table, to_standard_error
from experiments.benchmarks.recipe import ENCODERS
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.readers import Reader
from mmib.datamodules.twitter import TwitterDataModule
from mmib.datamodules.twitter_files import IMAGE_LINE, TwitterReader
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder

SPLIT = "train"
YEAR = 2017
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MB = 1e6
# Images of single posts: numbered after those of the demo corpus, and much smaller than photographs.
OWN_IMAGE, OWN_SIZE = 10**9, 8


def reader_of(root: Path, task: str) -> Reader:
    """Create the reader of a task's posts."""
    return MNREReader(root) if task == "mre" else TwitterReader(root, YEAR)


def write_posts(root: Path, task: str, posts: int, demo: Path, own_images: bool = False) -> None:
    """Write a data folder with so many training posts: repeated posts of the demo corpus, with its images or new ones.

    Images in an existing folder are kept: a larger set includes those of a smaller one.
    """
    if not root.is_dir():
        shutil.copytree(demo, root)
    lines = reader_of(demo, task).text_file(SPLIT).read_text(encoding="utf-8").splitlines(keepends=True)
    blocks = itertools.islice(itertools.cycle(lines if task == "mre" else _blocks(lines)), posts)
    with reader_of(root, task).text_file(SPLIT).open("w", encoding="utf-8") as file:
        file.writelines(_with_own_images(blocks, root, task) if own_images else blocks)


def _with_own_images(blocks: Iterable[str], root: Path, task: str) -> Iterator[str]:
    """Yield the posts, each with its own image, and write the images."""
    folder = reader_of(root, task).image_folder(SPLIT)
    for number, block in enumerate(blocks):
        file = folder / f"{OWN_IMAGE + number}.jpg"
        if not file.exists():
            pixels = np.random.default_rng(number).integers(0, 256, (OWN_SIZE, OWN_SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        if task == "mre":
            yield repr({**ast.literal_eval(block), "img_id": file.name}) + "\n"
        else:
            yield f"{IMAGE_LINE}{file.stem}\n{block.partition(chr(10))[2]}"


def _blocks(lines: Iterable[str]) -> list[str]:
    """Split a Twitter file into the lines of each post."""
    blocks: list[str] = []
    for line in lines:
        if line.startswith(IMAGE_LINE):
            blocks.append("")
        blocks[-1] += line
    return blocks


def memory() -> dict[str, float]:
    """Memory of this process in MB: `peak` since the last call, and `private` now."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    sizes = {line[0]: int(line[1]) * 1024 / MB for line in lines if line[-1] == "kB"}
    PEAK_RESET.write_text("5")
    return {"peak": sizes["VmHWM:"], "private": sizes["RssAnon:"]}


def measure(root: Path, task: str, batch_size: int, image_encoder: str) -> dict[str, Any]:
    """Memory of this process before and after reading, and over an epoch of batches, with their durations."""
    torch.manual_seed(0)
    encoders: dict[str, Any] = {
        "text_encoder": TextEncoder(pretrained=False),
        "image_encoder": ImageEncoder(image_encoder, pretrained=False),
    }
    options = {**encoders, "batch_size": batch_size, "cache_dir": str(root / "cache"), "max_missing_images": 1.0}
    kind: Any = MNREDataModule if task == "mre" else TwitterDataModule
    data: PostDataModule = kind(str(root), **options)
    found: dict[str, Any] = {"before": memory()}
    started = time.perf_counter()
    data.examples[SPLIT] = data.read_split(SPLIT)
    found["read"] = {**memory(), "seconds": time.perf_counter() - started}
    started = time.perf_counter()
    for _ in data.train_dataloader():
        pass
    found["epoch"] = {**memory(), "seconds": time.perf_counter() - started}
    return found


def in_a_process(root: Path, task: str, batch_size: int, image_encoder: str) -> dict[str, Any]:
    """Run `measure` in a new process."""
    options = ["--child", str(root), "--tasks", task, "--batch-size", str(batch_size)]
    options += ["--image-encoder", image_encoder]
    command = [sys.executable, "-m", "experiments.benchmarks.memory", *options]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def measure_sizes(task: str, sizes: list[int], batch_size: int, own_images: bool) -> str:
    """Measure a task, and format its table."""
    rows = []
    encoder = ENCODERS["tiny"].image if own_images else "pip:efficientnet-lite0"
    last: tuple[int, dict[str, Any]] | None = None
    with tempfile.TemporaryDirectory() as folder:
        demo, root = Path(folder, "demo"), Path(folder, "set")
        write_demo_corpus(demo, DemoSettings(size="tiny"))
        for posts in sizes:
            write_posts(root, task, posts, demo, own_images)
            to_standard_error(f"{task}: {posts:,} posts")
            first, again = (in_a_process(root, task, batch_size, encoder) for _ in range(2))
            growth = ["", ""]
            if last is not None:
                more = posts - last[0]
                growth = [
                    f"{MB * (again[stage][kind] - last[1][stage][kind]) / more:.0f}"
                    for stage, kind in (("epoch", "peak"), ("epoch", "private"))
                ]
            last = posts, again
            read, warm, epoch = first["read"], again["read"], again["epoch"]
            rows.append(
                [
                    f"{posts:,}",
                    f"{reader_of(root, task).text_file(SPLIT).stat().st_size / MB:.0f}",
                    f"{again['before']['private']:.0f}",
                    f"{read['peak']:.0f} in {read['seconds']:.1f} s",
                    f"{warm['peak']:.0f} in {warm['seconds']:.1f} s",
                    f"{epoch['peak']:.0f} in {epoch['seconds']:.1f} s",
                    f"{epoch['private']:.0f}",
                    *growth,
                ]
            )
    head = [
        "posts",
        "MB of text",
        "MB private before",
        "peak MB of reading, first time",
        "peak MB of reading, again",
        "peak MB of an epoch",
        "MB private after it",
        "bytes a further post, of the peak",
        "of the private",
    ]
    images = "each post with an image of its own" if own_images else "the demo corpus's images"
    return f"{task}, {images}\n\n{table(head, rows)}\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", nargs="*", type=int, default=[12_500, 50_000, 200_000])
    parser.add_argument("--own-images", nargs="*", type=int, default=[5_000, 20_000], help="such sets too")
    parser.add_argument("--tasks", nargs="+", choices=("mre", "mner"), default=["mre", "mner"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--image-encoder", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child is not None:
        print(json.dumps(measure(chosen.child, chosen.tasks[0], chosen.batch_size, chosen.image_encoder)))
        return
    print(f"{machine()}\n")
    for task in chosen.tasks:
        for own_images, sizes in enumerate((chosen.posts, chosen.own_images)):
            if sizes:
                print(measure_sizes(task, sizes, chosen.batch_size, bool(own_images)), flush=True)


if __name__ == "__main__":
    main()
