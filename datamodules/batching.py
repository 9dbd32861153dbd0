"""Sampling of batches, and their distribution over ranks."""

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

# Rows are sorted by length within pools of this many batches: little padding, but batches still differ by epoch.
POOL_BATCHES = 50
# With a budget of word pieces, lengths are rounded up to multiples of this, so that rows of similar length mix.
LENGTH_STEP = 4


class RowSize(NamedTuple):
    """Numbers of word pieces and image regions of a row."""

    pieces: int
    regions: int


@dataclass(frozen=True)
class Share:
    """The part of a global batch that one rank processes.

    Attributes:
        rows: row numbers.
        padding: number of padding rows at the end, which make the shares of all ranks equally long.
        size: maximum size of a row of the global batch, to which every rank pads.
        window: weight of the global batch in its optimiser step.
        epoch: the epoch it belongs to.
    """

    rows: list[int]
    padding: int
    size: RowSize
    window: Window
    epoch: int


class GlobalBatchSampler(Sampler[Share]):
    """Samples batches of rows of similar length, in an order set by seed and epoch, and splits them over the ranks.

    The sequence of global batches does not depend on the number of ranks. Each rank gets a contiguous part of every
    batch.

    Args:
        sizes: size of each row; or an array (N, 2).
        batch_size: rows of a global batch; the last one may be smaller.
        shuffle: reshuffle each epoch; False keeps batches and rows in order of length.
        seed: seed of the shuffling.
        epoch: returns the current epoch.
        ranks: number of processes that share a batch.
        rank: number of this process.
        accumulate: returns the number of batches of an optimiser step.
        max_tokens: maximum number of word pieces of a global batch, padding included. A batch then has as many rows as
            fit, up to `batch_size`. A longer row forms a batch by itself.

    Attributes:
        start: batches of the next epoch to skip, because they were consumed before the run was resumed.
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
        """Number of batches within the budget; Lightning reads it once for all epochs."""
        return len(self.global_batches(0))

    def __iter__(self) -> Iterator[Share]:
        epoch = self.epoch()
        batches = self.global_batches(epoch)
        windows = self._windows(batches)
        start, self.start = self.start, 0
        for batch, window in itertools.islice(zip(batches, windows, strict=True), start, None):
            yield self._share(batch, window, epoch)

    def global_batches(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of an epoch, over all ranks; they do not depend on the numbers of regions."""
        rows = list(range(len(self.sizes)))
        if not self.shuffle:
            return self._cut(rows)
        rng = random.Random(f"{self.seed}/{epoch}")
        rng.shuffle(rows)
        # With a budget, the number of batches depends on the lengths in a pool: a single pool makes it the same in all
        # epochs.
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
            # This row is the longest so far: all others of its batch are padded to it.
            if not batches or len(batches[-1]) >= min(self.batch_size, self.max_tokens // length):
                batches.append([])
            batches[-1].append(row)
        return batches

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(N,) lengths that rows are ordered by."""
        pieces = self.sizes[:, 0]
        return pieces if self.max_tokens is None or not self.shuffle else -(-pieces // LENGTH_STEP) * LENGTH_STEP

    def _windows(self, batches: list[list[int]]) -> list[Window]:
        """Weight of each batch within its optimiser step."""
        steps = self.accumulate()
        if steps == 1:
            return [Window()] * len(batches)
        counts = [self._counts(batch) for batch in batches]
        windows = []
        for start in range(0, len(counts), steps):
            step = counts[start : start + steps]
            # Lightning divides by `steps` even if an epoch ends before a step is full.
            means = [sum(column) / steps for column in zip(*step, strict=True)]
            for batch in step:
                windows.append(Window(*(n / mean if mean else 0.0 for n, mean in zip(batch, means, strict=True))))
        return windows

    def _counts(self, batch: list[int]) -> tuple[int, int, int, int]:
        sizes = self.sizes[batch]
        pieces, regions = sizes.sum(axis=0).tolist()
        return len(batch), pieces, regions, int((sizes[:, 1] > 0).sum())

    def _share(self, batch: list[int], window: Window, epoch: int) -> Share:
        size = RowSize(*self.sizes[batch].max(axis=0).tolist())
        length = math.ceil(len(batch) / self.ranks)
        rows = batch[self.rank * length : (self.rank + 1) * length]
        padding = length - len(rows)
        return Share(rows + batch[:1] * padding, padding, size, window, epoch)
