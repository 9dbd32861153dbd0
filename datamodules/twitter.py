"""Twitter-2015 and Twitter-2017: posts with entity tags and their images, ready for batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from datamodules.base import Post, PostDataModule
from datamodules.crops import Crops, image_name
from datamodules.examples import WHOLE_IMAGE, EntityExample, Picture, collate_entities, fit_words
from datamodules.files import inside
from datamodules.twitter_files import (
    CROP_TYPES,
    LAYOUT,
    YEARS,
    TaggedPost,
    count_mentions,
    crop_files,
    describe,
    image_folder,
    read_posts,
    repair,
    text_file,
)
from mmib.schema import NO_WORD, TAG_IDS, TAGS, ConfigError, MNERBatch


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

    def read_split(self, split: str) -> list[EntityExample]:
        """Posts, tokenised, with the pictures that can be read.

        Raises:
            DataError: a missing or malformed file, or too many missing images.
        """
        posts = read_posts(self.text_file(split), self.layout)
        pieces = self.tokenizer.pieces([post.words for post in posts])
        images = self.locate_images(split, self._posts(split, posts))
        examples = []
        for number, (post, words, (image_id, pictures)) in enumerate(zip(posts, pieces, images, strict=True)):
            repaired = repair(post.tags)
            numbers = count_mentions(repaired)
            input_ids, word_ids, positions = fit_words(words, self.tokenizer, self.max_length)
            example = EntityExample(
                row=number,
                words=post.words,
                input_ids=input_ids,
                word_ids=word_ids,
                mentions=[0 if word == NO_WORD else numbers[word] for word in word_ids],
                image_id=image_id,
                pictures=pictures,
                word_positions=positions,
                gold=[TAG_IDS[tag] for tag in post.tags],
                tags=[TAG_IDS[tag] for tag in repaired],
            )
            examples.append(example)
        rank_zero_info(f"{split}: {describe(posts)}{_unseen(examples)}")
        return examples

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

    def _posts(self, split: str, posts: list[TaggedPost]) -> list[Post]:
        folder = image_folder(self.root, self.year)
        crops = self._crops(split, posts)
        result = []
        for post in posts:
            whole = Picture(inside(folder, post.image, post.place), WHOLE_IMAGE)
            result.append(Post(post.image, (whole, *crops.pictures(post.image, self.max_crops))))
        return result

    def _crops(self, split: str, posts: list[TaggedPost]) -> Crops:
        """From a crop dictionary, or else by the names of the files."""
        listed = crop_files(self.root, self.year, split)
        if listed.dictionary.is_file():
            return Crops.listed(listed, image_name)
        folder = self.root / f"twitter{self.year}_crop_images"
        names = {
            post.image: [
                name
                for kind in CROP_TYPES
                if (folder / (name := f"{post.identity}/crop_{kind}_{post.identity}.jpg")).is_file()
            ]
            for post in posts
        }
        return Crops(folder, names, folder, folder / "boxes.json")


def _unseen(examples: list[EntityExample]) -> str:
    beyond = [len(example.gold) - len(example.word_positions) for example in examples]
    if not any(beyond):
        return ""
    return f", {sum(beyond):,} words of {sum(map(bool, beyond)):,} posts lie beyond max_length and count as missed"
