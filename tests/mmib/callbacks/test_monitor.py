"""What the monitor logs, stores and plots."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial, reduce
from operator import add
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger
from torch.utils.data import DataLoader

from mmib.backbone import BackboneOutput, Regularizer
from mmib.callbacks.monitor import IBMonitor, gradient_norms
from mmib.datamodules.base import PostDataModule
from mmib.geometry import PairedLatents
from mmib.information import (
    LatentMoments,
    LossTerm,
    Mean,
    MetricSums,
    PairMoments,
    flatten,
    information_plane,
    scalars,
)
from mmib.modules import ExtractionModule
from mmib.nn.alignment import Latents
from mmib.nn.fusion import FusionOutput, LateFusion
from mmib.optim import OptimizerSettings
from mmib.schema import PostBatch, task_named

Of = tuple[float, float]  # a mean, and the number of values
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "You defined a `validation_step` but have no",
        "The number of training batches",
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


def numbers_of(mean: float, count: float, shares: tuple[float, ...] = (1.0,)) -> Mean:
    """The mean of that many values, with the sum split over elements."""
    total = torch.tensor([mean * count * share for share in shares], dtype=torch.float64)
    return Mean(total.squeeze(), torch.tensor(count, dtype=torch.float64))


def sums(task: Of, kl_image: Of = (0.0, 0.0), align: Of = (0.0, 0.0)) -> MetricSums:
    """Sums of a batch with these means over the given numbers of posts, regions and anchors; it has no word pieces."""
    zero, zeros = torch.zeros((), dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    moments = {
        modality: LatentMoments(
            positions=torch.tensor(count, dtype=torch.float64),
            kl_square=torch.tensor(mean**2 * count, dtype=torch.float64),
            std=zero,
            mean=zeros,
            mean_square=zeros,
        )
        for modality, (mean, count) in (("text", (0.0, 0.0)), ("image", kl_image))
    }
    return MetricSums(
        posts=torch.tensor(task[1], dtype=torch.float64),
        terms={
            "task": numbers_of(*task),
            "kl_text": numbers_of(0.0, 0.0, (0.25, 0.75)),
            "kl_image": numbers_of(*kl_image, (0.25, 0.75)),
            "align": numbers_of(*align),
        },
        scalars={"loss": numbers_of(2 * task[0], task[1])},
        moments=moments,
        pairs=PairMoments(zero, zeros, zeros, zero),
        logged_as={"task": "task", "kl_text": "ib/kl_text", "kl_image": "ib/kl_image", "align": "align/loss"},
    )


class Scripted(pl.LightningModule):
    """Returns the scripted sums, one step at a time."""

    def __init__(self, script: list[MetricSums]) -> None:
        super().__init__()
        self.script = script
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
        return {"loss": self.weight.sum(), "sums": self.script[index]}

    def validation_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
        return {"sums": self.script[index]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Recorder(Logger):
    """Records logged values by name: pairs of step and value."""

    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[tuple[int, float]]] = {}

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.rows.setdefault(name, []).append((step or 0, float(value)))


def monitored(tmp_path: Path, monitor: IBMonitor | None = None, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": 1, "logger": False, "num_sanity_val_steps": 0, **options}
    return pl.Trainer(
        accelerator="cpu",
        callbacks=[monitor or IBMonitor()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **settings,
    )


def numbers(count: int) -> DataLoader[Any]:
    return DataLoader(torch.zeros(count, 1), batch_size=1)  # type: ignore[arg-type]


def log(script: list[MetricSums], tmp_path: Path) -> dict[str, float]:
    trainer = monitored(tmp_path)
    trainer.fit(Scripted(script), numbers(len(script)), numbers(len(script)))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


SCRIPT = [
    sums((1.0, 2), kl_image=(10.0, 1), align=(5.0, 0)),
    sums((4.0, 1), kl_image=(2.0, 3), align=(3.0, 4)),
    sums((7.0, 4), kl_image=(6.0, 2), align=(1.0, 2)),
]


def test_a_mean_over_batches_is_weighted_by_their_counts(tmp_path: Path) -> None:
    logged = log(SCRIPT[:2], tmp_path)
    assert logged["train/task"] == logged["val/task"] == pytest.approx(2.0)
    assert logged["ib/kl_image"] == logged["val/ib/kl_image"] == pytest.approx(4.0)
    assert logged["align/loss"] == pytest.approx(3.0), "a batch without anchors has no say"


def test_scalars_of_an_epoch_are_computed_from_its_sums(tmp_path: Path) -> None:
    logged = log(SCRIPT, tmp_path)
    expected = {name: float(value) for name, value in scalars(reduce(add, SCRIPT)).items()}
    assert {"loss", "task", "ib/kl_image", "ib/kl_std_image", "align/loss"} <= expected.keys()
    train = {f"train/{name}" if name in ("loss", "task") else name: value for name, value in expected.items()}
    validation = {f"val/{name}": value for name, value in expected.items()}
    assert logged == pytest.approx(train | validation)


def test_an_epoch_without_any_anchor_logs_no_alignment(tmp_path: Path) -> None:
    logged = log([sums((1.0, 2))], tmp_path)
    assert "align/loss" not in logged
    assert "ib/kl_image" not in logged
    assert "train/task" in logged


def test_sums_are_reset_every_epoch(tmp_path: Path) -> None:
    class ByEpoch(Scripted):
        def training_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
            return super().training_step(batch, self.current_epoch)

        def validation_step(self, batch: torch.Tensor, index: int) -> dict[str, Any]:
            return super().validation_step(batch, self.current_epoch)

    recorder = Recorder()
    monitored(tmp_path, logger=recorder, max_epochs=3).fit(ByEpoch(SCRIPT), numbers(2), numbers(2))
    for name in ("train/task", "val/task"):
        assert [value for _, value in recorder.rows[name]] == pytest.approx([1.0, 4.0, 7.0])


def test_steps_are_logged_at_an_interval_with_the_values_of_their_batch(tmp_path: Path) -> None:
    recorder = Recorder()
    script = [sums((float(number), 2), kl_image=(float(2 * number), 3)) for number in range(5)]
    trainer = monitored(tmp_path, logger=recorder, log_every_n_steps=2, max_epochs=2)
    trainer.fit(Scripted(script), numbers(5), numbers(1))
    expected = [(2, 1.0), (4, 3.0), (6, 0.0), (8, 2.0), (10, 4.0)]
    assert recorder.rows["train/task_step"] == expected
    assert recorder.rows["ib/kl_image_step"] == [(step, pytest.approx(2 * value)) for step, value in expected]
    assert not [name for name in recorder.rows if name.startswith("val/") and name.endswith("_step")]


def test_a_step_of_accumulated_gradients_is_logged_once(tmp_path: Path) -> None:
    recorder = Recorder()
    script = [sums((float(number), 2)) for number in range(5)]
    trainer = monitored(tmp_path, logger=recorder, log_every_n_steps=1, accumulate_grad_batches=2)
    trainer.fit(Scripted(script), numbers(5))
    assert recorder.rows["train/task_step"] == [(1, 0.5), (2, 2.5), (3, 4.0)]
    assert float(trainer.callback_metrics["train/task"]) == pytest.approx(2.0), "the epoch has them all"


# Resuming mid-epoch

MODULE: Any = None
TRAINING: Any = SimpleNamespace(global_step=0, current_epoch=0, log_every_n_steps=1000, loggers=[])


def epoch_end(monitor: IBMonitor) -> dict[str, float]:
    """The values that a monitor logs for the training epoch."""
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log_dict=lambda named, **_: logged.update(named))
    monitor.on_train_epoch_end(TRAINING, module)
    return {name: float(value) for name, value in logged.items()}


def test_a_resumed_epoch_includes_the_sums_of_its_first_part(tmp_path: Path) -> None:
    whole, first, second = IBMonitor(), IBMonitor(), IBMonitor()
    for step, step_sums in enumerate(SCRIPT):
        if step == 2:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for monitor in (whole, first if step < 2 else second):
            monitor.on_train_batch_end(TRAINING, MODULE, {"sums": step_sums}, None, step)
    expected = epoch_end(whole)
    assert expected["train/task"] == pytest.approx((2 + 4 + 28) / 7)
    assert epoch_end(second) == expected


@pytest.mark.parametrize("epochs", [0, 2])
def test_state_survives_a_checkpoint(tmp_path: Path, epochs: int) -> None:
    """Checkpoints are loaded as plain data: nothing in them may require code."""
    monitor = IBMonitor()
    if epochs:
        monitored(tmp_path, monitor, max_epochs=epochs).fit(Scripted(SCRIPT), numbers(3), numbers(3))
    monitor.on_train_batch_end(TRAINING, MODULE, {"sums": SCRIPT[0]}, None, 0)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    other = IBMonitor()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    before, after = monitor.state_dict(), other.state_dict()
    trained = [flatten(state.pop("train")) for state in (after, before)]
    torch.testing.assert_close(*trained, rtol=0, atol=0)
    assert trained[0]
    assert after == before
    assert len(after["plane"]) == epochs


# The information plane


def test_the_information_plane_has_one_point_per_validation_of_a_fit(tmp_path: Path) -> None:
    monitor = IBMonitor()
    trainer = monitored(tmp_path, monitor, max_epochs=3, num_sanity_val_steps=1)
    module = Scripted(SCRIPT)
    trainer.fit(module, numbers(3), numbers(2))
    points = json.loads((tmp_path / "information_plane.json").read_text(encoding="utf-8"))
    point = information_plane(reduce(add, SCRIPT[:2]))
    assert points == [{"step": step, **point} for step in (3, 6, 9)]
    assert point == {"rate_text": 0.0, "rate_image": pytest.approx(16 / 3), "distortion": pytest.approx(2.0)}
    assert (tmp_path / "information_plane.svg").stat().st_size > 1000
    trainer.validate(module, numbers(1), verbose=False)
    assert len(monitor.state_dict()["plane"]) == 3, "it is about training"


def test_without_validation_there_is_no_information_plane(tmp_path: Path) -> None:
    monitored(tmp_path).fit(Scripted(SCRIPT), numbers(3))
    assert not list(tmp_path.glob("information_plane*"))


# The latent space


class Validated(PostDataModule):
    """Prepared batches of both splits; the listed validation rows are sampled."""

    def __init__(self, module: Any, batches: list[PostBatch], rows: list[int]) -> None:
        pl.LightningDataModule.__init__(self)
        self.task, self.labels = task_named(module.task), module.labels
        text_encoder, self.image_encoder = module.backbone.text_encoder, module.backbone.image_encoder
        self.tokenizer, self.levitated = text_encoder.tokenizer, text_encoder.levitated
        self.batches, self.rows = batches, rows

    def setup(self, stage: str) -> None:
        pass

    def train_dataloader(self) -> Any:
        return self.val_dataloader()

    def val_dataloader(self, rows: Any = None) -> Any:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def val_sample(self, most: int) -> list[int]:
        return self.rows[:most]


def test_validation_logs_geometry_measures_of_the_sampled_posts(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    module = make_module().eval()
    batches = [make_batch(regions=(3, 1, 2, 2), seed=seed) for seed in range(3)]
    for number, batch in enumerate(batches):
        batch.rows, batch.image_ids = 4 * number + torch.arange(4), torch.tensor([number, 7, 8, 9 + number])
    data = Validated(module, batches, rows=[0, 1, 3, 4, 5, 7, 8, 9, 11])
    trainer = monitored(tmp_path, IBMonitor(latent_posts=8), logger=Recorder())
    trainer.validate(module, data, verbose=False)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "latent/" in name}
    chosen = torch.tensor([0, 1, 3, 4, 5, 7, 8, 9])
    outputs = [module.backbone(batch) for batch in batches]
    text, image = (
        torch.cat([getattr(output, f"{side}_latents").post_mean() for output in outputs])[chosen].detach().numpy()
        for side in ("text", "image")
    )
    found = PairedLatents(text, image, torch.cat([batch.image_ids for batch in batches])[chosen].numpy()).geometry()
    names = {"cosine_text", "cosine_image", "effective_rank_text", "effective_rank_image"}
    names |= {"own_image_rank", "own_image_share"}
    assert logged == pytest.approx({f"val/latent/{name}": getattr(found, name) for name in names}, rel=1e-4)
    assert found.candidates == 8, "three posts have the same image"


@pytest.mark.parametrize("rows", [[], [0]])
def test_a_single_post_has_no_geometry(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], tmp_path: Path, rows: list[int]
) -> None:
    """A cosine and a rank need two posts; the effective rank of one is 1."""
    module = make_module()
    trainer = monitored(tmp_path, logger=Recorder())
    trainer.validate(module, Validated(module, [make_batch()], rows), verbose=False)
    names = {f"val/latent/effective_rank_{modality}" for modality in ("text", "image")} if rows else set()
    assert {name for name in trainer.callback_metrics if "latent/" in name} == names


# Gradient norms


class Terms(torch.nn.Module):
    """Two loss terms with known gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        self.bias = torch.nn.Parameter(torch.tensor(1.0))
        self.unused = torch.nn.Parameter(torch.tensor(1.0))
        self.frozen = torch.nn.Parameter(torch.tensor(7.0), requires_grad=False)
        self.loss_terms = {
            "task": 0.5 * self.weight.square().sum().double() * self.frozen / 7.0,
            "align": 2.0 * self.weight[0] + self.bias * 6.0,
        }


