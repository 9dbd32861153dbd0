"""Seeded and stratified subsets of the training rows, sampled without replacement, for learning curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmib.base.seeding import seed_from
from mmib.schema import ConfigError


@dataclass(frozen=True)
class TrainingSubset:
    """The choice of the training rows to train on: all, unless a share or a number is given.

    The rows depend only on the data and on the size and seed of the subset: every model and every seed of a run trains
    on the same rows.

    Attributes:
        share: share of the rows, above 0 and at most 1.
        rows: number of rows.
        seed: seed of the choice of rows.

    Raises:
        ConfigError: an invalid share or number, or both.
    """

    share: float | None = None
    rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.share is not None and self.rows is not None:
            raise ConfigError(f"train_share is {self.share} and train_rows {self.rows}: give one of the two")
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"train_share is {self.share}: it is a share of the training rows, above 0 and at most 1")
        if self.rows is not None and self.rows < 1:
            raise ConfigError(f"train_rows is {self.rows}: at least one row is needed to train on")

    @property
    def is_whole(self) -> bool:
        """Whether all rows are used, however many there are."""
        return self.rows is None and self.share in (None, 1)

    def size(self, total: int) -> int:
        """Return the number of rows to choose from a total.

        Raises:
            ConfigError: more rows are requested than there are.
        """
        if self.rows is not None and self.rows > total:
            raise ConfigError(
                f"train_rows is {self.rows:,}, and the training split has {total:,} rows: lower it, or leave it out to "
                "train on all of them"
            )
        return self.rows or max(1, round((self.share or 1) * total))

    def choose(self, labels: Sequence[Collection[str]]) -> NDArray[np.intp]:
        """Return the numbers of the chosen rows, in ascending order.

        A row counts for the rarest of its labels. Each label gets its share of the rows, rounded by the largest
        remainder method, so that the size is exact.

        Args:
            labels: labels of each row; a row may have several or none.

        Raises:
            ConfigError: see `size`.
        """
        frequency = Counter(label for row in labels for label in row)
        strata: dict[str, list[int]] = {}
        for number, row in enumerate(labels):
            stratum = min(row, key=lambda label: (frequency[label], label), default="")
            strata.setdefault(stratum, []).append(number)
        sizes = _largest_remainder({name: len(rows) for name, rows in strata.items()}, self.size(len(labels)))
        chosen = [
            np.random.default_rng(seed_from("training subset", self.seed, name)).permutation(rows)[: sizes[name]]
            for name, rows in strata.items()
        ]
        return np.sort(np.concatenate(chosen))


def _largest_remainder(counts: dict[str, int], size: int) -> dict[str, int]:
    """Integers in proportion to counts that add up to `size`, which is at most the sum of the counts."""
    total = sum(counts.values())
    sizes = {name: size * count // total for name, count in counts.items()}
    by_remainder = sorted(counts, key=lambda name: (-(size * counts[name] % total), name))
    for name in by_remainder[: size - sum(sizes.values())]:
        sizes[name] += 1
    return sizes
