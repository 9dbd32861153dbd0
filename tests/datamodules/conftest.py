"""Tiny encoders, and a writer of small folders in MNRE's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmib.datamodules.mnre import MNREDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder, WordTokenizer

RELATION = "/per/per/peer"
COLOURS = ("red", "lime", "blue", "gold", "navy")


@pytest.fixture(scope="session")
def text_encoder(encoder_files: Any) -> TextEncoder:
    return TextEncoder(encoder_files.text)


@pytest.fixture(scope="session")
def tokenizer(text_encoder: TextEncoder) -> WordTokenizer:
    return text_encoder.tokenizer


@pytest.fixture(scope="session")
def make_image_encoder(encoder_files: Any) -> Callable[..., ImageEncoder]:
    def make(**options: Any) -> ImageEncoder:
        return ImageEncoder(**{"name": "test_resnet", "weights": encoder_files.image, **options})

    return make


@pytest.fixture(scope="session")
def image_encoder(make_image_encoder: Callable[..., ImageEncoder]) -> ImageEncoder:
    return make_image_encoder()


class MNREFolder:
    """Writes rows, images and crops in MNRE's layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "txt").mkdir(parents=True)

    def text(self, split: str) -> Path:
        return self.root / "txt" / f"ours_{split}.txt"

    def row(self, split: str = "train", **changes: Any) -> dict[str, Any]:
        """Append a row; `head` and `tail` are spans, other arguments are keys of the row."""
        row = {
            "token": ["ada", "met", "bob"],
            "h": {"name": "ada", "pos": list(changes.pop("head", (0, 1)))},
            "t": {"name": "bob", "pos": list(changes.pop("tail", (2, 3)))},
            "img_id": "a.jpg",
            "relation": RELATION,
            **changes,
        }
        self.line(repr(row), split)
        return row

    def line(self, line: str, split: str = "train") -> None:
        """Append a line unchanged."""
        with self.text(split).open("a", encoding="utf-8", newline="") as file:
            file.write(line + "\n")

    def image(self, name: str, colour: str = "red", split: str = "train") -> Path:
        return self._picture(self.root / "img_org" / split / name, colour)

    def crop(self, name: str, colour: str = "blue", split: str = "train") -> Path:
        return self._picture(self.root / "img_vg" / split / "crops" / name, colour)

    def crops(self, by_row: Any, split: str = "train") -> Path:
        """Write the crop dictionary of a split."""
        path = self.root / "txt" / {"train": "mre_train_dict.pth", "val": "mre_dev_dict.pth"}[split]
        torch.save(by_row, path)
        return path

    def _picture(self, path: Path, colour: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(path)
        with Image.open(path) as gradient:
            Image.blend(gradient.convert("RGB"), Image.new("RGB", gradient.size, colour), 0.6).save(path)
        return path


@pytest.fixture
def mnre(tmp_path: Path) -> MNREFolder:
    return MNREFolder(tmp_path / "mnre")


@pytest.fixture
def five(mnre: MNREFolder) -> MNREFolder:
    """Five training rows with five images, the first of which has two crops, and one validation row."""
    for number, colour in enumerate(COLOURS):
        mnre.row(img_id=f"{colour}.png", token=["w"] * (number + 3))
        mnre.image(f"{colour}.png", colour)
    mnre.crop("one.png", "white")
    mnre.crop("two.png", "black")
    mnre.crops({0: ["one.png", "two.png"]})
    mnre.row("val")
    return mnre


@pytest.fixture
def load(
    mnre: MNREFolder, text_encoder: TextEncoder, image_encoder: ImageEncoder, tmp_path: Path
) -> Callable[..., MNREDataModule]:
    """Builds a data module over the folder of `mnre`; all settings can be overridden."""

    def make(**options: Any) -> MNREDataModule:
        settings: dict[str, Any] = {
            "root": str(mnre.root),
            "text_encoder": text_encoder,
            "image_encoder": image_encoder,
            "cache_dir": str(tmp_path / "cache"),
            "max_missing_images": 1.0,
            **options,
        }
        return MNREDataModule(**settings)

    return make
