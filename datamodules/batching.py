"""Which rows stand together in a batch, and which of them each rank takes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mmib.schema import Window

# Rows are sorted by length within pools of this many batches: little padding, and batches still differ by epoch.
POOL_BATCHES = 50
# Under a budget of word pieces lengths count as multiples of this: rows of about one length change places.
LENGTH_STEP = 4


class RowSize(NamedTuple):
    """How many word pieces and image regions a row has."""

    pieces: int
    regions: int


@dataclass(frozen=True)
class Share:
    """What one rank takes of a global batch.

    Attributes:
        rows: row numbers.
        fillers: how many of the last rows only fill up, so that the shares of all ranks are equally long.
        size: largest row of the global batch, to which every rank pads.
        window: what the global batch weighs in its optimiser step.
        epoch: the epoch it belongs to.
    """

    rows: list[int]
    fillers: int
    size: RowSize
    window: Window
    epoch: int


class GlobalBatchSampler(Sampler[Share]):
    """Batches of rows of similar length, in an order that seed and epoch decide, shared out over the ranks.

    The sequence of global batches does not depend on the number of ranks. Each takes a contiguous part of every one.

    Args:
        sizes: size of each row; also as an array (N, 2).
        batch_size: rows of a global batch; the last one may be smaller.
        shuffle: reshuffle each epoch; False keeps batches and rows in order of length.
        seed: of the shuffling.
        epoch: tells the current epoch.
        ranks: how many processes share a batch.
        rank: which of them this is.
        accumulate: tells how many batches make an optimiser step.
        max_tokens: word pieces that a global batch may have, padding included. It then holds as many rows as that
            allows, and `batch_size` at most. A row that is longer has a batch of its own.

    Attributes:
        start: batches of the coming epoch to leave out, because they were consumed before a run was resumed.
    """

    def __init__(
        self,
        sizes: Sequence[RowSize] | np.ndarray,
        batch_size: int,
        shuffle: bool,
        seed: int,
        epoch: Callable[[], int] = lambda: 0,
        ranks: int = 1,
        rank: int = 0,
        accumulate: Callable[[], int] = lambda: 1,
        max_tokens: int | None = None,
    ) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int32).reshape(-1, 2)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.ranks = ranks
        self.rank = rank
        self.accumulate = accumulate
        self.max_tokens = max_tokens
        self.start = 0

    def __len__(self) -> int:
        return math.ceil(len(self.sizes) / self.batch_size) if self.max_tokens is None else self._budgeted_batches

    @cached_property
    def _budgeted_batches(self) -> int:
        """How many batches the budget makes of the rows; Lightning asks once for all epochs."""
        return len(self._global_batches(0))

    def __iter__(self) -> Iterator[Share]:
        epoch = self.epoch()
        batches = self._global_batches(epoch)
        windows = self._windows(batches)
        start, self.start = self.start, 0
        for batch, window in itertools.islice(zip(batches, windows, strict=True), start, None):
            yield self._share(batch, window, epoch)

    def _global_batches(self, epoch: int) -> list[list[int]]:
        rows = list(range(len(self.sizes)))
        if not self.shuffle:
            return self._cut(rows)
        rng = random.Random(f"{self.seed}/{epoch}")
        rng.shuffle(rows)
        # Within a budget the number of batches depends on the lengths that meet: one pool, and all epochs have as many.
        pool = self.batch_size * POOL_BATCHES if self.max_tokens is None else max(1, len(rows))
        batches = [batch for start in range(0, len(rows), pool) for batch in self._cut(rows[start : start + pool])]
        rng.shuffle(batches)
        return batches

    def _cut(self, rows: list[int]) -> list[list[int]]:
        """Batches of the rows in order of length."""
        lengths = self._lengths[rows]
        order = np.argsort(lengths, kind="stable")
        ordered = np.asarray(rows)[order].tolist()
        if self.max_tokens is None:
            return [ordered[start : start + self.batch_size] for start in range(0, len(ordered), self.batch_size)]
        batches: list[list[int]] = []
        for row, length in zip(ordered, lengths[order].tolist(), strict=True):
            # It is the longest so far: all others of its batch are padded to it.
            if not batches or len(batches[-1]) >= min(self.batch_size, self.max_tokens // length):
                batches.append([])
            batches[-1].append(row)
        return batches

    @cached_property
    def _lengths(self) -> np.ndarray:
        """What rows are ordered by, (N,)."""
        pieces = self.sizes[:, 0]
        return pieces if self.max_tokens is None or not self.shuffle else -(-pieces // LENGTH_STEP) * LENGTH_STEP

    def _windows(self, batches: list[list[int]]) -> list[Window]:
        """What each batch weighs among those of its optimiser step."""
        steps = self.accumulate()
        if steps == 1:
            return [Window()] * len(batches)
        counts = [self._counts(batch) for batch in batches]
        windows = []
        for start in range(0, len(counts), steps):
            step = counts[start : start + steps]
            # Lightning divides by `steps` also where an epoch ends before a step is full.
            means = [sum(column) / steps for column in zip(*step, strict=True)]
            for own in step:
                windows.append(Window(*(n / mean if mean else 0.0 for n, mean in zip(own, means, strict=True))))
        return windows

    def _counts(self, batch: list[int]) -> tuple[int, int, int, int]:
        sizes = self.sizes[batch]
        pieces, regions = sizes.sum(axis=0).tolist()
        return len(batch), pieces, regions, int((sizes[:, 1] > 0).sum())

    def _share(self, batch: list[int], window: Window, epoch: int) -> Share:
        size = RowSize(*self.sizes[batch].max(axis=0).tolist())
        length = math.ceil(len(batch) / self.ranks)
        rows = batch[self.rank * length : (self.rank + 1) * length]
        fillers = length - len(rows)
        return Share(rows + batch[:1] * fillers, fillers, size, window, epoch)
