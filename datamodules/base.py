"""The data module: loads the posts of a reader, with their images, as batches of a task."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from mmib.base.lightning_internals import overfits
from mmib.base.seeding import run_seed
from mmib.base.wording import counted
from mmib.datamodules.batching import GlobalBatchSampler
from mmib.datamodules.cache import ImageFeatureCache, TextFeatureCache, text_digest
from mmib.datamodules.files import Digests, image_root, is_there, open_data
from mmib.datamodules.image_names import searched_folder
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.datamodules.images import unreadable_images
from mmib.datamodules.labels import LabelSource, label_set, unknown_label
from mmib.datamodules.limits import rows_looked_at
from mmib.datamodules.loading import PostCollator, PostDataset, PostLoader, region_boxes
from mmib.datamodules.located import LocatedImages, LocatedPictures, NamedImages
from mmib.datamodules.readers import Reader
from mmib.datamodules.side_texts import SideTexts
from mmib.datamodules.store import StoredExamples, TextStore, code_of
from mmib.datamodules.subset import TrainingSubset
from mmib.datamodules.tables import HashedTable
from mmib.datamodules.text_regions import CachedTexts, TextCollator, TokenizedTexts
from mmib.encoders.pixels_and_texts import encoders_of
from mmib.encoders.regions import ImageSource, RegionEncoder
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.labels import LabelSet, shown
from mmib.records import Item
from mmib.schema import (
    NO_IMAGE,
    NOT_CACHED,
    NOT_LOOKED_FOR,
    WHOLE_IMAGE,
    Box,
    Census,
    ConfigError,
    DataError,
    Example,
    Picture,
    Post,
    PostBatch,
    Prepared,
    task_named,
)

ImageUse = Literal["own", "none", "shuffled"]

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
# How to make the data and the model use the same image source.
REMEDIES = {
    "pixels": "set data.image_source to the latter, or choose an image encoder for pixels",
    "text": "add --config model/side_text.yaml to read side texts",
    "both": "add --config model/pixels_and_texts.yaml to read pixels and side texts",
}
NAMES_SHOWN = 5
# Posts tokenised at a time: enough for a fast tokenizer, few enough to need little memory.
POSTS_TOKENISED = 1024
# Posts whose images are looked for at a time: all posts of the usual data sets, few of a million.
POSTS_LOCATED = 16_384


FAILURES_SHOWN = 3


class Pictured(NamedTuple):
    """The name of a row's image, and the files that may belong to it, whole image first."""

    image: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ImageReport:
    """Counts of the images of a split that were found.

    Attributes:
        images: distinct images that the rows name.
        images_found: those that exist and can be read, or have a side text.
        rows: rows of the split whose images were looked for.
        rows_with_image: rows with an image, crop or side text.
        rows_left_out: rows beyond the limits of the trainer.
        unreadable: names of the files that exist but cannot be read, with the reason.
        rows_by_source: rows with pixels and with side texts, if both are image sources.
    """

    images: int
    images_found: int
    rows: int
    rows_with_image: int
    rows_left_out: int
    unreadable: dict[str, str]
    rows_by_source: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not (self.images or self.rows_with_image or self.rows_left_out):
            return "no images, as no row names one"
        parts = [
            f"{self.images_found:,} of {counted(self.images, 'images')}, "
            f"{self.rows_with_image:,} of {counted(self.rows, 'rows')}"
        ]
        if self.rows_by_source:
            parts[0] += f" ({', '.join(f'{rows:,} with {source}' for source, rows in self.rows_by_source.items())})"
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} unreadable: {shown(list(self.unreadable), NAMES_SHOWN)}")
        if self.rows_left_out:
            parts.append(counted(self.rows_left_out, "rows left out by the trainer's limits"))
        return ", ".join(parts)