def test_gradient_norms_by_hand() -> None:
    module: Any = Terms()
    for _ in range(2):
        norms = gradient_norms(module)
        assert {name: float(norm) for name, norm in norms.items()} == pytest.approx({"task": 5.0, "align": 40**0.5})
    assert all(parameter.grad is None for parameter in module.parameters())
    module.loss_terms["task"].backward()
    assert module.weight.grad.tolist() == [3.0, 4.0], "the graph is still there for the step itself"


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_gradient_norms_of_a_module_match_those_of_its_terms(
    make_module: Callable[..., Any], make_batch: Callable[..., Any]
) -> None:
    module, batch = make_module({"sampling": False}, beta_text=0.3, beta_image=0.2).train(), make_batch()
    loss = module.training_step(batch, 0)["loss"]
    norms = gradient_norms(module)
    assert norms.keys() == {"task", "kl_text", "kl_image", "align"}
    for name, norm in norms.items():
        module.zero_grad()
        module.objective(batch).terms[name].backward()
        gradients = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
        assert float(norm) == pytest.approx(float(torch.stack(gradients).sum().sqrt()), rel=1e-4), name
    module.zero_grad()
    loss.backward()
    module.on_after_backward()
    assert module.loss_terms == {}, "the graph is let go"


def test_gradient_norms_are_logged_at_an_interval_and_do_not_change_training(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    weights, recorder = [], Recorder()
    for every, logger in ((0, False), (2, recorder)):
        torch.manual_seed(0)
        module = make_module()
        batches: Any = DataLoader([make_batch(seed=seed) for seed in range(5)], batch_size=None)  # type: ignore[arg-type]
        trainer = monitored(tmp_path, IBMonitor(gradients_every=every), logger=logger, log_every_n_steps=1)
        trainer.fit(module, batches)
        weights.append({name: p.detach().clone() for name, p in module.named_parameters()})
    for name in ("task", "kl_text", "kl_image", "align"):
        assert [step for step, _ in recorder.rows[f"grad/{name}"]] == [0, 2, 4]
        assert all(value > 0 for _, value in recorder.rows[f"grad/{name}"])
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)


