"""The command `mmib crop-objects`: detect objects in the images of a data set, and save them as crops."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from mmib.base.argument_parser import CommandParser
from mmib.base.wording import counted
from mmib.crop_objects.boxes import choose
from mmib.crop_objects.detector import DEFAULT_DETECTOR, Detector, ZeroShotDetector
from mmib.crop_objects.plan import MOST_OBJECTS, TYPES, Request, Split, mnre_splits, twitter_splits
from mmib.crop_objects.store import CropStore, Settings
from mmib.datamodules.images import UnreadableImageError, read_image
from mmib.datamodules.twitter_files import YEARS
from mmib.schema import DataError

SPLITS = ("train", "val", "test")
# Seconds between saves of the record; a killed run repeats the work since the last save.
SAVE_EVERY_S = 20
# Detectors scale the short side up and limit the long side: a narrower image would be left without pixels.
LEAST_SIDE = 8
MOST_STRETCH = 20
REASONS_SHOWN = 5


def run(arguments: list[str]) -> int:
    """Create the crops of every split that has text and images."""
    options = _parser().parse_args(arguments)
    if not options.root.is_dir():
        raise DataError(f"the data folder {options.root} does not exist: name the folder with the text and the images")
    if options.task == "mnre":
        splits = mnre_splits(options.root, options.splits, options.phrases)
    else:
        splits = twitter_splits(options.root, options.year or YEARS, options.splits, options.phrases)
    objects = MOST_OBJECTS[options.task] if options.objects is None else options.objects
    settings = Settings(options.detector, options.threshold, options.phrases, objects, options.format)
    loaded: list[Detector] = []

    def detector() -> Detector:
        """Load the detector for the first image: a run with nothing left to do needs none."""
        if not loaded:
            loaded.append(ZeroShotDetector(options.detector, options.threshold, options.device))
        return loaded[0]

    with_images = [split for split in splits if _has_images(split)]
    if not with_images:
        raise DataError(f"none of the images was found: they are expected in {splits[0].images}")
    try:
        for split in with_images:
            print(cut(split, settings, detector, options.batch_size))  # noqa: T201
    except OSError as error:
        raise DataError(f"the crops cannot be written: {error}; free disk space and repeat the command") from error
    return 0


def cut(split: Split, settings: Settings, detector: Callable[[], Detector], batch_size: int) -> str:
    """Detect objects of a split, and save the crops that do not exist yet.

    Args:
        split: the images, and what to search for in each.
        settings: must equal those of earlier crops.
        detector: returns the detector; only called if images are left to search.
        batch_size: number of images per batch.

    Returns:
        A summary to print.
    """
    store = CropStore(split.files, settings)
    requests = list({request.name: request for request in split.requests.values()}.values())
    pending = [request for request in requests if not store.is_finished(request)]
    done = len(requests) - len(pending)
    try:
        with tqdm(desc=split.name, total=len(requests), initial=done, unit="image", disable=not pending) as bar:
            _search(pending, store, detector, batch_size, bar)
    finally:
        if pending:
            store.save()
    store.publish(split.requests)
    return _summary(split, requests, store)


def _search(
    pending: Sequence[Request], store: CropStore, detector: Callable[[], Detector], batch_size: int, bar: tqdm[Any]
) -> None:
    saved = time.monotonic()
    for start in range(0, len(pending), batch_size):
        batch = pending[start : start + batch_size]
        readable = list(_read(batch, store))
        if readable:
            requests, images = zip(*readable, strict=True)
            found = detector().detect(images, [request.phrases for request in requests])
            for (request, image), detections in zip(readable, found, strict=True):
                store.add(request, image, choose(detections, *image.size, store.settings.objects))
        bar.update(len(batch))
        if time.monotonic() - saved > SAVE_EVERY_S:
            store.save()
            saved = time.monotonic()


def _read(requests: Sequence[Request], store: CropStore) -> Iterable[tuple[Request, Image.Image]]:
    """Yield the images that can be searched; for the others, record the reason."""
    for request in requests:
        if not request.file.is_file():
            store.fail(request, "missing")
            continue
        try:
            image = read_image(request.file)
        except UnreadableImageError as error:
            store.fail(request, f"unreadable: {error}")
            continue
        if min(image.size) < LEAST_SIDE or max(image.size) > MOST_STRETCH * min(image.size):
            store.fail(request, f"too narrow: {image.width} x {image.height} pixels")
        else:
            yield request, image


def _has_images(split: Split) -> bool:
    found = any(request.file.is_file() for request in split.requests.values())
    if not found:
        print(f"{split.name}: left out, none of its images is in {split.images}")  # noqa: T201
    return found


def _summary(split: Split, requests: Sequence[Request], store: CropStore) -> str:
    results = [store.results[request.name] for request in requests]
    failures = {result["image"]: result["failure"] for result in results if result["failure"]}
    searched = [result for result in results if not result["failure"]]
    crops, empty = sum(len(result["objects"]) for result in searched), sum(not r["objects"] for r in searched)
    images = len({result["image"] for result in searched})
    text = (
        f"{split.name}: {counted(crops, 'crops')} of {counted(images, 'images')} in {split.files.crops}, listed in "
        f"{split.files.dictionary}; nothing found {empty:,} times"
    )
    if failures:
        shown = [f"{image} ({reason})" for image, reason in list(failures.items())[:REASONS_SHOWN]]
        more = f" and {len(failures) - len(shown):,} more" if len(failures) > len(shown) else ""
        text += f"; {counted(len(failures), 'images')} could not be searched: {', '.join(shown)}{more}"
    return text


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib crop-objects",
        description="Detect the objects that posts mention in their images, and store the crops where the data "
        "modules read them. If interrupted, the same command resumes.",
    )
    parser.add_argument("root", type=Path, metavar="DATA_ROOT", help="folder of the data set, as for training")
    parser.add_argument("--task", required=True, choices=sorted(MOST_OBJECTS), help="task of the data set")
    parser.add_argument(
        "--year", type=int, choices=YEARS, nargs="+", help="years of the Twitter sets (default: all that are found)"
    )
    parser.add_argument(
        "--splits", choices=SPLITS, nargs="+", default=SPLITS, help="splits to process (default: all that are found)"
    )
    parser.add_argument(
        "--phrases",
        choices=("nouns", "types"),
        default="nouns",
        help=f"search for the noun phrases of the text, or always for {', '.join(TYPES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        default=DEFAULT_DETECTOR,
        help="Grounding DINO or OWL model: hub name or local folder (default: %(default)s)",
    )
    parser.add_argument("--threshold", type=_share, help="minimum score of an object (default: the detector's)")
    defaults = ", ".join(f"{task}: {most}" for task, most in MOST_OBJECTS.items())
    parser.add_argument("--objects", type=_count, help=f"maximum number of crops per image ({defaults})")
    parser.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="image format: png is lossless, jpg is smaller (default: png)",
    )
    parser.add_argument("--batch-size", type=_count, default=4, help="images per batch (default: 4)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if available)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to below 1")
    return share