class PostDataModule(pl.LightningDataModule):
    """Loads the posts that a reader yields, with their images, as batches of a task.

    A subclass for a data set only has to name its task and build its reader.

    Args:
        reader: reads the files of the data set.
        text_encoder: provides the tokenizer. On the command line, it is the model's text encoder.
        image_encoder: computes the cached features, or provides the image transform. On the command line, it is the
            model's image encoder.
        labels: the label set, in any form that `mmib.datamodules.labels.label_set` accepts: a known name, a file, or
            the labels. On the command line, the model uses it too.
        task: name of the task; a subclass for one task sets it as a class attribute instead.
        batch_size: rows of a training batch over all ranks, so that a run is the same on any number of ranks.
        eval_batch_size: rows of a validation, test or prediction batch, over all ranks.
        max_tokens: maximum number of word pieces of a batch over all ranks, padding included. Batches of short posts
            then have more rows than batches of long posts, and the batch sizes are the maximum numbers of rows.
        max_length: maximum number of word pieces of a row, special tokens and markers included.
        max_crops: maximum number of object crops of a row, in addition to the whole image.
        images: `own` uses the image of each post; `none` uses no images; `shuffled` gives all posts of an image
            another image of the split.
        max_missing_images: largest share of distinct images that may be missing or unreadable.
        augment: random crops and flips of training images. Needs pixels, so no features are cached.
        cache_dir: folder for results that are computed once: image features and tokenised posts.
        workers: number of processes that load batches; useful only if pixels are decoded. Their start method is set
            by `multiprocessing.set_start_method`, or else is the default of the Python version.
        image_source: `pixels` for image files; `text` for side texts such as captions, which become the regions of
            an image; `both` for the two together, where a post may lack either. The model's image encoder has to
            match: a `SideTextEncoder` (`--config model/side_text.yaml`) or a `PixelsAndTextsEncoder`
            (`--config model/pixels_and_texts.yaml`).
        side_text: JSON lines file of side texts (docs/how-to/data.md); required if they are an image source.
        side_text_models: models whose captions are used, if the file has captions of several models; None uses all.
        relevance: JSON lines file of how well each image fits its post (docs/how-to/data.md); it is added to
            predictions, and scores are split by it.
        train_share: share of the training rows to train on, sampled without replacement, stratified by label.
        train_rows: number of these rows, instead of the share.
        subset_seed: seed of the choice of these rows, independent of the seed of the run.

    Raises:
        ConfigError: invalid or contradictory settings, or labels that are no label set.
        TaskError: there is no such task.
    """

    task_name: ClassVar[str] = ""

    def __init__(
        self,
        reader: Reader,
        text_encoder: TextEncoder,
        image_encoder: RegionEncoder,
        labels: LabelSource,
        task: str = "",
        batch_size: int = 16,
        eval_batch_size: int = 64,
        max_tokens: int | None = None,
        max_length: int = 128,
        max_crops: int = 4,
        images: ImageUse = "own",
        max_missing_images: float = 0.05,
        augment: bool = False,
        cache_dir: str = ".cache/features",
        workers: int = 0,
        image_source: ImageSource = "pixels",
        side_text: str | None = None,
        side_text_models: list[str] | None = None,
        relevance: str | None = None,
        train_share: float | None = None,
        train_rows: int | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, rows in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if rows < 1:
                raise ConfigError(f"{name} is {rows}: a batch has at least one row")
        if max_tokens is not None and max_tokens < max_length:
            raise ConfigError(
                f"max_tokens is {max_tokens}, and a single post may have max_length {max_length} word pieces: "
                "raise max_tokens or lower max_length"
            )
        if images not in get_args(ImageUse):
            raise ConfigError(f"images {images!r} is unknown: choose {shown(get_args(ImageUse))}")
        self.reader = reader
        self.root = reader.root
        self.task = task_named(task or self.task_name)
        self.labels: LabelSet = label_set(labels)
        self.tokenizer = text_encoder.tokenizer
        self.levitated = text_encoder.levitated
        self.image_encoder = image_encoder
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_tokens = max_tokens
        self.max_length = checked_length(max_length, self.tokenizer.max_length)
        self.pixel_encoder, self.side_text_encoder = encoders_of(image_encoder)
        reads_crops = self.pixel_encoder is not None and self.pixel_encoder.regions == "crops"
        self.max_crops = max_crops if reads_crops else 0
        self.images = images
        self.max_missing_images = max_missing_images
        self.augment = augment
        self.workers = workers
        self.subset = TrainingSubset(train_share, train_rows, subset_seed)
        self.cache_dir = Path(cache_dir)
        self.side_text = _checked_side_text(image_source, side_text, side_text_models, image_encoder, augment)
        self.side_text_models = side_text_models
        self.relevance = None if relevance is None else Path(relevance)
        self.cache: ImageFeatureCache | None = None
        if self.pixel_encoder is not None and self.pixel_encoder.frozen and not augment:
            self.cache = ImageFeatureCache(self.cache_dir, self.pixel_encoder)
        self.text_regions: TextFeatureCache | TokenizedTexts | None = None
        if self.side_text_encoder is not None:
            self.text_regions = _text_regions(self.side_text_encoder, self.cache_dir)
        self.digests = self.cache.digests if self.cache is not None else Digests()
        self.examples: dict[str, Sequence[Any]] = {}
        self.image_reports: dict[str, ImageReport] = {}
        # Set when a subset of the training split is read.
        self._subset_facts: dict[str, Any] = {}
        self._subset_rows: np.ndarray | None = None

    @property
    def corpus(self) -> str:
        """Name of the data set, for tables and files."""
        return self.reader.corpus

    def has_split(self, split: str) -> bool:
        """Whether the text of a split exists; releases and development copies often lack the test split."""
        return self.reader.has_split(split)

    @cached_property
    def side_texts(self) -> SideTexts | None:
        """The side texts of images, if they are an image source; read once.

        Raises:
            DataError: see `SideTexts`.
        """
        if self.side_text is None:
            return None
        texts = SideTexts(self.side_text, self.side_text_models)
        rank_zero_info(f"images: {texts.note()}")
        return texts

    @cached_property
    def image_relevance(self) -> ImageRelevance | None:
        """The relevance of images to their posts, if a file is given; read once.

        Raises:
            DataError: see `ImageRelevance`.
        """
        return None if self.relevance is None else ImageRelevance(self.relevance)

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Rows and SHA-256 of a split that has been read, to identify a data set's version, and the task's counts."""
        examples = self.examples[split]
        found = {"rows": len(examples), "sha256": self._text_digest(split), **self.task.counts(examples, self.labels)}
        subset = {"subset": self._subset_facts} if split == "train" and self._subset_facts else {}
        return {**self.reader.options(), **found, **subset}

    def labels_of_rows(self, split: str, rows: Iterable[int]) -> np.ndarray:
        """Return an (N, C) array: whether each of N rows of a split that has been read has each of C labels."""
        found = [self.task.example_labels(self.examples[split][row], self.labels) for row in rows]
        held = [[name in labels for name in self.labels.names] for labels in found]
        return np.array(held, dtype=bool).reshape(-1, len(self.labels))

    def describe(self, split: str, row: int) -> dict[str, Any]:
        """Describe in readable form what the model was shown for a row of a split that has been read.

        Returns:
            `words`; its `spans`; `image`, the path of the whole image below `image_root`, or None; `boxes`, x0 y0 x1 y1
            in 0..1 of each region, zeros if unknown; and, if a relevance file is given, the `relevance` of the post's
            own image, or None if the file lacks it.
        """
        example, root = self.examples[split][row], image_root(self.root, self.reader.image_folder(split))
        whole = next((picture.file for picture in example.pictures if picture.box == WHOLE_IMAGE), None)
        return {
            "words": example.words,
            **example.spans(),
            "image": None if whole is None else Path(os.path.relpath(whole, root)).as_posix(),
            "boxes": region_boxes(example, self._cells()),
            **({} if self.image_relevance is None else {"relevance": self.image_relevance.of(self._image(split, row))}),
        }

    def items(self, split: str) -> Iterator[Item]:
        """Yield the annotations of the rows of a split that has been read."""
        for example in self.examples[split]:
            yield from self.task.example_items(example, self.labels)

    def check_files(self, stage: str) -> None:
        """Check that the files that a stage needs exist, before any work is done for it.

        Raises:
            DataError: the folder, the text of a split, or a file about images is missing or cannot be read.
        """
        self._check_root()
        _ = self.side_texts, self.image_relevance
        for split in SPLITS[stage]:
            self.reader.check(split)

    def check_ranks(self, ranks: int) -> None:
        """Refuse a number of ranks that cannot share a training batch.

        Raises:
            ConfigError: the number does not divide the batch size.
        """
        if self.batch_size % ranks and self.max_tokens is None:
            raise ConfigError(
                f"batch_size is {self.batch_size} rows over all ranks, and {ranks} ranks cannot share them evenly: "
                f"choose a multiple of {ranks}"
            )

    def setup(self, stage: str) -> None:
        """Read the splits of a stage, and compute the features of their images that are not cached.

        If the trainer limits its batches, only the images of the rows that it will use are looked for and encoded.
        """
        self._check_root()
        if stage == "fit" and self.trainer:
            self.check_ranks(self.trainer.world_size)
        for split in SPLITS[stage]:
            if not self._is_read(split):
                self.examples[split] = self.read_split(split)
                rank_zero_info(f"{split}: found {self.image_reports[split]}")
        if stage == "fit" and not self.has_split("test"):
            rank_zero_info("test: there is no test split, so only validation can be scored")

    def _is_read(self, split: str) -> bool:
        """Whether a split is read as far as the trainer will use it; an earlier trainer may have had lower limits."""
        examples = self.examples.get(split)
        if not isinstance(examples, StoredExamples):
            return examples is not None
        return bool(examples.looked_for()[self._looked_at(split, examples.sizes(1))].all())

    def train_dataloader(self) -> DataLoader[Any]:
        """Length-bucketed batches, reshuffled each epoch."""
        return self._loader("train")

    def val_dataloader(self, rows: Sequence[int] | None = None) -> DataLoader[Any]:
        """Batches in order of length, of the given rows or of all."""
        return self._loader("val", rows)

    def val_sample(self, most: int) -> list[int]:
        """Up to `most` validation rows with an image, spread evenly over the file."""
        pictured = np.flatnonzero(self._sizes(self.examples["val"])[:, 1]).tolist()
        count = min(most, len(pictured))
        return [pictured[number * len(pictured) // count] for number in range(count)]

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches in order of length."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of the test rows, in order of length."""
        return self._loader("test")

    def read_split(self, split: str) -> StoredExamples[Any]:
        """Return the tokenised rows of a split, with the images and crops that can be read.

        Raises:
            DataError: a missing or malformed file, a label that the label set lacks, a row that does not fit into
                `max_length`, too many missing images, or a cache that cannot be written.
        """
        store = self._tokenised(split)
        rank_zero_info(f"{split}: {store.note}")
        if self.side_texts is not None and self.images != "none":
            self.side_texts.check_common([name for name in store.images() if name], f"{self.root}, split {split}")
        if self.image_relevance is not None and split != "train":
            self.image_relevance.check_common(list(filter(None, store.images())), f"{self.root}, split {split}")
        files = self.reader.pictures(split, store.images(), self.max_crops)
        pictured: Iterable[Pictured] = itertools.starmap(Pictured, zip(store.images(), files, strict=True))
        if split == "train" and not self.subset.is_whole:
            self._subset_rows = rows = self._choose_rows(store)
            # After the files of all rows have been found: crops may be keyed by a row's number in the file.
            pictured = itertools.compress(pictured, np.isin(np.arange(len(store)), rows))
            store = store.chosen(rows)
        looked_at = self._looked_at(split, np.stack([store.pieces, np.zeros_like(store.pieces)], axis=1))
        images = self.locate_images(
            split, (post if needed else None for post, needed in zip(pictured, looked_at, strict=True))
        )
        return StoredExamples(self.task.example, store, images)

    def row_in_split(self, split: str, row: int) -> int:
        """The number of a row in its whole split, of which the training rows may be a subset."""
        return row if split != "train" or self._subset_rows is None else int(self._subset_rows[row])

    def _choose_rows(self, store: TextStore) -> np.ndarray:
        """Choose the rows to train on, and report and record their number and the labels that they lack.

        Raises:
            ConfigError: more rows are requested than there are.
        """
        no_images = LocatedImages(LocatedPictures([(NO_IMAGE, ())]), np.zeros(len(store), dtype=np.int32))
        examples: Sequence[Example] = StoredExamples(self.task.example, store, no_images)
        labels = [self.task.example_labels(example, self.labels) for example in examples]
        rows = self.subset.choose(labels)
        lost = {name for row in labels for name in row} - {name for row in rows for name in labels[row]}
        without = [name for name in self.labels.names if name in lost]
        self._subset_facts = {"of": len(store), "seed": self.subset.seed, "without": without}
        message = f"train: {len(rows):,} of {len(store):,} rows are trained on (subset_seed {self.subset.seed})"
        rank_zero_info(message + (f"; no row has the labels {shown(without)}" if without else ""))
        return rows

    def _looked_at(self, split: str, sizes: np.ndarray) -> np.ndarray:
        """Return an (N,) mask of the rows that the trainer will use.

        Args:
            split: its name.
            sizes: (N, 2) word pieces and regions of each row; the regions have no effect.
        """
        # Shuffling of images depends on all images of the split that are found.
        if self.trainer is None or self.images == "shuffled":
            return np.ones(len(sizes), dtype=bool)
        return rows_looked_at(self.trainer, split, self._sampler(split, sizes))

    def _tokenised(self, split: str) -> TextStore:
        """The rows of a split without their images, from the cache if they have been read before."""
        # Everything that determines what is stored, the label set included: label ids are indices in it.
        known = [
            code_of(type(self.reader), type(self.task)),
            self._text_digest(split),
            self.reader.options(),
            self.labels.to_dict(),
            self.tokenizer.fingerprint(),
            self.max_length,
            self.levitated,
        ]
        name = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
        census = self.task.census()
        path = self.cache_dir / "posts" / f"{self.corpus}-{self.task.name}-{split}-{name}"

        def note() -> str:
            return ", ".join(filter(None, [str(census), self.reader.note(split)]))

        return TextStore.opened(path, self._rows(split, census), note)

    def _rows(self, split: str, census: Census) -> Iterator[tuple[str, Example]]:
        """Yield the image and example of each post, and add them to the census; few are in memory at a time."""
        prepared = Prepared(self.tokenizer, self.max_length, self.labels, self.levitated)
        posts = self.reader.posts(split)
        failures: list[str] = []
        number = 0
        while batch := list(itertools.islice(posts, POSTS_TOKENISED)):
            for post, pieces in zip(batch, self.tokenizer.pieces([post.words for post in batch]), strict=True):
                self._check_labels(post)
                try:
                    example = self.task.encode(number, post, pieces, prepared)
                except DataError as error:
                    failures.append(f"{post.place}: {error}")
                    continue
                number += 1
                census.add(post, example)
                yield post.image, example
        if failures:
            first = "\n".join(failures[:FAILURES_SHOWN])
            raise DataError(f"max_length {self.max_length} is too short for {counted(len(failures), 'rows')}:\n{first}")

    def _check_labels(self, post: Post) -> None:
        for name in self.task.labels_of(post):
            if name not in self.labels.names:
                raise unknown_label(post.place_of(name), name, self.labels)

    def collate(self, items: list[tuple[Any, Tensor | None]]) -> PostBatch:
        """Return the batch of examples, given with the pixels of their images and crops."""
        return self._collator().batch(items)

    def locate_images(self, split: str, posts: Iterable[Pictured | None]) -> LocatedImages:
        """Return the image id and the readable images and crops of each row, and count and report missing images.

        Rows whose images have the same content share an id, regardless of file names.

        Args:
            split: its name.
            posts: one per row; None if no image is to be looked for.

        Raises:
            DataError: more images are missing than `max_missing_images` allows.
        """
        pictures, rows = LocatedPictures(), array("i")
        named, contents, unreadable = NamedImages(), HashedTable(), dict[str, str]()
        images: list[str] = []
        left_out = 0
        rest = iter(posts)
        while batch := list(itertools.islice(rest, POSTS_LOCATED)):
            looked_for = [post for post in batch if post is not None]
            left_out += len(batch) - len(looked_for)
            found = {} if self.images == "none" else self._found(split, looked_for, unreadable)
            numbers: dict[Pictured | None, int] = {}
            for post in dict.fromkeys(batch):
                numbers[post] = len(pictures)
                if post is None:
                    pictures.append(NOT_LOOKED_FOR, ())
                    continue
                content, files = found.get(post, (None, []))
                # Ids are by content: copies of an image under other names are the same image.
                image_id = NO_IMAGE if content is None else contents.setdefault(content, len(contents))
                pictures.append(image_id, files)
                if post.image:
                    # Not by its crops alone: side texts have the box of the whole image too.
                    named.add(post.image, found=any(picture.box == WHOLE_IMAGE for picture in files))
                images += [post.image] if self.images == "shuffled" else []
            rows.extend(numbers[post] for post in batch)
        located = LocatedImages(pictures, np.array(rows, dtype=np.int32))
        missing, pictured = named.missing(), int((located.counts() > 0).sum())
        report = ImageReport(
            images=len(named),
            images_found=len(named) - len(missing),
            rows=len(rows) - left_out,
            rows_with_image=pictured,
            rows_left_out=left_out,
            unreadable=unreadable,
            rows_by_source=self._rows_by_source(located),
        )
        self.image_reports[split] = report
        if self.images != "none":
            self._check_missing(split, report, missing)
        if self.images == "shuffled":
            return LocatedImages(pictures, _donors(images, pictures.counts() > 0, rows)[rows])
        return located

    def _rows_by_source(self, located: LocatedImages) -> dict[str, int]:
        if self.pixel_encoder is None or self.side_text_encoder is None:
            return {}
        texts = located.text_counts()
        return {"pixels": int((located.counts() > texts).sum()), "side texts": int((texts > 0).sum())}

    def _found(
        self, split: str, posts: Sequence[Pictured], unreadable: dict[str, str]
    ) -> dict[Pictured, tuple[str, list[Picture]]]:
        """Content and pictures of the posts whose image source exists; adds unreadable files to {name: reason}."""
        found = {} if self.pixel_encoder is None else self._found_images(posts, unreadable)
        if self.side_texts is not None and self.text_regions is not None:
            texts = _found_texts(posts, self.side_texts, self.text_regions, self.reader.image_folder(split))
            for post, (content, pictures) in texts.items():
                shown_by, images = found.get(post, (content, []))
                found[post] = shown_by, images + pictures
        return found

    def _found_images(
        self, posts: Sequence[Pictured], unreadable: dict[str, str]
    ) -> dict[Pictured, tuple[str, list[Picture]]]:
        """Content, images and crops of the posts whose images exist; adds unreadable files to {name: reason}."""
        indices = self._cache_indices(posts, unreadable)
        found = {}
        for post in posts:
            files = [replace(p, cache_index=indices[p.file]) for p in post.pictures if p.file in indices]
            if files:
                found[post] = (self.digests[files[0].file], files)
        return found

    def _cache_indices(self, posts: Sequence[Pictured], unreadable: dict[str, str]) -> dict[Path, int]:
        """{file: feature cache index} of the readable images and crops of posts; adds others to {name: reason}."""
        files = {picture.file for post in posts for picture in post.pictures}
        there = sorted(file for file in files if is_there(file))
        reasons = self.unreadable(there)
        unreadable |= {file.name: reason for file, reason in reasons.items()}
        readable = (file for file in there if file not in reasons)
        return {file: NOT_CACHED if self.cache is None else self.cache.index(file) for file in readable}

    def _sizes(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the numbers of word pieces and regions of each row, (N, 2)."""
        cells = len(self._cells())
        if isinstance(examples, StoredExamples):
            return examples.sizes(cells)
        regions = [sum(1 if picture.is_text else cells for picture in example.pictures) for example in examples]
        pieces = [len(example.input_ids) for example in examples]
        return np.array([pieces, regions], dtype=np.int32).T

    def _cells(self) -> list[Box]:
        """The box of each region of an image or crop, relative to it."""
        return [] if self.pixel_encoder is None else self.pixel_encoder.region_boxes()

    def _image(self, split: str, row: int) -> str:
        """Name of the image that a row's post names, even if the model is shown another; empty without one."""
        examples = self.examples[split]
        return examples.image_name(row) if isinstance(examples, StoredExamples) else ""

    def _text_digest(self, split: str) -> str:
        with open_data(self.reader.text_file(split), self.reader.layout) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _check_root(self) -> None:
        if not self.root.is_dir():
            started = "" if self.root.is_absolute() else f" in {Path.cwd()}, where mmib was started"
            raise DataError(f"the data folder {self.root} does not exist{started}; {self.reader.layout}")

    def _loader(self, split: str, rows: Sequence[int] | None = None) -> DataLoader[Any]:
        training = split == "train"
        transform = None
        if self.cache is None and self.pixel_encoder is not None:
            augmented = training and self.augment
            transform = self.pixel_encoder.training_transform if augmented else self.pixel_encoder.transform
        examples = self.examples[split] if rows is None else [self.examples[split][row] for row in rows]
        return PostLoader(
            PostDataset(examples, transform, run_seed()),
            batch_sampler=self._sampler(split, self._sizes(examples)),
            collate_fn=self._collator(),
            consumed=self._consumed if training else lambda: 0,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _sampler(self, split: str, sizes: np.ndarray) -> GlobalBatchSampler:
        training = split == "train"
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return GlobalBatchSampler(
            sizes,
            self.batch_size if training else self.eval_batch_size,
            shuffle=training,
            seed=run_seed(),
            epoch=self._epoch,
            ranks=ranks,
            rank=rank,
            accumulate=lambda: self.trainer.accumulate_grad_batches if training and self.trainer else 1,
            max_tokens=self.max_tokens,
        )

    def _epoch(self) -> int:
        """The epoch that determines the batches: always the first if the trainer overfits a few batches."""
        return 0 if self.trainer is None or overfits(self.trainer) else self.trainer.current_epoch

    def _consumed(self) -> int:
        """Number of batches of the current epoch that have been trained on."""
        trainer: Any = self.trainer
        return trainer.fit_loop.epoch_loop.batch_progress.current.processed if trainer else 0

    def _collator(self) -> PostCollator:
        return PostCollator(
            task=self.task,
            labels=self.labels,
            pad_id=self.tokenizer.pad_id,
            cells=self._cells(),
            width=0 if self.pixel_encoder is None else self.pixel_encoder.dim,
            features=None if self.cache is None else self.cache.mapped,
            texts=self._text_collator(),
        )

    def _text_collator(self) -> TextCollator | None:
        """The collator of side texts; None if they are not an image source."""
        if isinstance(self.text_regions, TextFeatureCache):
            return CachedTexts(self.text_regions.mapped, self.text_regions.encoder.dim)
        return self.text_regions

    def unreadable(self, files: list[Path]) -> dict[Path, str]:
        """Return {file: reason} of the files that cannot be decoded; compute the features of the others if cached."""
        if self.cache is not None:
            return self.cache.build(files)
        return unreadable_images(files)

    def _check_missing(self, split: str, report: ImageReport, missing: list[str]) -> None:
        share = len(missing) / report.images if report.images else 0.0
        folder = searched_folder(self.reader.image_folder(split), missing)
        if share <= self.max_missing_images:
            if missing and len(missing) == report.images and self.side_text is None:
                rank_zero_info(f"{split}: no image was found in {folder}")
            return
        if self.side_text is not None:
            lack = "has no text" if self.pixel_encoder is None else "has no text, and the data has no readable file,"
            raise DataError(
                f"{self.side_text} {lack} for {len(missing):,} of {report.images:,} images of {self.root}, split "
                f"{split} ({share:.0%}, {shown(missing, NAMES_SHOWN)}), and max_missing_images allows "
                f"{self.max_missing_images:.0%}. Add their texts, or continue without them with "
                "--data.max_missing_images 1.0"
            )
        raise DataError(
            f"{self.root}, split {split}: {len(missing):,} of {report.images:,} images are missing or unreadable "
            f"({share:.0%}, {shown(missing, NAMES_SHOWN)}), and max_missing_images allows "
            f"{self.max_missing_images:.0%}. "
            f"Put the images into {folder}, or continue without them with --data.max_missing_images 1.0"
        )


def checked_length(wanted: int, possible: int | None) -> int:
    """Return the maximum number of word pieces of a row, if the text encoder supports it.

    Raises:
        ConfigError: the text encoder does not support it.
    """
    if possible is not None and wanted > possible:
        raise ConfigError(f"max_length is {wanted}: the text encoder takes {possible} word pieces at most")
    return wanted


def _checked_side_text(
    source: str, file: str | None, models: list[str] | None, encoder: RegionEncoder, augment: bool
) -> Path | None:
    """Return the file of side texts; None if pixels are the only image source.

    Raises:
        ConfigError: contradictory settings.
    """
    if source not in get_args(ImageSource):
        raise ConfigError(f"image_source {source!r} is unknown: choose {shown(get_args(ImageSource))}")
    if source != encoder.source:
        raise ConfigError(
            f"image_source is {source}, and the model's image encoder, {type(encoder).__name__}, is for "
            f"{encoder.source}: {REMEDIES[source]}"
        )
    if source == "pixels":
        if file is not None or models is not None:
            raise ConfigError(f"side_text is given and image_source is pixels: {REMEDIES['text']}")
        return None
    if file is None:
        raise ConfigError(
            f"image_source is {source}, and no file holds the texts: name it with --data.side_text captions.jsonl"
        )
    if augment and source == "text":
        raise ConfigError("augment changes pixels, and image_source is text: leave one of them out")
    return Path(file)


def _text_regions(encoder: SideTextEncoder, cache_dir: Path) -> TextFeatureCache | TokenizedTexts:
    """Cached features of texts, or, for an encoder that is trained, their word pieces."""
    return TextFeatureCache(cache_dir, encoder) if encoder.frozen else TokenizedTexts(encoder)


def _found_texts(
    posts: Iterable[Pictured], side_texts: SideTexts, regions: TextFeatureCache | TokenizedTexts, folder: Path
) -> dict[Pictured, tuple[str, list[Picture]]]:
    """Content and pictures of the posts whose image has texts: each region of a text is one `Picture`.

    Args:
        posts: the posts, with the names of their images.
        side_texts: the texts of the images.
        regions: the texts are added to it.
        folder: folder of the images, which need not exist.
    """
    texts = {post: side_texts.of(post.image) for post in posts if post.image}
    regions.build(itertools.chain.from_iterable(texts.values()))
    found = {}
    for post, of_image in texts.items():
        if of_image:
            file = next((p.file for p in post.pictures if p.box == WHOLE_IMAGE), folder / post.image)
            indices = itertools.chain.from_iterable(map(regions.indices, of_image))
            pictures = [Picture(file, WHOLE_IMAGE, index, is_text=True) for index in indices]
            found[post] = (text_digest("\n".join(of_image)), pictures)
    return found


def _donors(images: Sequence[str], pictured: np.ndarray, rows: Iterable[int]) -> np.ndarray:
    """Return, for each post, the post whose pictures it gets; posts of one image all get the same other image.

    A missing image stays missing, so the share of rows with an image does not change. The result is the same in every
    run.

    Args:
        images: name of each post's image.
        pictured: (N,) whether each post has pictures.
        rows: index of the post of each row of the split.
    """
    by_image = {images[number]: number for number in rows if pictured[number]}
    order = sorted(by_image)
    random.Random(0).shuffle(order)
    donor = dict(zip(order, order[1:] + order[:1], strict=True))
    posts = enumerate(zip(images, pictured, strict=True))
    return np.array(
        [by_image[donor[image]] if has_pictures else number for number, (image, has_pictures) in posts], dtype=np.int32
    )
