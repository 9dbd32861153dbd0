"""Twitter-2015 and Twitter-2017: posts with entity tags and their images, ready for batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from mmib.datamodules.base import Post, PostDataModule
from mmib.datamodules.crops import Crops, image_name
from mmib.datamodules.examples import WHOLE_IMAGE, EntityExample, Picture, collate_entities, fit_words
from mmib.datamodules.files import inside
from mmib.datamodules.store import StoredExamples, TextStore
from mmib.datamodules.twitter_files import (
    LAYOUT,
    YEARS,
    Census,
    TaggedPost,
    count_mentions,
    crop_files,
    image_folder,
    read_posts,
    repair,
    text_file,
    typed_crop_folder,
    typed_crops,
)
from mmib.schema import NO_IMAGE, NO_WORD, TAG_IDS, TAGS, ConfigError, MNERBatch


class TwitterDataModule(PostDataModule):
    """Twitter-2015 or Twitter-2017, or any corpus in their format.

    Words beyond `max_length` keep their gold tags and count as missed; how many there are is reported.

    Args:
        root: folder of the data set.
        year: 2015 or 2017; names the files.
        kwargs: see `PostDataModule`.

    Raises:
        ConfigError: another year.
    """

    def __init__(self, root: str, year: int = 2017, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if year not in YEARS:
            raise ConfigError(f"there is no Twitter-{year}: the years are {YEARS[0]} and {YEARS[1]}")
        self.year = year
        self.layout = LAYOUT.format(year=year)

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return f"twitter{self.year}"

    def text_file(self, split: str) -> Path:
        """See `PostDataModule.text_file`."""
        return text_file(self.root, self.year, split)

    def read_split(self, split: str) -> Sequence[EntityExample]:
        """Posts, tokenised, with the pictures that can be read.

        Raises:
            DataError: a missing or malformed file, or too many missing images.
        """
        census = Census()
        store = self.tokenised(split, self._tokenise(split, census), lambda: str(census))
        rank_zero_info(f"{split}: {store.note}")
        images = self.locate_images(split, self._posts(split, store))
        return StoredExamples(EntityExample, store, images)

    def collate(self, items: list[tuple[EntityExample, Tensor | None]]) -> MNERBatch:
        """See `PostDataModule.collate`."""
        return collate_entities([example for example, _ in items], self.collate_posts(items))

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Posts, entities in both readings, and SHA-256 of a split that has been read."""
        examples = self.examples[split]
        repaired, own = (
            sum(TAGS[tag].startswith("B-") for example in examples for tag in tags(example))
            for tags in (lambda example: example.tags, lambda example: example.gold)
        )
        # With the stray tags repaired, every entity of the default reading opens with a B-.
        return {**super().fingerprint(split), "entities": repaired, "entities_strict": own}

    def _tokenise(self, split: str, census: Census) -> Iterator[tuple[str, EntityExample]]:
        """The image and the text of each post, which is counted too."""
        for number, (post, words) in enumerate(self.pieces(self._read(split), lambda post: post.words)):
            repaired = repair(post.tags)
            numbers = count_mentions(repaired)
            input_ids, word_ids, positions = fit_words(words, self.tokenizer, self.max_length)
            example = EntityExample(
                row=number,
                words=post.words,
                input_ids=input_ids,
                word_ids=word_ids,
                mentions=[0 if word == NO_WORD else numbers[word] for word in word_ids],
                image_id=NO_IMAGE,
                pictures=(),
                word_positions=positions,
                gold=[TAG_IDS[tag] for tag in post.tags],
                tags=[TAG_IDS[tag] for tag in repaired],
            )
            census.add(post, repaired, unseen=len(post.words) - len(positions))
            yield post.image, example

    def _read(self, split: str) -> Iterator[TaggedPost]:
        """The posts, each of which names an image inside the folder of images."""
        for post in read_posts(self.text_file(split), self.layout):
            inside(image_folder(self.root, self.year), post.image, post.place)
            yield post

    def _posts(self, split: str, store: TextStore) -> Iterator[Post]:
        folder = image_folder(self.root, self.year)
        crops = self._crops(split, store)
        for image in store.images():
            yield Post(image, (Picture(folder / image, WHOLE_IMAGE), *crops.pictures(image, self.max_crops)))

    def _crops(self, split: str, store: TextStore) -> Crops:
        """From a crop dictionary, or else by the names of the files."""
        listed = crop_files(self.root, self.year, split)
        if listed.dictionary.is_file():
            return Crops.listed(listed, image_name)
        folder = typed_crop_folder(self.root, self.year)
        names = typed_crops(folder, set(store.images())) if folder.is_dir() else {}
        return Crops(folder, names, folder, folder / "boxes.json")
