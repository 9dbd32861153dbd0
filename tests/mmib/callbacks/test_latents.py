"""Latents stored for the report: of which posts and weights, and without side effects on training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from mmib.callbacks.latents import LatentSpace
from mmib.modules import ExtractionModule
from mmib.schema import ConfigError, PostBatch, RunError

Build = Callable[..., ExtractionModule]
MakeBatch = Callable[..., PostBatch]
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "The number of training batches",
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


class Posts(pl.LightningDataModule):
    """Prepared batches; latents are stored for rows in `samples` that are not in `others`."""

    def __init__(self, batches: list[PostBatch], samples: list[PostBatch]) -> None:
        super().__init__()
        self.batches, self.samples = batches, samples
        self.others = {2}

    def train_dataloader(self) -> Any:
        return self._loader(self.batches)

    def val_sample(self, most: int) -> list[int]:
        rows = [row for batch in self.samples for row in batch.rows.tolist() if row >= 0 and row not in self.others]
        return rows[:most]

    def labels_of_rows(self, split: str, rows: list[int]) -> np.ndarray:
        """Two labels: whether a row is odd or even."""
        assert split == "val"
        return np.array([[row % 2 == 1, row % 2 == 0] for row in rows])

    def val_dataloader(self, rows: list[int] | None = None) -> Any:
        return self._loader(self.samples if rows is None or rows else [])

    def _loader(self, batches: list[PostBatch]) -> Any:
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@pytest.fixture
def posts(make_batch: MakeBatch) -> Posts:
    samples = [make_batch(regions=(3, 1, 2, 2), seed=seed) for seed in range(2)]
    samples[0].rows, samples[1].rows = torch.tensor([7, 2, 9, -1]), torch.tensor([4, 0, -1, -1])
    return Posts([make_batch(seed=seed) for seed in range(3)], samples)


def trainer(folder: Path, callback: LatentSpace, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "num_sanity_val_steps": 0} | options,
    )


def kept(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / "latents" / f"{name}.safetensors")


def expected(module: ExtractionModule, posts: Posts) -> dict[str, Tensor]:
    """By row, with loops."""
    found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for batch in posts.samples:
        output = module.eval().backbone(batch)
        for place, row in enumerate(batch.rows.tolist()):
            if row >= 0 and row not in posts.others:
                text = output.text.mean[place, batch.text_mask[place]].mean(dim=0)
                image = output.image.mean[place, batch.region_mask[place]].mean(dim=0)
                found[row] = (text, image, batch.image_ids[place])
    rows = sorted(found)
    text, image, image_ids = (torch.stack([found[row][side] for row in rows]).detach() for side in (0, 1, 2))
    labels = torch.tensor([[row % 2 == 1, row % 2 == 0] for row in rows])
    return {"rows": torch.tensor(rows), "text": text, "image": image, "image_ids": image_ids, "labels": labels}


def test_latents_are_means_of_the_posts_before_training_and_of_the_validated_weights_after(
    make_module: Build, posts: Posts, tmp_path: Path
) -> None:
    module = make_module({"dropout": 0.3, "text": {"dropout": 0.3}})
    before = copy.deepcopy(module)
    fitted = trainer(tmp_path, LatentSpace())
    fitted.fit(module, posts)
    assert not (tmp_path / "latents" / "selected.safetensors").exists(), "validation while fitting is not the end"
    fitted.validate(module, posts, verbose=False)
    for name, weights in (("start", before), ("selected", module)):
        found, reference = kept(tmp_path, name), expected(weights, posts)
        assert found["rows"].tolist() == [0, 4, 7, 9]
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(kept(tmp_path, "start")["text"], kept(tmp_path, "selected")["text"], atol=1e-2)


def test_training_is_bit_identical_with_and_without_the_callback(
    make_module: Build, posts: Posts, tmp_path: Path
) -> None:
    weights = []
    for count in (0, 2):
        torch.manual_seed(3)
        module = make_module({"dropout": 0.3}).train()
        torch.manual_seed(4)
        trainer(tmp_path / str(count), LatentSpace(count)).fit(module, posts)
        weights.append({**module.state_dict(), "generator": torch.get_rng_state()})
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)
    assert not (tmp_path / "0" / "latents").exists()
    assert kept(tmp_path / "2", "start")["rows"].tolist() == [7, 9]


def test_modules_keep_their_train_or_eval_mode(make_module: Build, posts: Posts, tmp_path: Path) -> None:
    module = make_module({"text": {"trainable_layers": 1}}).train()
    before = {name: part.training for name, part in module.named_modules()}
    assert set(before.values()) == {True, False}

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            assert {name: part.training for name, part in pl_module.named_modules()} == before

    watched = trainer(tmp_path, LatentSpace())
    watched.callbacks.append(Watch())  # type: ignore[attr-defined]
    watched.fit(module, posts)


def test_a_resumed_run_keeps_its_initial_latents(make_module: Build, posts: Posts, tmp_path: Path) -> None:
    first = trainer(tmp_path, LatentSpace())
    first.fit(module := make_module(), posts)
    first.save_checkpoint(tmp_path / "last.ckpt")
    start = tmp_path / "latents" / "start.safetensors"
    before = start.read_bytes()
    resumed = trainer(tmp_path, LatentSpace(), max_epochs=2)
    resumed.fit(module, posts, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.global_step == 6
    assert start.read_bytes() == before
    resumed.validate(module, posts, verbose=False)
    torch.testing.assert_close(kept(tmp_path, "selected"), expected(module, posts), rtol=1e-4, atol=1e-5)


def test_a_validation_outside_fit_stores_nothing(make_module: Build, posts: Posts, tmp_path: Path) -> None:
    trainer(tmp_path, LatentSpace()).validate(make_module(), posts, verbose=False)
    assert not (tmp_path / "latents").exists()


def test_posts_without_any_image_have_no_file(make_module: Build, posts: Posts, tmp_path: Path) -> None:
    posts.others = {7, 2, 9, 4, 0}
    fitted = trainer(tmp_path, LatentSpace())
    fitted.fit(module := make_module(), posts)
    fitted.validate(module, posts, verbose=False)
    assert not (tmp_path / "latents").exists()


def test_a_negative_number_of_posts_is_refused() -> None:
    with pytest.raises(ConfigError, match="latents cannot be kept of -1 posts: give 0 or more"):
        LatentSpace(-1)


def test_an_unwritable_folder_is_named(make_module: Build, posts: Posts, tmp_path: Path) -> None:
    (tmp_path / "latents").write_text("no folder")
    with pytest.raises(RunError, match=r"latents/start\.safetensors cannot be written: .*; free disk space"):
        trainer(tmp_path, LatentSpace()).fit(make_module(), posts)
