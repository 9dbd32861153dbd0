"""Which rows stand together in a batch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

# Rows are sorted by length within pools of this many batches: little padding, and batches still differ by epoch.
POOL_BATCHES = 50


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of rows of similar length, in an order that seed and epoch decide.

    Args:
        lengths: length of each row.
        batch_size: rows a batch; the last one may be smaller.
        shuffle: reshuffle each epoch; False keeps batches and rows in order of length.
        seed: of the shuffling.
        epoch: tells the current epoch.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, shuffle: bool, seed: int, epoch: Callable[[], int]
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(range(len(self.lengths)))
        if not self.shuffle:
            return iter(self._batches(sorted(rows, key=lambda row: self.lengths[row])))
        rng = random.Random(f"{self.seed}/{self.epoch()}")
        rng.shuffle(rows)
        pool = self.batch_size * POOL_BATCHES
        pools = (rows[start : start + pool] for start in range(0, len(rows), pool))
        batches = [
            batch for chosen in pools for batch in self._batches(sorted(chosen, key=lambda row: self.lengths[row]))
        ]
        rng.shuffle(batches)
        return iter(batches)

    def _batches(self, rows: list[int]) -> list[list[int]]:
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
