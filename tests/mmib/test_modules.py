"""The objective and its terms, evaluation, optimisation and checkpoints of the LightningModule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from mmib.modules import CHECKPOINT_TASK_KEY, ExtractionModule, MREModule
from mmib.nn.alignment import JSDAlignment
from mmib.optim import Cyclic, LinearWarmup, OptimizerSettings
from mmib.schema import RELATIONS, CheckpointError, ConfigError, MREBatch

Build = Callable[..., MREModule]
MakeBatch = Callable[..., MREBatch]
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "You defined a `validation_step` but have no",
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


def take(batch: MREBatch, rows: list[int]) -> MREBatch:
    """Some rows of a batch of features, in this order."""
    return dataclasses.replace(
        batch, **{f.name: v[rows] for f in dataclasses.fields(batch) if (v := getattr(batch, f.name)) is not None}
    )


def loaders(batches: list[MREBatch]) -> Any:
    """A data loader over ready batches."""
    return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1} | options,
    )


@pytest.mark.parametrize(("pieces", "regions"), [(1, 0), (0, 1), (9, 4)])
def test_padding_changes_neither_loss_nor_logits_nor_any_scalar(
    make_module: Build, make_batch: MakeBatch, append_garbage: Callable[..., MREBatch], pieces: int, regions: int
) -> None:
    """Defects 1, 2, 5 and 24, through the whole model, in training mode without noise."""
    module, batch = make_module({"sampling": False}, beta_text=0.3, beta_image=0.2), make_batch()
    loss, scores, scalars = module.train().objective(batch)
    other_loss, other_scores, other_scalars = module.objective(append_garbage(batch, pieces, regions))
    torch.testing.assert_close(other_loss, loss)
    torch.testing.assert_close(other_scores, scores)
    for name, scalar in scalars.items():
        assert float(other_scalars[name].value) == pytest.approx(float(scalar.value), rel=1e-4, abs=1e-5), name
        assert int(other_scalars[name].weight) == int(scalar.weight), name


def test_loss_is_the_weighted_sum_of_its_named_terms(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module(beta_text=0.3, beta_image=0.2, gamma=0.5).eval()
    batch = make_batch()
    loss, scores, _ = module.objective(batch)
    output = module.backbone(batch)
    expected = (
        F.cross_entropy(scores, batch.relations)
        + 0.3 * output.text.kl()[batch.text_mask].mean()
        + 0.2 * output.image.kl()[batch.region_mask].mean()
        + 0.5 * output.alignment.loss
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("term", ["beta_text", "beta_image", "gamma"])
def test_weight_of_zero_switches_its_term_off(make_module: Build, make_batch: MakeBatch, term: str) -> None:
    batch, weights = make_batch(), {"beta_text": 0.3, "beta_image": 0.2, "gamma": 0.5}
    module = make_module(**weights | {term: 0.0}).eval()
    output = module.backbone(batch)
    terms = {
        "beta_text": output.text.rate().mean(),
        "beta_image": output.image.rate().mean(),
        "gamma": output.alignment.loss,
    }
    assert terms[term] > 0
    rest = sum(weights[name] * value for name, value in terms.items() if name != term)
    loss, scores, _ = module.objective(batch)
    torch.testing.assert_close(loss, F.cross_entropy(scores, batch.relations) + rest)


def test_without_regularisers_the_loss_is_the_task_loss(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module(beta_text=0.0, beta_image=0.0, gamma=0.0), make_batch()
    loss, scores, _ = module.objective(batch)
    torch.testing.assert_close(loss, F.cross_entropy(scores, batch.relations))


def test_gamma_zero_freezes_the_alignment_and_nothing_else(make_module: Build) -> None:
    with_alignment, without = make_module(gamma=0.1), make_module(gamma=0.0)
    trained = {name for name, p in with_alignment.named_parameters() if p.requires_grad}
    left = {name for name, p in without.named_parameters() if p.requires_grad}
    assert trained - left == {name for name in trained if name.startswith("backbone.alignment.")} != set()


@pytest.mark.parametrize("weight", ["beta_text", "beta_image", "gamma", "free_bits"])
def test_negative_weight_is_refused_by_name(make_module: Build, weight: str) -> None:
    with pytest.raises(ConfigError, match=f"{weight} is -0.5"):
        make_module(**{weight: -0.5})


def test_repeating_the_rows_of_a_batch_leaves_every_mean_as_it_is(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 16: the task loss was a sum and the others were means, so their trade-off moved with the batch size."""
    module = make_module({"alignment": JSDAlignment}, beta_text=0.3, beta_image=0.2, gamma=0.5).eval()
    batch = make_batch()
    once, _, scalars = module.objective(batch)
    twice, _, twice_scalars = module.objective(take(batch, [0, 1, 2, 3, 0, 1, 2, 3]))
    torch.testing.assert_close(twice, once)
    for name, scalar in scalars.items():
        assert float(twice_scalars[name].value) == pytest.approx(float(scalar.value), rel=1e-4, abs=1e-4), name


