"""Worker processes load the same data as the trainer's process, with any start method."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from mmib.datamodules.mnre import MNREDataModule
from mmib.encoders.image import ImageEncoder
from mmib.modules import ExtractionModule
from mmib.schema import PostBatch

Load = Callable[..., MNREDataModule]
# Cached features, and randomly cropped pixels.
both_inputs = pytest.mark.parametrize("augment", [False, True], ids=["features", "pixels"])


@pytest.fixture
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """The start method of worker processes, which differs between scripts and Python versions."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


class WorkerPickler(pickle.Pickler):
    """Refuses objects that workers do not need; transforms are modules, too, but without weights."""

    def persistent_id(self, value: Any) -> None:
        assert not isinstance(value, (nn.Parameter, pl.Trainer, pl.LightningDataModule)), type(value)


def as_in_a_worker(value: Any) -> Any:
    """A value as a process that is not forked receives it."""
    file = io.BytesIO()
    WorkerPickler(file).dump(value)
    return pickle.loads(file.getvalue())


def same(first: PostBatch, second: PostBatch) -> bool:
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in fields(first)]
    return all(torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two for one, two in pairs)


@both_inputs
def test_workers_receive_neither_trainer_nor_network(five: Any, load: Load, augment: bool) -> None:
    module = load(batch_size=2, augment=augment)
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.setup("fit")
    loader = module.train_dataloader()
    dataset, collate = as_in_a_worker((loader.dataset, loader.collate_fn))
    shares = list(loader.batch_sampler)
    assert len(shares) == 3
    for share, batch in zip(shares, loader, strict=True):
        assert same(collate(dataset.__getitems__(share)), batch)
    assert (batch.pixels is None) != augment


@pytest.mark.parametrize(
    ("start_method", "augment"), [("spawn", False), ("forkserver", True)], indirect=["start_method"]
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:The number of training")
def test_training_with_workers_gives_the_same_weights(
    five: Any,
    load: Load,
    make_module: Callable[..., ExtractionModule],
    make_image_encoder: Callable[..., ImageEncoder],
    start_method: str,
    augment: bool,
    tmp_path: Path,
) -> None:
    images = make_image_encoder(frozen=not augment)

    def fit(workers: int) -> dict[str, torch.Tensor]:
        pl.seed_everything(1, workers=True, verbose=False)
        module = make_module(backbone={"text": {"dropout": 0.1}, "dropout": 0.1, "image": {"frozen": not augment}})
        trainer = pl.Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=2,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        data = load(batch_size=2, max_length=40, augment=augment, workers=workers, image_encoder=images)
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 6
        return module.state_dict()

    alone, helped = fit(workers=0), fit(workers=1)
    assert all(torch.equal(alone[name], helped[name]) for name in alone)
