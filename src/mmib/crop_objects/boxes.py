"""Choose which detected boxes become crops, and round them to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mmib.crop_objects.detector import Detection
from mmib.schema import Box

# Boxes with a larger overlap (IoU) show the same object, detected for two phrases.
SAME_OBJECT = 0.7


class Pixels(NamedTuple):
    """A rectangle of an image: columns [left, right), rows [upper, lower)."""

    left: int
    upper: int
    right: int
    lower: int

    @property
    def area(self) -> int:
        """Number of pixels; 0 for an empty rectangle."""
        return max(0, self.right - self.left) * max(0, self.lower - self.upper)

    def overlap(self, other: Pixels) -> float:
        """Intersection over union."""
        common = Pixels(
            max(self.left, other.left),
            max(self.upper, other.upper),
            min(self.right, other.right),
            min(self.lower, other.lower),
        ).area
        return common / (self.area + other.area - common)

    def relative(self, width: int, height: int) -> Box:
        """Convert to x0 y0 x1 y1 in 0..1 of an image."""
        return self.left / width, self.upper / height, self.right / width, self.lower / height


def choose(found: Sequence[Detection], width: int, height: int, most: int) -> list[tuple[Pixels, Detection]]:
    """Choose the `most` best objects of an image, best first, without duplicates and boxes empty after clipping."""
    chosen: list[tuple[Pixels, Detection]] = []
    finite = (one for one in found if all(map(math.isfinite, (*one.box, one.score))))
    for detection in sorted(finite, key=lambda one: (-one.score, one.box)):
        x0, y0, x1, y1 = detection.box
        pixels = Pixels(_within(x0, width), _within(y0, height), _within(x1, width), _within(y1, height))
        if pixels.area and all(pixels.overlap(other) <= SAME_OBJECT for other, _ in chosen):
            chosen.append((pixels, detection))
        if len(chosen) == most:
            break
    return chosen


def _within(coordinate: float, size: int) -> int:
    return min(max(round(coordinate), 0), size)