def test_free_bits_take_the_pressure_off_dimensions_below_them(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    module = make_module(beta_text=1.0, beta_image=0.0, gamma=0.0).eval()
    plain, scores, _ = module.objective(batch)
    rate = module.backbone(batch).text.rate().detach()
    module.free_bits = rate.median().item()
    loss, _, _ = module.objective(batch)
    task = F.cross_entropy(scores, batch.relations)
    torch.testing.assert_close(loss - task, torch.maximum(rate, rate.median()).mean())
    assert loss > plain
    module.free_bits = rate.max().item() + 1
    module.zero_grad()
    (module.objective(batch)[0] - task.detach()).backward()
    # Only the task loss is left, and it does not see the log-variances in evaluation mode.
    gradient = module.backbone.text_posterior.log_var.weight.grad
    assert gradient is None or not gradient.any()


def test_kl_is_logged_in_nats_a_token_and_a_region(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    scalars = module.objective(batch)[2]
    output = module.backbone(batch)
    for name, posterior, mask in (
        ("text", output.text, batch.text_mask),
        ("image", output.image, batch.region_mask),
    ):
        nats = posterior.kl().sum(dim=2)[mask]
        assert float(scalars[f"ib/kl_{name}"].value) == pytest.approx(nats.mean().item(), rel=1e-5)
        assert float(scalars[f"ib/kl_std_{name}"].value) == pytest.approx(nats.std(correction=0).item(), rel=1e-5)
        assert float(scalars[f"ib/std_{name}"].value) == pytest.approx(math.exp(-1.5), rel=1e-5)
        assert int(scalars[f"ib/kl_{name}"].weight) == int(mask.sum())
    assert scalars["task"].weight == len(batch)
    assert int(scalars["align/loss"].weight) == 3


def test_no_logged_value_holds_a_graph(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module({"alignment": JSDAlignment})
    scalars = {**module.objective(make_batch())[2], **make_module().objective(make_batch())[2]}
    for name, scalar in scalars.items():
        assert not isinstance(scalar.value, torch.Tensor) or not scalar.value.requires_grad, name


def test_batch_without_images_has_a_finite_loss_and_weights_of_zero(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module()
    loss, _, scalars = module.objective(make_batch(regions=(0, 0, 0, 0)))
    loss.backward()
    assert loss.isfinite()
    assert int(scalars["ib/kl_image"].weight) == int(scalars["align/mi_bound"].weight) == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_evaluation_ignores_the_beta_schedule(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    module = make_module(beta_text=0.3, beta_schedule=LinearWarmup(0.5)).eval()
    assert float(module.objective(batch)[2]["ib/beta_text"].value) == pytest.approx(0.3)


class BetaLog(pl.Callback):
    """Keeps the text beta of each training step."""

    def __init__(self) -> None:
        self.betas: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.betas.append(float(outputs["scalars"]["ib/beta_text"].value))


def test_beta_follows_its_schedule_by_optimiser_step(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    log = BetaLog()
    module = make_module(beta_text=0.2, beta_schedule=Cyclic(cycles=2, share=1.0))
    trainer(tmp_path, max_epochs=2, callbacks=[log]).fit(module, loaders([make_batch()] * 4))
    assert log.betas == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.0, 0.05, 0.1, 0.15])


def test_optimizer_has_the_settings_rates_and_warms_up_by_step(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Defect 10: the classifier trained at the encoder's rate."""
    settings = OptimizerSettings(lr=1e-2, text_lr=1e-3, other_lrs={r"^head\.": 5e-2}, warmup=0.5, weight_decay=0.1)
    module = make_module(optimizer=settings)
    rates: list[dict[str, float]] = []

    class RateLog(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})

    trainer(tmp_path, callbacks=[RateLog()]).fit(module, loaders([make_batch()] * 4))
    for pattern, rate in ((r"^head\.", 5e-2), (r"^backbone\.text_encoder\.", 1e-3), (".", 1e-2)):
        for suffix in ("", " (no decay)"):
            seen = [step[pattern + suffix] for step in rates]
            assert seen == pytest.approx([rate * factor for factor in (0.5, 1.0, 1.0, 0.5)])


def test_rate_for_parameters_that_do_not_exist_is_refused(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Defect 10."""
    module = make_module(optimizer=OptimizerSettings(other_lrs={r"^crf\.": 1e-2}))
    with pytest.raises(ConfigError, match=r"'\^crf\\\\\.' matches no parameter"):
        trainer(tmp_path).fit(module, loaders([make_batch()]))


@pytest.mark.parametrize("limit", [0.01, 1.0])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_at_the_trainers_limit(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path, limit: float, precision: str
) -> None:
    """Defect 30: a limit of 1.0 or less silently did nothing."""
    norms: list[float] = []

    class NormLog(pl.Callback):
        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    module = make_module(beta_text=100.0)
    options = {"gradient_clip_val": limit, "precision": precision, "callbacks": [NormLog()]}
    trainer(tmp_path, **options).fit(module, loaders([make_batch()] * 3))
    assert norms
    assert all(norm == pytest.approx(limit, rel=1e-2) for norm in norms)


def test_frozen_image_encoder_is_bit_identical_after_training(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Defects 7 and 9, under the Trainer, which switches modes for validation and back."""
    module = make_module()
    before = {name: tensor.clone() for name, tensor in module.backbone.image_encoder.state_dict().items()}
    batches = [make_batch(pixels=True, seed=seed) for seed in range(2)]
    trainer(tmp_path, max_epochs=2).fit(module, loaders(batches), loaders(batches[:1]))
    after = module.backbone.image_encoder.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_frozen_text_layers_are_bit_identical_after_training_and_the_rest_moves(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    module = make_module({"text": {"trainable_layers": 1}}, optimizer=OptimizerSettings(text_lr=0.01))
    before = {name: p.detach().clone() for name, p in module.backbone.text_encoder.named_parameters()}
    trainable = {name for name, p in module.backbone.text_encoder.named_parameters() if p.requires_grad}
    trainer(tmp_path).fit(module, loaders([make_batch()] * 2))
    moved = {n for n, p in module.backbone.text_encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= trainable
    assert "encoder.encoder.layer.2.output.dense.weight" in moved


@pytest.mark.parametrize("images", [True, False])
def test_every_trainable_parameter_gets_a_gradient(make_module: Build, make_batch: MakeBatch, images: bool) -> None:
    """Otherwise training would stop under DDP, also on a rank whose batch has no image."""
    module = make_module()
    module.objective(make_batch() if images else make_batch(regions=(0, 0, 0, 0)))[0].backward()
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def steps(module: MREModule, batch: MREBatch, count: int, lr: float) -> Iterable[float]:
    """Train on one batch and give the task loss of each step."""
    module.train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr)
    for _ in range(count):
        optimizer.zero_grad()
        loss, _, scalars = module.objective(batch)
        loss.backward()
        optimizer.step()
        yield float(scalars["task"].value)


def test_tiny_batch_is_learnt_by_heart_without_noise_and_regularisers(
    make_module: Build, make_batch: MakeBatch
) -> None:
    batch = make_batch(relations=[3, 0, 17, 3])
    module = make_module({"sampling": False}, beta_text=0.0, beta_image=0.0, gamma=0.0)
    assert min(steps(module, batch, 120, lr=3e-3)) < 0.01


def test_tiny_batch_is_classified_right_with_noise_and_regularisers(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch(relations=[3, 0, 17, 3])
    module = make_module({"dropout": 0.1}, beta_text=0.01, beta_image=0.01, gamma=1.0)
    for _ in steps(module, batch, 80, lr=3e-3):
        pass
    module.eval()
    module.validation_step(batch, 0)
    assert module.val_metric.compute() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}


def test_image_alone_can_decide_the_relation(make_module: Build, make_batch: MakeBatch) -> None:
    """Four rows of one text whose relation only the image tells."""
    batch = make_batch(lengths=(9,) * 4, regions=(2,) * 4, relations=[1, 2, 3, 4])
    batch = dataclasses.replace(batch, input_ids=batch.input_ids[:1].repeat(4, 1))
    module = make_module(beta_text=0.0, beta_image=0.0, gamma=0.0)
    for _ in steps(module, batch, 150, lr=3e-3):
        pass
    assert module.eval().predict_step(batch, 0)["predicted"].tolist() == [1, 2, 3, 4]
    assert batch.features is not None
    swapped = dataclasses.replace(batch, features=batch.features.flip(0), boxes=batch.boxes.flip(0))
    assert module.predict_step(swapped, 0)["predicted"].tolist() == [4, 3, 2, 1]


def test_whole_objective_runs_on_the_device_of_its_batch(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 26: a tensor made on the default device, here meta, does not mix with the batch's."""
    module, batch = make_module(), make_batch()
    with torch.device("meta"):
        loss, scores, _ = module.objective(batch)
    loss.backward()
    assert loss.device.type == scores.device.type == "cpu"


def test_two_evaluation_passes_are_equal(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 6."""
    module, batch = make_module({"dropout": 0.3}, head_dropout=0.3).eval(), make_batch()
    first, second = (module.test_step(batch, 0) for _ in range(2))
    assert torch.equal(first["scores"], second["scores"])
    assert all(float(first["scalars"][name].value) == float(value.value) for name, value in second["scalars"].items())


def test_validation_and_test_keep_separate_counts(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    """Defect 17: test rows decided which epoch was kept."""
    module = make_module().eval()
    module.validation_step(make_batch(), 0)
    assert int(module.val_metric.gold.sum()) == 4
    assert int(module.test_metric.gold.sum()) == 0
    module.test_step(make_batch(), 0)
    assert int(module.val_metric.gold.sum()) == 4
    assert module.val_metric is not module.test_metric


def test_metric_is_logged_for_all_rows_of_unequal_batches_and_reset(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    module = make_module()
    torch.nn.init.zeros_(module.head.classifier.weight)
    torch.nn.init.zeros_(module.head.classifier.bias)
    module.head.classifier.bias.data[3] = 1.0  # relation 3 for every row
    batches = [
        make_batch(relations=[3, 3, 3, 0]),
        make_batch(lengths=(9,), regions=(1,), relations=[5]),
        make_batch(lengths=(8, 8), regions=(0, 0), relations=[0, 0]),
    ]
    for _ in range(2):
        (logged,) = trainer(tmp_path).validate(module, loaders(batches), verbose=False)
        expected = {"precision": 3 / 7, "recall": 3 / 4, "f1": 6 / 11, "accuracy": 3 / 7}
        assert logged == pytest.approx({f"val/{name}": value for name, value in expected.items()})


def test_prediction_names_its_rows(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    batch = take(batch, [2, 0, 3])
    predicted = module.predict_step(batch, 0)
    assert predicted["rows"].tolist() == [2, 0, 3]
    assert predicted["scores"].shape == (3, len(RELATIONS))
    assert torch.equal(predicted["predicted"], predicted["scores"].argmax(dim=1))


def test_works_in_float64(make_module: Build, make_batch: MakeBatch) -> None:
    loss, scores, _ = make_module().double().objective(make_batch())
    assert loss.dtype == scores.dtype == torch.float64


def test_autocast_reaches_the_network_but_not_the_loss(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module({"sampling": False}).eval(), make_batch()
    plain = module.objective(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module.backbone(batch)
        loss, scores, scalars = module.objective(batch)
    assert output.text.mean.dtype == output.alignment.loss.dtype == scores.dtype == loss.dtype == torch.float32
    assert not torch.equal(loss, plain[0])  # half precision was really in use
    assert loss.item() == pytest.approx(plain[0].item(), rel=0.05)
    for name, scalar in scalars.items():
        assert math.isfinite(float(scalar.value)), name


def test_training_runs_in_mixed_precision_with_clipping(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    module = make_module()
    before = module.head.classifier.weight.detach().clone()
    trainer(tmp_path, precision="bf16-mixed", gradient_clip_val=1.0).fit(module, loaders([make_batch()]))
    assert not torch.equal(module.head.classifier.weight, before)
    assert all(p.isfinite().all() for p in module.parameters())


def saved(module: ExtractionModule, batch: MREBatch, folder: Path) -> Path:
    fitted = trainer(folder)
    fitted.fit(module, loaders([batch]))
    fitted.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def test_checkpoint_gives_the_same_scores_back(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    module, batch = make_module(), make_batch()
    path = saved(module, batch, tmp_path)
    other = make_module({"text": {"pretrained": False}})
    expected = module.eval().predict_step(batch, 0)["scores"]
    assert not torch.allclose(other.eval().predict_step(batch, 0)["scores"], expected)
    trainer(tmp_path).validate(other, loaders([batch]), ckpt_path=path, verbose=False, weights_only=True)
    torch.testing.assert_close(other.eval().predict_step(batch, 0)["scores"], expected)


def test_checkpoint_of_another_task_is_refused(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    module, batch = make_module(), make_batch()
    path = saved(module, batch, tmp_path)
    content = torch.load(path, weights_only=True)
    assert content[CHECKPOINT_TASK_KEY] == "mre"
    for task in ("mner", None):
        content[CHECKPOINT_TASK_KEY] = task
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=f"made by the task {task!r}, this configuration is for 'mre'"):
            trainer(tmp_path).validate(module, loaders([batch]), ckpt_path=path, verbose=False, weights_only=True)


def test_checkpoint_of_another_network_is_refused_by_name(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    path = saved(make_module(), make_batch(), tmp_path)
    other = make_module()
    other.head.classifier = torch.nn.Linear(2 * other.backbone.dim, 5)
    with pytest.raises(CheckpointError, match=r"2 tensors differ, for example head\.classifier\.bias \(\(23,\) there"):
        trainer(tmp_path).validate(other, loaders([make_batch()]), ckpt_path=path, verbose=False, weights_only=True)
