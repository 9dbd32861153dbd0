"""Scores of how well images fit their posts, from JSON lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shortened

from mmib.datamodules.image_lines import ByImage, image_lines
from mmib.schema import DataError

LAYOUT = 'one image a line: {"image": "1.jpg", "relevance": 0.25} (docs/how-to/data.md)'


class ImageRelevance:
    """Relevance scores of images; an image with a higher score fits its post better. Only their order matters.

    Args:
        file: JSON lines, each `{"image": name, "relevance": number}`.

    Raises:
        DataError: the file cannot be read or holds no image, a line is malformed, or an image has two different scores.
    """

    def __init__(self, file: Path) -> None:
        scores: dict[str, float] = {}
        for place, image, content in image_lines(file, LAYOUT):
            score = content.get("relevance")
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise DataError(f"{place}: the relevance is {shortened(score)}, no number; expected {LAYOUT}")
            if scores.setdefault(image, float(score)) != score:
                raise DataError(
                    f"{place}: {image} has the relevance {score:g} here and {scores[image]:g} before; keep one of them"
                )
        if not scores:
            raise DataError(f"{file} holds no relevance of any image: expected {LAYOUT}")
        self._scores = ByImage(file, scores)

    def of(self, image: str) -> float | None:
        """The score of an image, by its name with or without the ending; None if it has none."""
        return self._scores.get(image)

    def check_common(self, images: Sequence[str], where: str) -> None:
        """Check that the scores belong to this data set; see `ByImage.check_common`."""
        self._scores.check_common(images, where, "relevance")
