"""Training on N ranks matches one process: real processes over gloo, both tasks and alignments."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from mmib.backbone import BackboneOutput, MultimodalIB, Regularizer
from mmib.callbacks.latents import LatentSpace
from mmib.callbacks.monitor import IBMonitor
from mmib.callbacks.predictions import PredictionCollector
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.demo.module import DemoMNERDataModule, DemoMREDataModule
from mmib.datamodules.demo.settings import DemoSettings
from mmib.encoders.image import ImageEncoder
from mmib.encoders.lora import LoraSettings
from mmib.encoders.text import TextEncoder
from mmib.information import LossTerm, post_means
from mmib.modules import ExtractionModule, MNERModule, MREModule
from mmib.nn.alignment import Alignment, InfoNCEAlignment, JSDAlignment, Latents
from mmib.nn.fusion import CrossModalFusion, Fusion, FusionOutput
from mmib.nn.gaussian import GaussianEncoder
from mmib.optim import OptimizerSettings
from mmib.runs.loggers import RunLogger
from mmib.schema import PostBatch

STEPS = 20
ATTENTION = partial(CrossModalFusion, heads=4, dropout=0.0)
Train = Callable[..., dict[str, Any]]

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "The '.*_dataloader' does not have many workers",
        ".*fork.* may lead to deadlocks",
        "Using a target size",
    )
]


class Recorder(pl.Callback):
    """Writes what rank 0 observes to a file at the end of fitting, since the job's processes end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[str, list[Any]] = {"loss": [], "terms": [], "gradients": []}

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        self.seen["terms"].append({name: float(term) for name, term in pl_module.loss_terms.items()})

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        self.seen["gradients"].append(gradients)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen["loss"].append(float(outputs["loss"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            weights = {name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()}
            torch.save({**self.seen, "metrics": metrics, "weights": weights}, self.path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with many posts without an image, and many that share one."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture
def train(encoder_files: Any, corpus: Path, tmp_path: Path) -> Train:
    """Trains on a number of ranks and returns what rank 0 observed."""

    def run(
        ranks: int,
        task: str,
        alignment: Callable[[int], Alignment],
        double: bool = True,
        batch_size: int = 16,
        gamma: float = 1.0,
        gradients_every: int = 0,
        fusion: Callable[[int], Fusion] = ATTENTION,
        regularizers: Sequence[Regularizer] = (),
        callbacks: Sequence[pl.Callback] = (),
        lora: LoraSettings | None = None,
        **trainer: Any,
    ) -> dict[str, Any]:
        torch.manual_seed(0)
        module = build_module(encoder_files, task, alignment, gamma, fusion, regularizers, lora)
        data = build_data(module, task, corpus, batch_size)
        path = tmp_path / f"{task}-{ranks}.pt"
        options: dict[str, Any] = {"max_steps": STEPS, "limit_val_batches": 0, "logger": False} | trainer
        pl.Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy="ddp_fork" if ranks > 1 else "auto",
            precision="64-true" if double else "32-true",
            use_distributed_sampler=False,
            callbacks=[IBMonitor(gradients_every), *callbacks, Recorder(path)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
            **options,
        ).fit(module, data)
        return dict(torch.load(path, weights_only=True))

    return run


def build_module(
    files: Any,
    task: str,
    alignment: Callable[[int], Alignment],
    gamma: float,
    fusion: Callable[[int], Fusion],
    regularizers: Sequence[Regularizer],
    lora: LoraSettings | None,
) -> ExtractionModule:
    """A tiny network without noise."""
    backbone = MultimodalIB(
        TextEncoder(files.text, dropout=0.0, lora=lora),
        ImageEncoder("test_resnet", weights=files.image),
        partial(GaussianEncoder, heads=4, dropout=0.0),
        alignment,
        fusion,
        sampling=False,
    )
    kind: type[ExtractionModule] = {"mre": MREModule, "mner": MNERModule}[task]
    rates = OptimizerSettings(lr=1e-3, text_lr=1e-3)
    return kind(backbone, head_dropout=0.0, gamma=gamma, optimizer=rates, regularizers=list(regularizers))


def build_data(module: ExtractionModule, task: str, corpus: Path, batch_size: int) -> PostDataModule:
    kind: type[PostDataModule] = {"mre": DemoMREDataModule, "mner": DemoMNERDataModule}[task]
    return kind(
        root=str(corpus / "demo"),
        demo=DemoSettings(size="tiny", missing=0.4),
        text_encoder=module.text_encoder,
        image_encoder=module.image_encoder,
        batch_size=batch_size,
        eval_batch_size=8,
        max_missing_images=1.0,
        cache_dir=str(corpus / "cache"),
    )


LATE = partial(InfoNCEAlignment, granularity="late")


BOTH = [(task, alignment) for task in ("mre", "mner") for alignment in (InfoNCEAlignment, JSDAlignment)]


@pytest.mark.parametrize(("task", "alignment"), [*BOTH, ("mre", LATE)])
def test_n_ranks_train_as_one_process(train: Train, task: str, alignment: Any) -> None:
    one = train(1, task, alignment)
    assert len(one["loss"]) == STEPS
    for many in (train(ranks, task, alignment) for ranks in (2, 4)):
        for step in range(STEPS):
            assert many["terms"][step] == pytest.approx(one["terms"][step], rel=1e-5, abs=1e-8)
            assert_same(many["gradients"][step], one["gradients"][step])
        assert_same(many["weights"], one["weights"])


def test_lora_training_on_ranks_matches_one_process(train: Train) -> None:
    """Under plain DDP, which fails for parameters without a gradient."""
    pytest.importorskip("peft", reason="the lora extra is not installed")
    one, two = (train(ranks, "mre", LATE, lora=LoraSettings(r=2)) for ranks in (1, 2))
    assert any(".lora_A." in name for name in one["gradients"][0])
    assert not any(".base_layer." in name for name in one["gradients"][0])
    assert_same(two["weights"], one["weights"])


def assert_same(others: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert others.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(others[name], value, rtol=1e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("task", "alignment"), BOTH)
def test_float32_has_the_same_losses_and_close_gradients(train: Train, task: str, alignment: Any) -> None:
    one, *several = (train(ranks, task, alignment, double=False, max_steps=1) for ranks in (1, 2, 4))
    gradients = one["gradients"][0]
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for many in several:
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for name, gradient in gradients.items():
            assert float((many["gradients"][0][name] - gradient).norm()) < 1e-5 * largest, name


@pytest.mark.parametrize(("task", "alignment"), [("mre", LATE), ("mner", JSDAlignment)])
def test_scalars_and_metrics_are_independent_of_the_number_of_ranks(
    train: Train, task: str, alignment: Callable[[int], Alignment], tmp_path: Path
) -> None:
    """20 validation posts and 60 training posts in batches of 12 and 8: some shares are short, and some are empty."""
    options = {"max_steps": -1, "max_epochs": 2, "limit_val_batches": None, "batch_size": 12, "log_every_n_steps": 1}
    logged = []
    for ranks in (1, 2, 3, 4):
        train(ranks, task, alignment, **options, gradients_every=2, logger=RunLogger(tmp_path / str(ranks)))
        with (tmp_path / str(ranks) / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        logged.append([{name: float(value) for name, value in row.items() if value} for row in rows])
    one, *others = logged
    names = {name for row in one for name in row}
    assert names >= {"val/f1", "val/accuracy", "ib/kl_text", "val/ib/active_image", "align/gap", "train/loss"}
    assert names >= {f"val/latent/{name}" for name in ("cosine_text", "effective_rank_image", "own_image_share")}
    assert names >= {"train/task_step", "align/loss_step", "grad/task", "grad/kl_image", "grad/align"}
    for many in others:
        for mine, theirs in zip(one, many, strict=True):
            # The standard deviation of a KL that is equal everywhere, as at the start, is only rounding: about 1e-7.
            assert theirs == pytest.approx(mine, rel=1e-6, abs=1e-6, nan_ok=True)


class Gated(CrossModalFusion):
    """Reports the numbers of pieces and regions of each post."""

    def forward(self, queries: torch.Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        fused = super().forward(queries, text, image, need_weights)
        sizes = {name: side.mask.double().sum(dim=1) for name, side in (("pieces", text), ("regions", image))}
        return fused._replace(scalars=sizes)


class Spread(Regularizer):
    """The mean of the squared mean image latents, over the posts with an image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, output: BackboneOutput, batch: PostBatch) -> LossTerm:
        pictured = batch.valid & batch.region_mask.any(dim=1)
        values = self.scale * output.image_latents.post_mean().square().mean(dim=1)
        mean = post_means(values, pictured)
        size = post_means(batch.region_mask.double().sum(dim=1), pictured)
        return LossTerm(
            name="spread", sum=mean.total, count=mean.count, weight=0.7, unit="images", scalars={"spread/size": size}
        )


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_custom_terms_and_fusions_are_independent_of_the_number_of_ranks(
    train: Train, task: str, tmp_path: Path
) -> None:
    """Shares of three ranks contain padding rows, for which a fusion also returns values."""
    parts: dict[str, Any] = {"fusion": partial(Gated, heads=4, dropout=0.0), "batch_size": 12, "log_every_n_steps": 1}
    seen, logged = [], []
    for ranks in (1, 2, 3):
        options = {"max_steps": 6, "limit_val_batches": None, "val_check_interval": 6, "gradients_every": 3}
        logger = RunLogger(tmp_path / str(ranks))
        seen.append(train(ranks, task, LATE, regularizers=[Spread()], **parts, **options, logger=logger))
        with (tmp_path / str(ranks) / "metrics.csv").open(newline="") as file:
            logged.append(
                [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
            )
    names = {name for row in logged[0] for name in row}
    assert names >= {"loss/spread_step", "fusion/pieces_step", "val/loss/spread", "val/fusion/regions", "grad/spread"}
    assert names >= {"spread/size_step", "val/spread/size"}
    for many, rows in zip(seen[1:], logged[1:], strict=True):
        for step, terms in enumerate(seen[0]["terms"]):
            assert many["terms"][step] == pytest.approx(terms, rel=1e-5, abs=1e-8)
            assert terms["spread"] > 0
            assert_same(many["gradients"][step], seen[0]["gradients"][step])
        assert "regularizers.0.scale" in many["weights"]
        for mine, theirs in zip(logged[0], rows, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-6, abs=1e-6, nan_ok=True)


class Predictions(PredictionCollector):
    """Gathers predictions at the end of a validation, and writes those of rank 0."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.gather()
        if trainer.is_global_zero:
            torch.save(self.predictions["val"], self.path)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_evidence_and_latents_are_independent_of_the_number_of_ranks(train: Train, task: str, tmp_path: Path) -> None:
    records, latents = [], []
    for ranks in (1, 3):
        callbacks = [Predictions(tmp_path / "predictions.pt"), LatentSpace(20)]
        train(
            ranks,
            task,
            LATE,
            max_steps=1,
            limit_val_batches=None,
            val_check_interval=1,
            batch_size=12,
            callbacks=callbacks,
        )
        records.append(torch.load(tmp_path / "predictions.pt", weights_only=True))
        latents.append(load_file(tmp_path / "latents" / "start.safetensors"))
    one, many = records
    assert one.keys() == many.keys()
    pictured = sum(bool(finite(record["attention"])) for record in one.values())
    assert len(latents[0]["rows"]) == min(20, pictured) > 5
    for row, expected in one.items():
        assert many[row].keys() == expected.keys() >= {"kl", "kl_image", "similarity", "attention"}
        for key in ("kl", "kl_image", "similarity", "attention"):
            mine, theirs = (finite(record[key]) for record in (expected, many[row]))
            assert theirs == pytest.approx(mine, rel=1e-6)
    torch.testing.assert_close(latents[1], latents[0], rtol=1e-6, atol=1e-6)
    assert latents[0]["labels"].any(dim=1).all() or task == "mner"


def finite(values: Any) -> list[float]:
    """The numbers of nested lists, without the padding of their batch."""
    return [float(value) for value in np.ravel(values) if np.isfinite(value)]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("task", ["mre", "mner"])
def test_accumulated_steps_are_normalised_over_their_window(train: Train, ranks: int, task: str) -> None:
    """All rows at once, or in batches of 36 and a smaller one; negatives of the alignment stay within a batch."""
    rows = {"mre": 140, "mner": 66}[task]
    whole = train(1, task, InfoNCEAlignment, gamma=0.0, max_steps=2, batch_size=rows)
    parts = train(ranks, task, InfoNCEAlignment, gamma=0.0, max_steps=2, batch_size=36, accumulate_grad_batches=4)
    assert len(whole["loss"]) == 2
    assert 2 < len(parts["loss"]) < 9
    for expected, others in zip(whole["gradients"], parts["gradients"], strict=True):
        assert_same(others, expected)


def test_negatives_can_stay_local(train: Train) -> None:
    """With fewer negatives the loss differs from one process, but the weights are the same on every rank."""
    one, many = (train(n, "mre", partial(InfoNCEAlignment, negatives="local"), max_steps=2) for n in (1, 2))
    assert many["terms"][0]["task"] == pytest.approx(one["terms"][0]["task"], rel=1e-9)
    assert many["terms"][0]["align"] < one["terms"][0]["align"]
