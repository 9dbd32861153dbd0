"""Randomly initialised extractors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor


@pytest.fixture
def extractor(make_trained: Callable[..., TrainedModel]) -> Extractor:
    """An extractor of both tasks, whose image encoders differ."""
    return Extractor([make_trained("mner"), make_trained("mre", max_crops=3)])


@pytest.fixture
def relations_alone(make_trained: Callable[..., TrainedModel]) -> Extractor:
    return Extractor([make_trained("mre")])


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((48, 40)).convert("RGB")
