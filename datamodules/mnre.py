"""MNRE: relation extraction rows with their images, ready for batching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from mmib.datamodules.base import Post, PostDataModule
from mmib.datamodules.crops import Crops, row_number
from mmib.datamodules.examples import WHOLE_IMAGE, Picture, RelationExample, collate_relations
from mmib.datamodules.files import inside
from mmib.datamodules.markers import mark_entities
from mmib.datamodules.mnre_files import (
    LAYOUT,
    RelationRow,
    check_relation_ids,
    crop_files,
    image_folder,
    read_rows,
    text_file,
)
from mmib.datamodules.store import StoredExamples
from mmib.schema import NO_IMAGE, RELATION_IDS, DataError, MREBatch

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

    def read_split(self, split: str) -> Sequence[RelationExample]:
        """Rows with markers set, tokenised, with the pictures that can be read.

        Raises:
            DataError: a missing or malformed file, an entity pair that does not fit, too many missing images.
        """
        check_relation_ids(self.root / "ours_rel2id.json")
        store = self.tokenised(split, self._tokenise(split))
        images = self.locate_images(split, self._posts(split, store.images()))
        return StoredExamples(RelationExample, store, images)

    def collate(self, items: list[tuple[RelationExample, Tensor | None]]) -> MREBatch:
        """See `PostDataModule.collate`."""
        return collate_relations([example for example, _ in items], self.collate_posts(items))

    def _tokenise(self, split: str) -> Iterator[tuple[str, RelationExample]]:
        """The image and the text of each row."""
        failures: list[str] = []
        failed = 0
        for number, (row, words) in enumerate(self.pieces(self._rows(split), lambda row: row.tokens)):
            try:
                marked = mark_entities(words, row.head, row.tail, self.tokenizer, self.max_length)
            except DataError as error:
                failed += 1
                failures = [*failures, f"{row.place}: {error}"][:FAILURES_SHOWN]
                continue
            example = RelationExample(
                row=number,
                words=row.tokens,
                input_ids=marked.input_ids,
                word_ids=marked.word_ids,
                mentions=marked.mentions,
                image_id=NO_IMAGE,
                pictures=(),
                head=row.head,
                tail=row.tail,
                head_index=marked.head_index,
                tail_index=marked.tail_index,
                relation=RELATION_IDS[row.relation],
            )
            yield row.image, example
        if failed:
            shown = "\n".join(failures)
            raise DataError(f"{failed} rows do not fit into max_length {self.max_length}:\n{shown}")

    def _rows(self, split: str) -> Iterator[RelationRow]:
        """The rows, each of which names an image inside the folder of images."""
        for row in read_rows(self.text_file(split)):
            inside(image_folder(self.root, split), row.image, row.place)
            yield row

    def _posts(self, split: str, images: Iterable[str]) -> Iterator[Post]:
        folder = image_folder(self.root, split)
        crops = Crops.listed(crop_files(self.root, split), row_number)
        for number, image in enumerate(images):
            yield Post(image, (Picture(folder / image, WHOLE_IMAGE), *crops.pictures(number, self.max_crops)))
