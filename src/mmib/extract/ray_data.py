"""Extraction with Ray Data, for clusters without a batch system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmib.extract.extractor import Extractor, Post
from mmib.extract.readers import Wanted
from mmib.extract.rows import Row
from mmib.extract.stream import extracted, line_of
from mmib.schema import ConfigError

COLUMNS = ("image", "crops", "entities")


class ExtractPosts:
    """A callable class for `ray.data.Dataset.map_batches`: each actor loads the models once and processes many batches.

    A batch has the column `text` and optionally `id`, `image` (the path or the bytes of a file), `crops` and
    `entities`, as the rows of `mmib extract`. The result has one more column, `extracted`: for each row the
    extraction, or `error` with the reason, as a line of JSON.

    Args:
        sources: the models, see `Extractor.from_pretrained`.
        options: options of `Extractor.from_pretrained`, such as `device`, `runtime` and `precision`.
        evidence: report the evidence for the results.
        samples: number of samples of the latents, two or more, that estimate the spread of confidence.

    Raises:
        ConfigError: Ray Data is not installed.
        InputError: the number of samples is negative or one.
        MMIBError: see `Extractor.from_pretrained`.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        options: Mapping[str, Any] | None = None,
        evidence: bool = False,
        samples: int = 0,
    ) -> None:
        if find_spec("ray") is None:
            raise ConfigError("extraction in Ray Data needs the package ray: pip install 'mmib[ray]'")
        self.wanted = Wanted(evidence, samples).checked()
        self.extractor = Extractor.from_pretrained(*sources, **(options or {}))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the columns of a batch and the new column `extracted`.

        Raises:
            ConfigError: the batch has no column `text`.
        """
        if "text" not in batch:
            raise ConfigError(f"the batch has no column 'text': it has {', '.join(batch) or 'none'}")
        rows = [self._row(batch, number) for number in range(len(batch["text"]))]
        lines = [line_of(record).rstrip("\n") for record in extracted(self.extractor, rows, *self.wanted)]
        return {**batch, "extracted": np.array(lines, dtype=object)}

    @staticmethod
    def _row(batch: dict[str, np.ndarray], number: int) -> Row:
        values = {name: _plain(column[number]) for name, column in batch.items() if name in ("id", *COLUMNS)}
        name = values.pop("id", None)
        post = Post(_plain(batch["text"][number]), **values)
        return Row(number + 1, number + 1 if name is None else name, post)


def _plain(value: Any) -> Any:
    """Convert a column value to plain Python: nested arrays to lists, and NaN, which marks missing values, to None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
