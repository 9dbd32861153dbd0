"""Collation of the regions of side texts: cached features, or word pieces that the model encodes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmib.datamodules.cache import ROW_BITS, MappedFeatures
from mmib.datamodules.tables import HashedTable
from mmib.encoders.regions import lay_out
from mmib.encoders.side_text import SideTextEncoder, padded
from mmib.schema import SideTextBatch

TEXTS_TOKENISED = 1024


class TextCollator(Protocol):
    """Collates the side texts of a batch; it can be sent to another process."""

    def __call__(self, rows: Sequence[Sequence[int]], mask: Tensor) -> SideTextBatch:
        """Collate the side texts of rows.

        Args:
            rows: index of each side-text region of each row, in order.
            mask: (B, R) True for these regions.
        """


class CachedTexts:
    """Collates cached features.

    Args:
        features: the cached features.
        width: their width V.
    """

    def __init__(self, features: MappedFeatures, width: int) -> None:
        self.features = features
        self.width = width

    def __call__(self, rows: Sequence[Sequence[int]], mask: Tensor) -> SideTextBatch:
        """See `TextCollator`."""
        found = [self.features.at(index) for row in rows for index in row]
        features = np.concatenate([np.zeros((0, self.width), dtype=np.float16), *found])
        return SideTextBatch(mask=mask, features=lay_out(torch.from_numpy(features).float(), mask))


class TokenizedTexts:
    """Collates word pieces, for a text encoder that is trained with the model.

    An index holds the number of a text and, in the lower bits, the number of a region in it.

    Args:
        encoder: encoder of the side texts.
    """

    def __init__(self, encoder: SideTextEncoder) -> None:
        self._encoder = encoder
        self._pad_id = encoder.text_encoder.tokenizer.pad_id
        self._numbers = HashedTable()
        self._regions = array("i")
        self._ids = array("i")
        self._ends = array("q", [0])

    def __getstate__(self) -> dict[str, Any]:
        """State for another process, which calls no `build`."""
        return {name: value for name, value in vars(self).items() if name not in ("_encoder", "_numbers")}

    def build(self, texts: Iterable[str]) -> None:
        """Tokenise the texts that have not been added yet."""
        new = [text for text in dict.fromkeys(texts) if self._numbers.get(text) is None]
        for start in range(0, len(new), TEXTS_TOKENISED):
            batch = new[start : start + TEXTS_TOKENISED]
            for text, ids in zip(batch, self._encoder.input_ids(batch), strict=True):
                self._numbers.setdefault(text, len(self._regions))
                self._regions.append(self._encoder.region_count(ids))
                self._ids.extend(ids)
                self._ends.append(len(self._ids))

    def indices(self, text: str) -> list[int]:
        """Index of each region of a text that was passed to `build`."""
        number = self._numbers.get(text)
        if number is None:
            raise KeyError(text)
        return [number << ROW_BITS | region for region in range(self._regions[number])]

    def __call__(self, rows: Sequence[Sequence[int]], mask: Tensor) -> SideTextBatch:
        """See `TextCollator`."""
        numbers = [number for row in rows for number in dict.fromkeys(index >> ROW_BITS for index in row)]
        texts = [self._ids[self._ends[number] : self._ends[number + 1]] for number in numbers]
        ids, text_mask = padded(texts, self._pad_id)
        return SideTextBatch(mask=mask, input_ids=ids, text_mask=text_mask)
