"""If a trainer is limited to a number of batches, only their images are encoded and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from mmib.datamodules.cache import ImageFeatureCache
from mmib.datamodules.mnre import MNREDataModule
from mmib.schema import NOT_LOOKED_FOR, DataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:.*LeafSpec", "ignore:.*does not have many workers"
)
ROWS = 12


class Sums(pl.LightningModule):
    """Records the rows and the feature sum of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, list[int], float]] = []

    def _see(self, split: str, batch: Any) -> None:
        self.seen.append((split, batch.rows.tolist(), float(batch.features.sum())))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self._see("train", batch)
        return self.weight.sum()

    def validation_step(self, batch: Any, index: int) -> None:
        self._see("val", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def twelve(mnre: Any) -> Any:
    """A training and a validation split of twelve rows with one image each."""
    for number in range(ROWS):
        for split in ("train", "val"):
            mnre.row(split, img_id=f"{split}{number}.png", token=["w"] * (number + 3))
            mnre.image(f"{split}{number}.png", f"rgb({20 * number},{100 if split == 'val' else 0},0)", split)
    return mnre


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the encoded images, in order."""
    names: list[str] = []
    compute = ImageFeatureCache._compute

    def noted(cache: ImageFeatureCache, files: dict[str, Path]) -> dict[str, str]:
        names.extend(path.stem for path in files.values())
        return compute(cache, files)

    monkeypatch.setattr(ImageFeatureCache, "_compute", noted)
    return names


def fit(data: MNREDataModule, tmp_path: Path, **options: Any) -> list[tuple[str, list[int], float]]:
    model = Sums()
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"max_epochs": 2, "num_sanity_val_steps": 0} | options,
    )
    trainer.fit(model, datamodule=data)
    return model.seen


@pytest.mark.parametrize(
    ("limits", "train_batches", "val_batches"),
    [
        ({"limit_train_batches": 2, "limit_val_batches": 1}, 2, 1),
        ({"limit_train_batches": 0.5, "limit_val_batches": 0, "max_epochs": 1}, 3, 0),
        ({"limit_train_batches": 1, "limit_val_batches": 1, "accumulate_grad_batches": 2}, 1, 1),
        ({"overfit_batches": 2}, 2, 2),
        ({"fast_dev_run": 2}, 2, 2),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_only_images_of_used_batches_are_encoded(
    twelve: Any,
    load: Callable[..., MNREDataModule],
    tmp_path: Path,
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any],
    train_batches: int,
    val_batches: int,
) -> None:
    options = {"batch_size": 2, "eval_batch_size": 2}
    data = load(**options)
    seen = fit(data, tmp_path, **limits)
    epochs = 1 if "fast_dev_run" in limits else limits.get("max_epochs", 2)
    assert [split for split, _, _ in seen].count("train") == epochs * train_batches
    assert [split for split, _, _ in seen].count("val") == epochs * val_batches
    looked_at = {f"{split}{row}" for split, rows, _ in seen for row in rows}
    # The other batches of an incomplete optimiser step are loaded too: they affect its weights.
    step = limits.get("accumulate_grad_batches", 1)
    assert looked_at <= set(encoded)
    assert len(encoded) <= len(looked_at) * step < 2 * ROWS
    left_out = ROWS - min(2 * val_batches, ROWS)
    assert str(data.image_reports["val"]).endswith(f"{left_out} rows left out by the trainer's limits")

    # The same without limits: every image is encoded.
    monkeypatch.setattr("mmib.datamodules.base.rows_looked_at", lambda trainer, split, sampler: np.ones(ROWS, bool))
    assert fit(load(**options, cache_dir=str(tmp_path / "whole")), tmp_path, **limits) == seen


def test_overfit_batches_are_the_same_in_every_epoch(
    twelve: Any, load: Callable[..., MNREDataModule], tmp_path: Path
) -> None:
    seen = fit(load(batch_size=2), tmp_path, overfit_batches=2, max_epochs=3)
    rows = [rows for split, rows, _ in seen if split == "train"]
    assert rows[:2] == rows[2:4] == rows[4:]


def test_a_later_run_encodes_the_remaining_images(
    twelve: Any, load: Callable[..., MNREDataModule], tmp_path: Path, encoded: list[str]
) -> None:
    """With the same data module, as in a notebook, or with a new one and the same cache."""
    data = load(batch_size=2, eval_batch_size=2)
    fit(data, tmp_path, fast_dev_run=True)
    short = list(encoded)
    assert len(short) == 4
    whole = fit(data, tmp_path)
    assert sorted(encoded) == sorted(f"{split}{row}" for split in ("train", "val") for row in range(ROWS))
    assert "left out" not in str(data.image_reports["train"])
    assert fit(load(batch_size=2, eval_batch_size=2), tmp_path) == whole
    assert fit(load(batch_size=2, eval_batch_size=2, cache_dir=str(tmp_path / "other")), tmp_path) == whole


def test_rows_beyond_the_limits_are_not_treated_as_rows_without_an_image(
    twelve: Any, load: Callable[..., MNREDataModule], tmp_path: Path
) -> None:
    data = load(batch_size=2)
    fit(data, tmp_path, fast_dev_run=True)
    assert sum(example.image_id == NOT_LOOKED_FOR for example in data.examples["train"]) == ROWS - 2
    with pytest.raises(DataError, match=r"row \d+ is beyond the batches that the trainer was limited to"):
        list(data.train_dataloader())
    assert data.val_sample(100) == sorted(data.val_sample(100))
    assert len(data.val_sample(100)) == data.image_reports["val"].rows_with_image
