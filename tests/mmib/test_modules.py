"""The objective and its terms, evaluation, optimisation and checkpoints of the LightningModules.

What the tasks share runs for both where the head takes part in it, and for MRE where it does not.
"""

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
import torchcrf

from mmib.datamodules.twitter_files import repair
from mmib.information import scalars
from mmib.modules import CHECKPOINT_TASK_KEY, ExtractionModule, evidence
from mmib.nn.alignment import InfoNCEAlignment, JSDAlignment
from mmib.nn.attention import AttentionBlock
from mmib.nn.fusion import LateFusion
from mmib.nn.gaussian import Posterior
from mmib.optim import Cyclic, LinearWarmup, OptimizerSettings
from mmib.schema import (
    NO_IMAGE,
    NO_TAG,
    RELATIONS,
    TAG_IDS,
    TAGS,
    CheckpointError,
    ConfigError,
    MREBatch,
    PostBatch,
    Task,
    Window,
)

Build = Callable[..., Any]
MakeBatch = Callable[..., Any]
both_tasks = pytest.mark.parametrize("task", ["mre", "mner"])
mner = pytest.mark.parametrize("task", ["mner"])
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "You defined a `validation_step` but have no",
        r"Found \d+ module\(s\) in eval mode at the start",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    )
]


def take(batch: PostBatch, rows: list[int]) -> PostBatch:
    """Some rows of a batch of features, in this order."""
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    taken: Any = {name: value[rows] for name, value in values.items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(batch, **taken)


def add_fillers(batch: PostBatch, count: int) -> PostBatch:
    """A batch of features with fillers behind its rows, as the data modules make them: no number and no image."""
    size = len(batch)
    longer = take(batch, [*range(size), *[0] * count])
    longer.rows[size:] = -1
    longer.image_ids[size:] = NO_IMAGE
    longer.region_mask[size:] = False
    return longer


def named(module: ExtractionModule, batch: PostBatch) -> dict[str, float]:
    """The scalars of a batch."""
    return {name: float(value) for name, value in scalars(module.objective(batch).totals).items()}


def loaders(batches: list[PostBatch]) -> Any:
    """A data loader over ready batches."""
    return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def last_layer(module: ExtractionModule) -> torch.nn.Linear:
    """What turns states into logits or emissions."""
    *_, last = (part for part in module.head.modules() if isinstance(part, torch.nn.Linear))
    return last


def task_loss(module: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
    """The mean over posts that a task's loss is, by other code than the project's."""
    if isinstance(batch, MREBatch):
        return F.cross_entropy(scores, batch.relations)
    crf = torchcrf.CRF(len(TAGS), batch_first=True)
    for parameter, own, allowed in (
        (crf.start_transitions, module.crf.start, module.crf.allowed_start),
        (crf.transitions, module.crf.transition, module.crf.allowed_transition),
        (crf.end_transitions, module.crf.end, torch.ones(len(TAGS), dtype=torch.bool)),
    ):
        parameter.data = own.detach().masked_fill(~allowed, -1e4)
    return -crf(scores, batch.tags, batch.word_mask, reduction="sum") / len(batch)


def right(batch: Any) -> torch.Tensor:
    """What a model predicts that has learnt a batch: its labels, O for words that are not seen, -1 for none."""
    if isinstance(batch, MREBatch):
        return batch.relations
    return batch.tags.masked_fill(~batch.word_mask, TAG_IDS["O"]).masked_fill(batch.gold == NO_TAG, NO_TAG)


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


# What the scalars are means over.
COUNTS = ("posts", "text/positions", "image/positions", "align/anchors", "pairs/count")


@both_tasks
@pytest.mark.parametrize(("pieces", "regions", "words"), [(1, 0, 0), (0, 1, 0), (0, 0, 3), (9, 4, 5)])
def test_padding_changes_neither_loss_nor_predictions_nor_any_scalar(
    make_module: Build,
    make_batch: MakeBatch,
    append_garbage: MakeBatch,
    pieces: int,
    regions: int,
    words: int,
) -> None:
    """Defects 1, 2, 5 and 24, through the whole model, in training mode without noise."""
    module, batch = make_module({"sampling": False}, beta_text=0.3, beta_image=0.2), make_batch()
    longer = append_garbage(batch, pieces, regions, words)
    plain, other = module.train().objective(batch), module.objective(longer)
    torch.testing.assert_close(other.loss.float(), plain.loss.float())
    other_decoded = module.decode(other.scores, longer)
    for key, values in module.decode(plain.scores, batch).items():
        torch.testing.assert_close(
            other_decoded[key][:, : values.shape[1]] if values.ndim > 1 else other_decoded[key], values
        )
    expected, found = scalars(plain.totals), scalars(other.totals)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), name
    for count in COUNTS:
        assert int(other.totals[count]) == int(plain.totals[count]), count


@both_tasks
def test_loss_is_the_weighted_sum_of_its_named_terms(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module(beta_text=0.3, beta_image=0.2, gamma=0.5).eval()
    batch = make_batch()
    objective = module.objective(batch)
    output = module.backbone(batch)
    expected = {
        "task": task_loss(module, objective.scores, batch),
        "kl_text": 0.3 * output.text.kl()[batch.text_mask].mean(),
        "kl_image": 0.2 * output.image.kl()[batch.region_mask].mean(),
        "align": 0.5 * output.alignment.loss,
    }
    for name, value in expected.items():
        torch.testing.assert_close(objective.terms[name].float(), value)
    assert objective.terms.keys() == expected.keys()
    total = torch.stack(list(expected.values())).sum()
    torch.testing.assert_close(objective.loss.float(), total)


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
    objective = module.objective(batch)
    expected = task_loss(module, objective.scores, batch) + rest
    torch.testing.assert_close(objective.loss.float(), expected)


@both_tasks
def test_without_regularisers_the_loss_is_the_task_loss(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module(beta_text=0.0, beta_image=0.0, gamma=0.0), make_batch()
    objective = module.objective(batch)
    expected = task_loss(module, objective.scores, batch)
    torch.testing.assert_close(objective.loss.float(), expected)


def test_gamma_zero_freezes_the_alignment_and_nothing_else(make_module: Build) -> None:
    with_alignment, without = make_module(gamma=0.1), make_module(gamma=0.0)
    trained = {name for name, p in with_alignment.named_parameters() if p.requires_grad}
    left = {name for name, p in without.named_parameters() if p.requires_grad}
    assert trained - left == {name for name in trained if name.startswith("backbone.alignment.")} != set()


@pytest.mark.parametrize("weight", ["beta_text", "beta_image", "gamma", "free_bits"])
def test_negative_weight_is_refused_by_name(make_module: Build, weight: str) -> None:
    with pytest.raises(ConfigError, match=f"{weight} is -0.5"):
        make_module(**{weight: -0.5})


@both_tasks
def test_repeating_the_rows_of_a_batch_leaves_every_mean_as_it_is(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 16: the task loss was a sum and the others were means, so their trade-off moved with the batch size."""
    module = make_module({"alignment": JSDAlignment}, beta_text=0.3, beta_image=0.2, gamma=0.5).eval()
    batch = make_batch()
    twice = take(batch, [0, 1, 2, 3, 0, 1, 2, 3])
    torch.testing.assert_close(module.objective(twice).loss.float(), module.objective(batch).loss.float())
    assert named(module, twice) == pytest.approx(named(module, batch), rel=1e-4, abs=1e-4)


@both_tasks
@pytest.mark.parametrize("alignment", [InfoNCEAlignment, JSDAlignment])
def test_fillers_change_neither_loss_nor_gradients_nor_any_sum(
    make_module: Build, make_batch: MakeBatch, alignment: type
) -> None:
    module = make_module({"sampling": False, "alignment": alignment}, beta_text=0.3, beta_image=0.2, free_bits=0.01)
    batch = make_batch()
    results = []
    for own in (batch, add_fillers(batch, 3)):
        module.zero_grad()
        objective = module.objective(own)
        objective.loss.backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        results.append((objective, gradients))
    (plain, gradients), (filled, filled_gradients) = results
    torch.testing.assert_close(filled.scores[: len(batch)], plain.scores)
    torch.testing.assert_close(filled.totals, plain.totals, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(filled.terms, plain.terms, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(filled_gradients, gradients, rtol=1e-4, atol=1e-6)


@both_tasks
def test_fillers_change_no_score_and_no_prediction(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    first, second = make_module().eval(), make_module().eval()
    second.load_state_dict(first.state_dict())
    plain, filled = first.validation_step(batch, 0), second.validation_step(add_fillers(batch, 3), 0)
    assert filled["rows"].tolist() == [0, 1, 2, 3, -1, -1, -1]
    for key in plain.keys() - {"totals", "rows", "output"}:
        torch.testing.assert_close(filled[key][: len(batch)], plain[key], equal_nan=True)
    assert int(second.val_metric.labels) == int(first.val_metric.labels) > 0
    torch.testing.assert_close(second.val_metric.compute(), first.val_metric.compute())
    predicted = second.predict_step(add_fillers(batch, 3), 0)
    torch.testing.assert_close(predicted["predicted"][: len(batch)], first.predict_step(batch, 0)["predicted"])


@both_tasks
def test_a_window_weighs_each_term_by_its_own_count(make_module: Build, make_batch: MakeBatch) -> None:
    """Batches whose gradients are accumulated: the average of their terms is the term of all their rows."""
    module = make_module({"sampling": False}, beta_text=0.3, beta_image=0.2)
    for encoder in (module.backbone.text_posterior, module.backbone.image_posterior):
        torch.nn.init.normal_(encoder.mean.weight)  # as it starts, every position has the same KL
    whole = make_batch()
    expected = module.objective(whole).terms
    found = dict.fromkeys(("task", "kl_text", "kl_image"), 0.0)
    for rows in ([0, 1, 2], [3]):
        own = take(whole, rows)
        counts = (
            (len(b), b.text_mask.sum(), b.region_mask.sum(), b.region_mask.any(dim=1).sum()) for b in (own, whole)
        )
        window = Window(*(2 * float(part) / float(total) for part, total in zip(*counts, strict=True)))
        terms = module.objective(dataclasses.replace(own, window=window)).terms
        torch.testing.assert_close(terms["align"], window.images * module.objective(own).terms["align"])
        found = {name: value + float(terms[name].detach()) / 2 for name, value in found.items()}
    assert found == pytest.approx({name: float(expected[name].detach()) for name in found}, rel=1e-5)


def test_free_bits_take_the_pressure_off_dimensions_below_them(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    module = make_module(beta_text=1.0, beta_image=0.0, gamma=0.0).eval()
    plain = module.objective(batch)
    rate = module.backbone(batch).text.rate().detach()
    module.free_bits = rate.median().item()
    loss = module.objective(batch).loss
    task = task_loss(module, plain.scores, batch)
    expected = torch.maximum(rate, rate.median()).mean()
    torch.testing.assert_close((loss - task).float(), expected)
    assert loss > plain.loss
    module.free_bits = rate.max().item() + 1
    module.zero_grad()
    (module.objective(batch).loss - task.detach()).backward()
    # Only the task loss is left, and it does not see the log-variances in evaluation mode.
    gradient = module.backbone.text_posterior.log_var.weight.grad
    assert gradient is None or not gradient.any()


def test_kl_is_logged_in_nats_a_token_and_a_region(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    for encoder in (module.backbone.text_posterior, module.backbone.image_posterior):
        torch.nn.init.normal_(encoder.mean.weight)  # as it starts, every position has the same KL
    totals = module.objective(batch).totals
    values = scalars(totals)
    output = module.backbone(batch)
    for name, posterior, mask in (
        ("text", output.text, batch.text_mask),
        ("image", output.image, batch.region_mask),
    ):
        nats = posterior.kl().sum(dim=2)[mask]
        assert nats.std() > 0.01 * nats.mean()
        assert float(values[f"ib/kl_{name}"]) == pytest.approx(nats.mean().item(), rel=1e-5)
        assert float(values[f"ib/kl_std_{name}"]) == pytest.approx(nats.std(correction=0).item(), rel=1e-5)
        assert float(values[f"ib/std_{name}"]) == pytest.approx(math.exp(-1.5), rel=1e-5)
        assert int(totals[f"{name}/positions"]) == int(mask.sum())
    assert int(totals["posts"]) == len(batch)
    assert int(totals["align/anchors"]) == 3


@both_tasks
def test_no_logged_value_holds_a_graph(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module({"alignment": JSDAlignment})
    for objective in (module.objective(make_batch()), make_module().objective(make_batch())):
        assert objective.loss.requires_grad
        for name, total in objective.totals.items():
            assert not total.requires_grad, name
            assert total.dtype == torch.float64, name


@both_tasks
def test_batch_without_images_has_a_finite_loss_and_weights_of_zero(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module()
    objective = module.objective(make_batch(regions=(0, 0, 0, 0)))
    loss, totals = objective.loss, objective.totals
    loss.backward()
    assert loss.isfinite()
    assert int(totals["image/positions"]) == int(totals["align/anchors"]) == int(totals["pairs/count"]) == 0
    assert not [name for name in scalars(totals) if "image" in name or name.startswith("align/")]
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_evaluation_ignores_the_beta_schedule(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    module = make_module(beta_text=0.3, beta_schedule=LinearWarmup(0.5)).eval()
    assert named(module, batch)["ib/beta_text"] == pytest.approx(0.3)


class BetaLog(pl.Callback):
    """Keeps the text beta of each training step."""

    def __init__(self) -> None:
        self.betas: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.betas.append(float(scalars(outputs["totals"])["ib/beta_text"]))


def test_beta_follows_its_schedule_by_optimiser_step(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    log = BetaLog()
    module = make_module(beta_text=0.2, beta_schedule=Cyclic(cycles=2, share=1.0))
    trainer(tmp_path, max_epochs=2, callbacks=[log]).fit(module, loaders([make_batch()] * 4))
    assert log.betas == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.0, 0.05, 0.1, 0.15])


@both_tasks
def test_optimizer_has_the_settings_rates_and_warms_up_by_step(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    """Defect 10: classifier and CRF trained at the encoder's rate."""
    settings = OptimizerSettings(
        lr=1e-2, text_lr=1e-3, other_lrs={r"^(head|crf)\.": 5e-2}, warmup=0.5, weight_decay=0.1
    )
    module = make_module(optimizer=settings)
    rates: list[dict[str, float]] = []

    class RateLog(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})

    trainer(tmp_path, callbacks=[RateLog()]).fit(module, loaders([make_batch()] * 4))
    for pattern, rate in ((r"^(head|crf)\.", 5e-2), (r"^backbone\.text_encoder\.", 1e-3), (".", 1e-2)):
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


@both_tasks
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


@both_tasks
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


@both_tasks
@pytest.mark.parametrize("images", [True, False])
def test_every_trainable_parameter_gets_a_gradient(make_module: Build, make_batch: MakeBatch, images: bool) -> None:
    """Otherwise training would stop under DDP, also on a rank whose batch has no image."""
    module = make_module()
    module.objective(make_batch() if images else make_batch(regions=(0, 0, 0, 0))).loss.backward()
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@both_tasks
def test_a_batch_without_images_reaches_an_unfrozen_image_encoder_too(
    make_module: Build, make_batch: MakeBatch
) -> None:
    """Otherwise a rank whose rows have no image would wait for gradients that never come, or the others for its."""
    module = make_module({"image": {"frozen": False}})
    module.objective(make_batch(regions=(0, 0, 0, 0))).loss.backward()
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert not any(p.grad.any() for p in module.backbone.image_encoder.parameters())


def steps(module: ExtractionModule, batch: PostBatch, count: int, lr: float) -> Iterable[float]:
    """Train on one batch and give the task loss of each step."""
    module.train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr)
    for _ in range(count):
        optimizer.zero_grad()
        loss, terms, *_ = module.objective(batch)
        loss.backward()
        optimizer.step()
        yield float(terms["task"].detach())


@both_tasks
def test_tiny_batch_is_learnt_by_heart_without_noise_and_regularisers(
    make_module: Build, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    module = make_module({"sampling": False}, beta_text=0.0, beta_image=0.0, gamma=0.0)
    assert min(steps(module, batch, 160, lr=3e-3)) < 0.02


@both_tasks
def test_tiny_batch_is_predicted_right_with_noise_and_regularisers(make_module: Build, make_batch: MakeBatch) -> None:
    batch = make_batch()
    module = make_module({"dropout": 0.1}, beta_text=0.01, beta_image=0.01, gamma=1.0)
    for _ in steps(module, batch, 80, lr=3e-3):
        pass
    assert module.eval().predict_step(batch, 0)["predicted"].tolist() == right(batch).tolist()


@pytest.mark.parametrize(
    ("task", "labels"),
    [("mre", [1, 2, 3, 4]), ("mner", [["O", f"B-{kind}", f"I-{kind}"] for kind in ("PER", "LOC", "ORG", "MISC")])],
)
def test_image_alone_can_decide(make_module: Build, make_batch: MakeBatch, labels: list[Any]) -> None:
    """Four rows of one text whose relation or entity type only the image tells."""
    batch = make_batch(lengths=(9,) * 4, regions=(2,) * 4, labels=labels)
    batch = dataclasses.replace(batch, input_ids=batch.input_ids[:1].repeat(4, 1))
    module = make_module(beta_text=0.0, beta_image=0.0, gamma=0.0)
    for _ in steps(module, batch, 150, lr=3e-3):
        pass
    assert module.eval().predict_step(batch, 0)["predicted"].tolist() == right(batch).tolist()
    assert batch.features is not None
    swapped = dataclasses.replace(batch, features=batch.features.flip(0), boxes=batch.boxes.flip(0))
    assert module.predict_step(swapped, 0)["predicted"].tolist() == right(batch).flip(0).tolist()


@both_tasks
def test_mention_dropout_hides_whole_mentions_at_its_rate(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module(mention_dropout=0.3)
    mask = module.text_encoder.tokenizer.mask_id
    batch = make_batch(lengths=(30,) * 400, regions=(0,) * 400)
    hidden = module._hide_mentions(batch).input_ids == mask
    assert not hidden[batch.mentions == 0].any()
    counts = []
    for row in range(len(batch)):
        for number in set(batch.mentions[row].tolist()) - {0}:
            pieces = hidden[row, batch.mentions[row] == number]
            assert pieces.all() or not pieces.any()
            counts.append(bool(pieces.any()))
    assert sum(counts) / len(counts) == pytest.approx(0.3, abs=0.06)


@both_tasks
def test_mention_dropout_acts_in_training_alone(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module(mention_dropout=1.0, backbone={"sampling": False}), make_batch()
    mask = module.text_encoder.tokenizer.mask_id
    hidden = dataclasses.replace(batch, input_ids=batch.input_ids.masked_fill(batch.mentions > 0, mask))
    plain, masked = module.objective(batch).loss, module.objective(hidden).loss
    assert not torch.equal(plain, masked)
    assert torch.equal(module.training_step(batch, 0)["loss"], masked)
    validated = scalars(module.validation_step(batch, 0)["totals"])
    assert float(validated["loss"]) == pytest.approx(float(plain.detach()), rel=1e-12)


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_mention_dropout_that_is_no_probability_is_refused(make_module: Build, probability: float) -> None:
    with pytest.raises(ConfigError, match=f"mention_dropout is {probability}"):
        make_module(mention_dropout=probability)


@both_tasks
def test_head_dropout_acts_in_training_alone(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module({"sampling": False}, head_dropout=0.5), make_batch()
    training = [named(module.train(), batch)["loss"] for _ in range(2)]
    evaluation = [named(module.eval(), batch)["loss"] for _ in range(2)]
    assert training[0] != training[1]
    assert evaluation[0] == evaluation[1]


@both_tasks
def test_whole_objective_runs_on_the_device_of_its_batch(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 26: a tensor made on the default device, here meta, does not mix with the batch's."""
    module, batch = make_module(), make_batch()
    with torch.device("meta"):
        loss, terms, scores, totals, output, kl = module.objective(batch)
        found = evidence(output.attention, kl, batch)
        decoded = module.decode(scores, batch)
        values = scalars(totals)
    loss.backward()
    tensors = (
        *(loss, scores, *terms.values(), *decoded.values(), *totals.values(), *values.values()),
        *found.values(),
    )
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


@both_tasks
def test_two_evaluation_passes_are_equal(make_module: Build, make_batch: MakeBatch) -> None:
    """Defect 6."""
    module, batch = make_module({"dropout": 0.3}, head_dropout=0.3).eval(), make_batch()
    first, second = (module.test_step(batch, 0) for _ in range(2))
    totals, again = (step.pop("totals") for step in (first, second))
    for key in first.keys() - {"output"}:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0, equal_nan=True)
    assert totals.keys() == again.keys()
    assert all(torch.equal(totals[name], again[name]) for name in totals)


@both_tasks
def test_validation_and_test_keep_separate_counts(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    """Defect 17: test rows decided which epoch was kept."""
    module, batch = make_module().eval(), make_batch()
    labels = int((module.gold(batch) != NO_TAG).sum())
    module.validation_step(batch, 0)
    assert (int(module.val_metric.labels), int(module.test_metric.labels)) == (labels, 0)
    module.test_step(batch, 0)
    assert (int(module.val_metric.labels), int(module.test_metric.labels)) == (labels, labels)


# Batches, and their scores by hand where everything that is seen is predicted as label 3, for MNER B-LOC. There the
# posts get 2, 3 and 4 predictions (the third has two words more); the default reading finds 1, 2 and 2 gold entities,
# and strict IOB2 not the one that the third post opens with an I-.
LOGGED: dict[str, tuple[list[dict[str, Any]], dict[str, float]]] = {
    "mre": (
        [
            {"labels": [3, 3, 3, 0]},
            {"lengths": (9,), "regions": (1,), "labels": [5]},
            {"lengths": (8, 8), "regions": (0, 0), "labels": [0, 0]},
        ],
        {"precision": 3 / 7, "recall": 3 / 4, "f1": 6 / 11, "accuracy": 3 / 7},
    ),
    "mner": (
        [
            {"lengths": (9, 12), "regions": (1, 0), "labels": [["B-LOC", "O"], ["B-PER", "I-PER", "B-LOC"]]},
            {"lengths": (8,), "regions": (2,), "labels": [["I-LOC", "O", "O", "O", "O", "B-ORG"]]},
        ],
        {
            **{"precision": 3 / 9, "recall": 3 / 5, "f1": 6 / 14, "accuracy": 3 / 11},
            **{"strict_precision": 2 / 9, "strict_recall": 2 / 4, "strict_f1": 4 / 13},
            "f1_macro": (0 + 6 / 12 + 0) / 3,
        },
    ),
}


@both_tasks
def test_metric_is_logged_for_all_rows_of_unequal_batches_and_reset(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path, task: Task
) -> None:
    module = make_module()
    layer = last_layer(module)
    layer.weight.data.zero_()
    layer.bias.data = 5.0 * F.one_hot(torch.tensor(3), len(layer.bias))
    options, expected = LOGGED[task]
    batches = [make_batch(**own) for own in options]
    for _ in range(2):
        (logged,) = trainer(tmp_path).validate(module, loaders(batches), verbose=False)
        assert logged == pytest.approx({f"val/{name}": value for name, value in expected.items()})


@both_tasks
def test_prediction_names_its_rows(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    everything, some = (module.predict_step(rows, 0) for rows in (batch, take(batch, [2, 0, 3])))
    assert some["rows"].tolist() == [2, 0, 3]
    assert everything["predicted"].shape == module.gold(batch).shape
    for key, values in everything.items():
        expected = values[[2, 0, 3]]
        if key == "kl":  # of the words of a smaller batch
            expected = expected[:, : some["kl"].shape[1]]
        torch.testing.assert_close(some[key], expected, equal_nan=True)


# Evidence


@both_tasks
def test_nats_of_a_word_are_those_of_its_pieces(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    torch.nn.init.normal_(module.backbone.text_posterior.mean.weight)  # as it starts, every position has the same KL
    output = module.backbone(batch)
    found = module.predict_step(batch, 0)
    for row in range(len(batch)):
        nats = output.text.kl()[row].sum(dim=1).tolist()
        words: dict[int, float] = {}
        for piece, word in enumerate(batch.word_ids[row].tolist()):
            if word >= 0:
                words[word] = words.get(word, 0.0) + nats[piece]
        own = found["kl"][row]
        assert {word: float(own[word]) for word in words} == pytest.approx(words, rel=1e-5)
        assert int(own.isfinite().sum()) == len(words) > 1
    assert len({round(float(value), 3) for value in found["kl"][found["kl"].isfinite()]}) > len(batch)
    regions = output.image.kl().sum(dim=2)[batch.region_mask]
    torch.testing.assert_close(found["kl_image"][batch.region_mask], regions)
    assert found["kl_image"][~batch.region_mask].isnan().all()


@both_tasks
def test_attention_is_told_of_each_position_that_the_head_reads(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    attention = module.test_step(batch, 0)["attention"]
    assert attention.shape == (*batch.positions.shape, batch.region_mask.shape[1])
    there = batch.position_mask[:, :, None] & batch.region_mask[:, None, :]
    assert attention[there].isfinite().all()
    assert attention[~there].isnan().all()
    expected = (batch.position_mask & batch.region_mask.any(dim=1)[:, None]).float()
    torch.testing.assert_close(attention.nansum(dim=2), expected)


@both_tasks
def test_evidence_is_the_same_whatever_the_padding_holds(
    make_module: Build, make_batch: MakeBatch, append_garbage: MakeBatch
) -> None:
    module, batch = make_module().eval(), make_batch()
    found, padded = (module.predict_step(own, 0) for own in (batch, append_garbage(batch, 5, 3, 4)))
    for key in ("kl", "kl_image", "attention"):
        own = padded[key][tuple(slice(size) for size in found[key].shape)]
        torch.testing.assert_close(own, found[key], equal_nan=True)
        assert int(padded[key].isfinite().sum()) == int(found[key].isfinite().sum()) > 0


def test_a_fusion_that_does_not_attend_tells_no_attention(make_module: Build, make_batch: MakeBatch) -> None:
    module = make_module({"fusion": LateFusion}).eval()
    assert module.predict_step(make_batch(), 0).keys() == {"rows", "predicted", "scores", "kl", "kl_image"}


def test_training_looks_for_no_evidence(
    make_module: Build, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AttentionBlock, "weights", lambda *_: pytest.fail("weights in training"))
    monkeypatch.setattr("mmib.modules.evidence", lambda *_: pytest.fail("evidence in training"))
    assert make_module().training_step(make_batch(), 0)["loss"].isfinite()


def test_the_kl_is_computed_once_a_modality(
    make_module: Build, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Posterior] = []
    kl = Posterior.kl
    monkeypatch.setattr(Posterior, "kl", lambda posterior: computed.append(posterior) or kl(posterior))  # type: ignore[func-returns-value]
    make_module().eval().test_step(make_batch(), 0)
    assert len(computed) == 2


def test_predicted_relation_has_the_highest_logit(make_module: Build, make_batch: MakeBatch) -> None:
    predicted = make_module().eval().predict_step(make_batch(), 0)
    assert predicted["scores"].shape == (4, len(RELATIONS))
    assert torch.equal(predicted["predicted"], predicted["scores"].argmax(dim=1))


@pytest.mark.parametrize(
    ("probabilities", "expected"), [((0.6, 0.35, 0.05), 1), ((0.6, 0.2, 0.2), 0), ((0.1, 0.4, 0.5), 2)]
)
def test_a_threshold_decides_when_a_relation_is_predicted(
    make_module: Build, make_batch: MakeBatch, probabilities: tuple[float, ...], expected: int
) -> None:
    scores = torch.full((4, len(RELATIONS)), -50.0)
    scores[:, :3] = torch.tensor(probabilities).log()
    decoded = make_module(threshold=0.3).decode(scores, make_batch())
    assert decoded["predicted"].tolist() == [expected] * 4
    assert torch.equal(decoded["scores"], scores)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5])
def test_a_threshold_that_is_no_probability_is_refused(make_module: Build, threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold is {threshold}"):
        make_module(threshold=threshold)


@both_tasks
def test_works_in_float64(make_module: Build, make_batch: MakeBatch) -> None:
    objective = make_module().double().objective(make_batch())
    assert objective.loss.dtype == objective.scores.dtype == torch.float64


@both_tasks
def test_autocast_reaches_the_network_but_not_the_loss(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module({"sampling": False}).eval(), make_batch()
    plain = module.objective(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module.backbone(batch)
        loss, _, scores, totals, *_ = module.objective(batch)
    assert output.text.mean.dtype == output.alignment.loss.dtype == scores.dtype == torch.float32
    assert loss.dtype == torch.float64, "sums over ranks and batches are exact"
    assert not torch.equal(loss, plain.loss)  # half precision was really in use
    assert loss.item() == pytest.approx(plain.loss.item(), rel=0.05)
    for name, value in scalars(totals).items():
        assert value.isfinite(), name


@both_tasks
def test_training_runs_in_mixed_precision_with_clipping(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path
) -> None:
    module = make_module()
    before = last_layer(module).weight.detach().clone()
    trainer(tmp_path, precision="bf16-mixed", gradient_clip_val=1.0).fit(module, loaders([make_batch()]))
    assert not torch.equal(last_layer(module).weight, before)
    assert all(p.isfinite().all() for p in module.parameters())


def saved(module: ExtractionModule, batch: PostBatch, folder: Path) -> Path:
    fitted = trainer(folder)
    fitted.fit(module, loaders([batch]))
    fitted.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@both_tasks
def test_checkpoint_gives_the_same_scores_back(make_module: Build, make_batch: MakeBatch, tmp_path: Path) -> None:
    module, batch = make_module(), make_batch()
    path = saved(module, batch, tmp_path)
    other = make_module({"text": {"pretrained": False}})
    expected = module.eval().objective(batch).scores
    assert not torch.allclose(other.eval().objective(batch).scores, expected)
    trainer(tmp_path).validate(other, loaders([batch]), ckpt_path=path, verbose=False, weights_only=True)
    torch.testing.assert_close(other.eval().objective(batch).scores, expected)


@both_tasks
def test_checkpoint_of_another_task_is_refused(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path, task: Task
) -> None:
    module, batch = make_module(), make_batch()
    path = saved(module, batch, tmp_path)
    content = torch.load(path, weights_only=True)
    assert content[CHECKPOINT_TASK_KEY] == task
    for other in ({"mre": "mner", "mner": "mre"}[task], None):
        content[CHECKPOINT_TASK_KEY] = other
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=f"made by the task {other!r}, this configuration is for {task!r}"):
            trainer(tmp_path).validate(module, loaders([batch]), ckpt_path=path, verbose=False, weights_only=True)


@pytest.mark.parametrize(
    ("task", "example"), [("mre", r"head\.classifier\.bias \(\(23,\)"), ("mner", r"head\.1\.bias \(\(9,\)")]
)
def test_checkpoint_of_another_network_is_refused_by_name(
    make_module: Build, make_batch: MakeBatch, tmp_path: Path, example: str
) -> None:
    path = saved(make_module(), make_batch(), tmp_path)
    other = make_module()
    layer = last_layer(other)
    layer.weight, layer.bias = (torch.nn.Parameter(torch.zeros(5, *shape)) for shape in ((layer.in_features,), ()))
    with pytest.raises(CheckpointError, match=f"2 tensors differ, for example {example} there"):
        trainer(tmp_path).validate(other, loaders([make_batch()]), ckpt_path=path, verbose=False, weights_only=True)


# Tags of words


def tag_names(ids: torch.Tensor) -> list[str]:
    return [TAGS[number] for number in ids.tolist()]


@mner
@pytest.mark.parametrize("constrained", [True, False])
def test_predictions_are_valid_bio_unless_everything_is_allowed(
    make_module: Build, make_batch: MakeBatch, constrained: bool
) -> None:
    module = make_module(constrained=constrained).eval()
    torch.nn.init.normal_(last_layer(module).weight, std=5.0)
    batch = make_batch(lengths=(60, 9, 40, 25), unseen=(0, 2, 9, 1))
    predicted = [tag_names(post[post != NO_TAG]) for post in module.predict_step(batch, 0)["predicted"]]
    inner = sum(tag.startswith("I-") for tags in predicted for tag in tags)
    assert inner > 0
    assert (predicted == [repair(tags) for tags in predicted]) is constrained


@mner
def test_words_that_are_not_seen_are_predicted_o_and_padding_is_no_word(
    make_module: Build, make_batch: MakeBatch
) -> None:
    """Defect 22: what the encoder did not see vanished from gold and predictions alike."""
    module, batch = make_module().eval(), make_batch(unseen=(0, 3, 1, 0))
    last_layer(module).bias.data = 50.0 * F.one_hot(torch.tensor(TAG_IDS["B-PER"]), len(TAGS))
    step = module.test_step(batch, 0)
    unseen, padding = (batch.gold != NO_TAG) & ~batch.word_mask, batch.gold == NO_TAG
    assert int(unseen.sum()) == 4
    assert set(tag_names(step["predicted"][batch.word_mask])) == {"B-PER"}
    assert set(tag_names(step["predicted"][unseen])) == {"O"}
    assert set(step["predicted"][padding].tolist()) == {NO_TAG}
    assert not step["confidence"][~batch.word_mask].any()
    assert torch.equal(step["gold"], batch.gold)
    assert int(module.test_metric.labels) == int((~padding).sum())


@mner
def test_confidence_is_the_marginal_of_the_predicted_tag(make_module: Build, make_batch: MakeBatch) -> None:
    posts = 50
    module = make_module().eval()
    batch = make_batch(lengths=(8,) * posts, regions=(0,) * posts, labels=[["O", "O"]] * posts)
    torch.nn.init.normal_(module.crf.transition)
    scores = torch.randn(posts, 2, len(TAGS))
    decoded = module.decode(scores, batch)
    forbidden = torch.tensor([[repair([first, second]) != [first, second] for second in TAGS] for first in TAGS])
    paths = scores[:, 0, :, None] + scores[:, 1, None, :] + module.crf.transition
    joint = paths.masked_fill(forbidden, -torch.inf).flatten(1).softmax(dim=1).view_as(paths)
    best = joint.flatten(1).argmax(dim=1)
    predicted = torch.stack([best // len(TAGS), best % len(TAGS)], dim=1)
    assert torch.equal(decoded["predicted"], predicted)
    marginals = torch.stack([joint.sum(dim=2), joint.sum(dim=1)], dim=1)
    assert not torch.equal(marginals.argmax(dim=2), predicted), "the best path is not that of the best words"
    torch.testing.assert_close(decoded["confidence"], marginals.gather(2, predicted[:, :, None]).squeeze(2))


@mner
def test_training_reads_repaired_tags_and_scoring_the_files_own(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    words = batch.gold != NO_TAG
    assert not torch.equal(batch.tags[words], batch.gold[words]), "gold holds strays"
    other_gold = dataclasses.replace(batch, gold=torch.zeros_like(batch.gold).masked_fill(~words, NO_TAG))
    other_tags = dataclasses.replace(batch, tags=torch.zeros_like(batch.tags))
    loss = module.objective(batch).loss
    assert loss < 1000, "a stray in training would cost 1e30"
    assert torch.equal(module.objective(other_gold).loss, loss)
    assert not torch.equal(module.objective(other_tags).loss, loss)
    assert torch.equal(module.gold(other_gold), other_gold.gold)
    assert torch.equal(module.gold(other_tags), batch.gold)


@pytest.mark.parametrize("mixed", [True, False])
def test_on_a_cpu_mixed_precision_trains_with_plain_attention_and_evaluates_with_the_fused_one(
    make_module: Build, make_batch: MakeBatch, mixed: bool
) -> None:
    module, batch = make_module(), make_batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), torch.profiler.profile() as trained:
        module.training_step(batch, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), torch.profiler.profile() as evaluated, torch.no_grad():
        module.eval().validation_step(batch, 0)
    fused = ["flash_attention" in "".join(event.key for event in run.key_averages()) for run in (trained, evaluated)]
    assert fused == [not mixed, True]


@mner
def test_training_decodes_nothing(make_module: Build, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 26: Viterbi ran in every training step."""
    module = make_module()
    for decoder in ("viterbi", "marginals"):
        monkeypatch.setattr(module.crf, decoder, lambda *_: pytest.fail("decoded in training"))
    assert module.training_step(make_batch(), 0)["loss"].isfinite()


@mner
def test_every_tag_is_one_of_a_word(make_module: Build) -> None:
    """Defect 23: X, [CLS], [SEP] and PAD were tags too, and one that was predicted counted as an entity."""
    module = make_module()
    assert len(last_layer(module).bias) == len(module.crf.start) == len(TAGS)
    assert set(TAGS) == {"O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "LOC", "ORG", "MISC"))}