class Spread(Regularizer):
    """A custom term: the mean of the squared text latents of a post's first piece."""

    def forward(self, output: BackboneOutput, batch: PostBatch) -> LossTerm:
        """See `Regularizer.forward`."""
        values = output.text_latents.z[:, 0].square().mean(dim=1).masked_fill(~batch.valid, 0.0)
        return LossTerm(name="spread", sum=values.sum(), count=batch.valid.sum(), weight=0.5)


class Gated(LateFusion):
    """A custom fusion that reports the number of regions of each post."""

    def forward(self, queries: torch.Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """See `Fusion.forward`."""
        fused = super().forward(queries, text, image, need_weights)
        return fused._replace(scalars={"regions": image.mask.double().sum(dim=1)})


def test_outputs_of_custom_terms_and_fusions_are_logged_by_name(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    recorder = Recorder()
    module = make_module({"fusion": partial(Gated, dropout=0.0), "sampling": False}, regularizers=[Spread()])
    batch = make_batch(regions=(3, 1, 0, 2))
    torch.manual_seed(0)
    values = module.backbone(batch).text_latents.z[:, 0].detach().square().mean(dim=1)
    expected = {"loss/spread": float(values.mean()), "fusion/regions": 1.5}
    padding_row = dataclasses.replace(batch, rows=torch.tensor([0, 1, 2, -1]))
    validated = {"loss/spread": float(values[:3].mean()), "fusion/regions": 4 / 3}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(module.objective(batch).terms["spread"], trained, allow_unused=True)
    norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).double().norm()
    options: dict[str, Any] = {"logger": recorder, "log_every_n_steps": 1, "limit_val_batches": 1}
    module.optimizer = OptimizerSettings(lr=0.0, text_lr=0.0, other_lrs={})
    loaders = [DataLoader([rows], batch_size=None) for rows in (batch, padding_row)]  # type: ignore[arg-type]
    monitored(tmp_path, IBMonitor(gradients_every=1), **options).fit(module, *loaders)
    logged = {name: rows[-1][1] for name, rows in recorder.rows.items()}
    for name, value in expected.items():
        assert logged[name] == logged[f"{name}_step"] == pytest.approx(value, rel=1e-5)
        assert logged[f"val/{name}"] == pytest.approx(validated[name], rel=1e-5)
    assert logged["grad/spread"] == pytest.approx(float(norm), rel=1e-4)


# Histograms


class Histograms(WandbLogger):
    """Records what W&B would receive."""

    def __init__(self) -> None:
        self.logged: list[tuple[int | None, dict[str, Any]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.logged.append((step, dict(metrics)))


def test_histograms_show_the_kl_by_dimension() -> None:
    logger = Histograms()
    monitor = IBMonitor(histograms_every=2)
    for step in range(1, 6):
        trainer: Any = SimpleNamespace(global_step=step, log_every_n_steps=1000, loggers=[logger])
        monitor.on_train_batch_end(trainer, MODULE, {"sums": SCRIPT[1]}, None, step - 1)
    assert [step for step, _ in logger.logged] == [2, 4]
    found = logger.logged[0][1]["ib/kl_image_by_dimension"]
    assert sum(found.histogram) == 2
    assert (min(found.bins), max(found.bins)) == (pytest.approx(0.5), pytest.approx(1.5)), (
        "2 nats: a quarter and the rest"
    )


# Together with the module


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_losses_logged_by_the_module_match_the_monitor(
    make_module: Callable[..., ExtractionModule], make_batch: Callable[..., PostBatch], tmp_path: Path
) -> None:
    """Batches of different sizes: the mean is over posts. Each name is logged once, by either of them."""
    posts: Any = [make_batch(seed=1), make_batch(lengths=(9, 8), regions=(0, 1), seed=2)]
    batches = DataLoader(posts, batch_size=None)
    logged, shown = {}, {}
    for name, callbacks in (("alone", []), ("monitored", [IBMonitor()])):
        torch.manual_seed(0)
        recorder = Recorder()
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=callbacks,
            logger=recorder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            max_epochs=2,
            log_every_n_steps=1,
        )
        trainer.fit(make_module(gamma=0.5), batches, batches)
        logged[name], shown[name] = recorder.rows, trainer.progress_bar_metrics
    losses = {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "task")}
    steps = {"train/loss_step", "train/task_step"}
    scores = {name for name in logged["alone"] if name.startswith("val/")} - losses
    assert {"val/f1", "val/precision", "val/recall"} <= scores
    assert logged["alone"].keys() == {"epoch"} | losses | steps | scores
    for name in losses | scores:
        values = [[value for _, value in logged[run][name]] for run in ("alone", "monitored")]
        assert values[0] == pytest.approx(values[1]), name
        assert len(values[0]) == 2, name
    for name in steps:
        values = [[value for _, value in logged[run][name]] for run in ("alone", "monitored")]
        assert values[0] == pytest.approx(values[1]), name
        assert len(values[0]) == 4, name
    assert shown["alone"] == pytest.approx(shown["monitored"])
    assert shown["alone"].keys() == {"loss", "val/f1"}
