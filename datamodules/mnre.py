"""MNRE: relation extraction rows with their images, ready for batching."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from datamodules.base import Post, PostDataModule
from datamodules.crops import Crops, row_number
from datamodules.examples import WHOLE_IMAGE, Picture, RelationExample, collate_relations
from datamodules.files import inside
from datamodules.markers import MarkedPost, mark_entities
from datamodules.mnre_files import (
    LAYOUT,
    RelationRow,
    check_relation_ids,
    crop_files,
    image_folder,
    read_rows,
    text_file,
)
from mmib.schema import RELATION_IDS, DataError, MREBatch

FAILURES_SHOWN = 3


class MNREDataModule(PostDataModule):
    """The MNRE data set, or any corpus in its format. The arguments are those of `PostDataModule`."""

    layout = LAYOUT

    @property
    def corpus(self) -> str:
        """See `PostDataModule.corpus`."""
        return "mnre"

    def text_file(self, split: str) -> Path:
        """See `PostDataModule.text_file`."""
        return text_file(self.root, split)

    def read_split(self, split: str) -> list[RelationExample]:
        """Rows with markers set, tokenised, with the pictures that can be read.

        Raises:
            DataError: a missing or malformed file, an entity pair that does not fit, too many missing images.
        """
        check_relation_ids(self.root / "ours_rel2id.json")
        path = self.text_file(split)
        rows = read_rows(path)
        posts = self._posts(split, rows)
        marked = self._mark(rows)
        images = self.locate_images(split, posts)
        return [
            RelationExample(
                row=number,
                words=row.tokens,
                input_ids=post.input_ids,
                word_ids=post.word_ids,
                mentions=post.mentions,
                image_id=image_id,
                pictures=pictures,
                head=row.head,
                tail=row.tail,
                head_index=post.head_index,
                tail_index=post.tail_index,
                relation=RELATION_IDS[row.relation],
            )
            for number, (row, post, (image_id, pictures)) in enumerate(zip(rows, marked, images, strict=True))
        ]

    def collate(self, items: list[tuple[RelationExample, Tensor | None]]) -> MREBatch:
        """See `PostDataModule.collate`."""
        return collate_relations([example for example, _ in items], self.collate_posts(items))

    def _mark(self, rows: list[RelationRow]) -> list[MarkedPost]:
        marked, failures = [], []
        pieces = self.tokenizer.pieces([row.tokens for row in rows])
        for row, words in zip(rows, pieces, strict=True):
            try:
                marked.append(mark_entities(words, row.head, row.tail, self.tokenizer, self.max_length))
            except DataError as error:
                failures.append(f"{row.place}: {error}")
        if failures:
            shown = "\n".join(failures[:FAILURES_SHOWN])
            raise DataError(f"{len(failures)} rows do not fit into max_length {self.max_length}:\n{shown}")
        return marked

    def _posts(self, split: str, rows: list[RelationRow]) -> list[Post]:
        folder = image_folder(self.root, split)
        crops = Crops.listed(crop_files(self.root, split), row_number)
        posts = []
        for number, row in enumerate(rows):
            whole = Picture(inside(folder, row.image, row.place), WHOLE_IMAGE)
            posts.append(Post(row.image, (whole, *crops.pictures(number, self.max_crops))))
        return posts
