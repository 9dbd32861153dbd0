"""LightningModules: the shared objective and optimisation, and one class a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from mmib.backbone import BackboneOutput, MultimodalIB
from mmib.base.distributed import global_sums
from mmib.base.seeding import run_seed, seed_from
from mmib.information import Totals, alignment_sums, pair_sums, posterior_sums, rate
from mmib.metrics import METRICS, ExtractionScores
from mmib.network import entity_head, evidence, relation_head
from mmib.nn.compilation import compile_blocks
from mmib.nn.precision import at_least_float32, attention_for_training, autocast_off
from mmib.nn.relation import likeliest_relation
from mmib.optim import Constant, OptimizerSettings, Schedule, linear_warmup_decay, parameter_groups
from mmib.runs.checkpoints import CHECKPOINT_TASK_KEY
from mmib.schema import (
    NO_RELATION,
    NO_TAG,
    RELATION_IDS,
    RELATIONS,
    CheckpointError,
    ConfigError,
    MNERBatch,
    MREBatch,
    PostBatch,
    Task,
)


class Objective(NamedTuple):
    """What a batch comes to.

    Attributes:
        loss: scalar, of the global batch: the sum of its terms.
        terms: `task`, `kl_text`, `kl_image` and `align`, weighted as in the loss.
        scores: what `decode` reads, of this rank's rows.
        totals: sums over the global batch, without a graph.
        output: what the backbone told of this rank's rows.
        kl: the KL of its posteriors by modality, (B, T, D) nats.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    scores: Tensor
    totals: Totals
    output: BackboneOutput
    kl: dict[str, Tensor]


class ExtractionModule(pl.LightningModule, ABC):
    """Objective, schedules and optimiser that both tasks share.

    L = L_task + beta_text * KL_t + beta_image * KL_v + gamma * L_align (DESIGN section 2), where KL is averaged over
    valid positions and latent dimensions. A weight of 0 switches its term off; with gamma 0 the alignment's
    parameters are frozen too.

    Args:
        backbone: the shared network.
        beta_text: weight of the text bottleneck.
        beta_image: weight of the image bottleneck.
        gamma: weight of the alignment regulariser.
        beta_schedule: factor on both betas over training; constant by default.
        free_bits: nats a latent dimension below which its KL, averaged over the batch, is not pressed further.
        mention_dropout: probability that a gold mention, as a whole, is hidden behind mask pieces, in training only.
            Names cannot be learnt by heart then: what they are must be read from the words around and the image.
        optimizer: learning rates and schedule.
        compile: have `torch.compile` make code of its own for the layers and attention blocks, in the first steps.

    Raises:
        ConfigError: a negative weight, a dropout that is no probability, or nothing to compile with.
    """

    task: ClassVar[Task]

    def __init__(
        self,
        backbone: MultimodalIB,
        beta_text: float = 0.01,
        beta_image: float = 0.01,
        gamma: float = 1.0,
        beta_schedule: Schedule | None = None,
        free_bits: float = 0.0,
        mention_dropout: float = 0.0,
        optimizer: OptimizerSettings | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        weights = {"beta_text": beta_text, "beta_image": beta_image, "gamma": gamma, "free_bits": free_bits}
        for name, value in weights.items():
            if value < 0:
                raise ConfigError(f"{name} is {value}: the weight of a loss term cannot be negative")
        if not 0 <= mention_dropout <= 1:
            raise ConfigError(f"mention_dropout is {mention_dropout}: it is a probability, from 0 to 1")
        self.backbone = backbone
        self.beta_text = beta_text
        self.beta_image = beta_image
        self.gamma = gamma
        self.beta_schedule = beta_schedule or Constant()
        self.free_bits = free_bits
        self.mention_dropout = mention_dropout
        self.optimizer = optimizer or OptimizerSettings()
        self.loss_terms: dict[str, Tensor] = {}
        self.val_metric = METRICS[self.task]()
        self.test_metric = METRICS[self.task]()
        if gamma == 0:
            backbone.alignment.requires_grad_(False)
        if compile:
            compile_blocks(backbone, backbone.text_encoder.layers())

    @property
    def text_encoder(self) -> torch.nn.Module:
        """The backbone's text encoder; the data module takes its tokenizer from here."""
        return self.backbone.text_encoder

    @property
    def image_encoder(self) -> torch.nn.Module:
        """The backbone's image encoder; the data module computes cached features with it."""
        return self.backbone.image_encoder

    @abstractmethod
    def task_loss(self, output: BackboneOutput, batch: Any) -> tuple[Tensor, Tensor]:
        """Task loss of each post, (B,), and the scores (B, ...) that `decode` reads."""

    @abstractmethod
    def decode(self, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """`predicted` in the form of `gold`'s, and what else is known of each row's prediction, (B, ...) each."""

    @abstractmethod
    def gold(self, batch: Any) -> Tensor:
        """Gold values."""

    def label_sums(self, batch: Any) -> Totals:
        """How many counted posts have each label, as `labels`; nothing where a post has many labels."""
        return {}

    def objective(self, batch: PostBatch) -> Objective:
        """The loss of the global batch, this rank's scores, and everything worth logging.

        Under DDP every rank computes the same loss; see `mmib.base.distributed` for its gradients.
        """
        output = self.backbone(batch)
        losses, scores = self.task_loss(output, batch)
        counted, kl = batch.counted, output.kl()
        totals = global_sums(
            {
                "posts": counted.sum(),
                "task": losses.masked_fill(~counted, 0.0).sum(),
                **posterior_sums("text", output.text, kl["text"], counted),
                **posterior_sums("image", output.image, kl["image"], counted),
                **pair_sums(output.text_latents, output.image_latents, counted),
                **alignment_sums(output.alignment),
                **self.label_sums(batch),
            }
        )
        window, factor = batch.window, self.beta_schedule(self._progress())
        betas = {"text": factor * self.beta_text, "image": factor * self.beta_image}
        terms = {
            "task": window.posts * totals["task"] / totals["posts"],
            "kl_text": window.tokens * betas["text"] * self._free(rate(totals, "text")),
            "kl_image": window.regions * betas["image"] * self._free(rate(totals, "image")),
            "align": window.images * self.gamma * totals["align/loss"] / totals["align/anchors"].clamp(min=1),
        }
        loss = torch.stack(list(terms.values())).sum()
        totals["loss"] = loss * totals["posts"]
        totals |= {f"{modality}/beta": beta * totals["posts"] for modality, beta in betas.items()}
        totals = {name: total.detach() for name, total in totals.items()}
        return Objective(loss, terms, scores, totals, output, kl)

    def _free(self, nats: Tensor) -> Tensor:
        """Nats of each latent dimension, (D,), averaged with free bits."""
        return nats.clamp(min=self.free_bits).mean()

    def on_fit_start(self) -> None:
        """The number of steps is asked for once: it builds the data loaders."""
        self._total_steps = int(self.trainer.estimated_stepping_batches)

    def on_train_batch_start(self, batch: PostBatch, batch_index: int) -> None:
        """Noise and dropout differ between ranks and steps, and depend on nothing that would have to be saved."""
        torch.manual_seed(seed_from(run_seed(), self.global_rank, self.trainer.fit_loop.total_batch_idx))

    def training_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Lightning's hook; `totals` go to the callbacks, and `loss_terms` stay until the backward pass is done."""
        with attention_for_training(self.device):
            objective = self.objective(self._hide_mentions(batch))
        self.loss_terms = objective.terms
        return {"loss": objective.loss, "totals": objective.totals}

    def on_after_backward(self) -> None:
        """Let go of the graph."""
        self.loss_terms = {}

    def validation_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Lightning's hook."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Lightning's hook."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: PostBatch, batch_index: int) -> dict[str, Tensor]:
        """Rows, predictions, scores and evidence of a batch."""
        output = self.backbone(batch)
        _, scores = self.task_loss(output, batch)
        return {"rows": batch.rows, **self.decode(scores, batch), **evidence(output.attention, output.kl(), batch)}

    def on_validation_epoch_end(self) -> None:
        """Log `val/f1` and the like."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/f1` and the like."""
        self._log_metric("test")

    def _evaluate(self, batch: PostBatch, split: str) -> dict[str, Any]:
        objective = self.objective(batch)
        decoded, gold = self.decode(objective.scores, batch), self.gold(batch)
        counted = batch.counted
        self._metric(split).update(decoded["predicted"][counted], gold[counted])
        found = evidence(objective.output.attention, objective.kl, batch)
        known = {"totals": objective.totals, "output": objective.output}
        return {"rows": batch.rows, "gold": gold, **decoded, **found, **known}

    def _hide_mentions(self, batch: PostBatch) -> PostBatch:
        """The batch with `mention_dropout` of its gold mentions behind mask pieces."""
        if not self.mention_dropout:
            return batch
        # A row has fewer mentions than word pieces: a draw for each piece is enough.
        drawn = torch.rand(batch.mentions.shape, device=batch.mentions.device) < self.mention_dropout
        hidden = drawn.gather(1, batch.mentions) & (batch.mentions > 0)
        masked = batch.input_ids.masked_fill(hidden, self.backbone.text_encoder.tokenizer.mask_id)
        return replace(batch, input_ids=masked)

    def _log_metric(self, split: str) -> None:
        metric = self._metric(split)
        self.log_dict({f"{split}/{name}": value for name, value in metric.compute().items()}, prog_bar=True)
        metric.reset()

    def _metric(self, split: str) -> ExtractionScores:
        return self.test_metric if split == "test" else self.val_metric

    def _progress(self) -> float:
        """Share of all optimiser steps that are done; 1 outside of fitting."""
        if not self.training or self._trainer is None:
            return 1.0
        return min(1.0, self.global_step / max(1, self._total_steps))

    def configure_optimizers(self) -> Any:
        """AdamW over total parameter groups, with the linear schedule by step."""
        # The fused step is several times faster; it cannot undo the loss scaling of float16 before clipping.
        optimizer = torch.optim.AdamW(self.parameter_groups(), fused=self.trainer.precision != "16-mixed")
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = linear_warmup_decay(optimizer, steps, self.optimizer.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, with its learning rates and decay.

        Raises:
            ConfigError: a pattern of `optimizer` that matches nothing, or another mistake in it.
        """
        settings = self.optimizer
        rates = dict(settings.other_lrs)
        rates[r"^backbone\.text_encoder\."] = settings.text_lr
        rates[r"^backbone\.image_encoder\."] = settings.image_lr
        rates["."] = settings.lr
        return parameter_groups(self.named_parameters(), rates, settings.weight_decay)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as asked; Lightning refuses to beside a fused optimiser, also where no scaling stands in the way."""
        if self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the task, so that a checkpoint of the other one is recognised."""
        checkpoint[CHECKPOINT_TASK_KEY] = self.task

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task or network."""
        found = checkpoint.get(CHECKPOINT_TASK_KEY)
        if found != self.task:
            raise CheckpointError(
                f"the checkpoint was made by the task {found!r}, this configuration is for {self.task!r}: "
                "give the configuration that lies beside the checkpoint"
            )
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        if own != theirs:
            differing = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
            raise CheckpointError(
                f"the checkpoint holds another network than this configuration: {len(differing)} tensors differ, "
                f"for example {differing[0]} ({theirs.get(differing[0])} there, {own.get(differing[0])} here): "
                "give the config.yaml that lies in the run folder of the checkpoint"
            )
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        trained = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
        trainable = [len(group["params"]) for group in self.parameter_groups()]
        if trained != trainable:
            raise CheckpointError(
                f"the checkpoint trained {sum(trained)} tensors, in groups of {trained}, and this configuration trains "
                f"{sum(trainable)}, in groups of {trainable}: a run goes on with the layers and learning rates that it "
                "began with"
            )


class MREModule(ExtractionModule):
    """Relation extraction between two marked entities.

    Args:
        backbone: see `ExtractionModule`.
        head_dropout: dropout on the states that the classifier reads.
        threshold: predict the likeliest relation where its probability is above this, else None. The rule that is
            best for F1 has half of the F1 it attains as its threshold (Lipton et al. 2014, theorem 1). Without a
            threshold the likeliest class is predicted, None among them, which is best for accuracy.
        objective: the other arguments of `ExtractionModule`.

    Raises:
        ConfigError: a threshold outside (0, 1).
    """

    task: ClassVar[Task] = "mre"

    def __init__(
        self, backbone: MultimodalIB, head_dropout: float = 0.1, threshold: float | None = None, **objective: Any
    ) -> None:
        super().__init__(backbone, **objective)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"threshold is {threshold}: it is a probability between 0 and 1")
        self.threshold = threshold
        self.head = relation_head(backbone.dim, head_dropout)

    def task_loss(self, output: BackboneOutput, batch: MREBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the relations, (B,), and logits (B, C)."""
        logits = at_least_float32(self.head(output.states))
        with autocast_off(logits):
            return F.cross_entropy(logits, batch.relations, reduction="none"), logits

    def decode(self, scores: Tensor, batch: MREBatch) -> dict[str, Tensor]:
        """`predicted` (B,) class ids and `scores` (B, C) logits."""
        return {"predicted": likeliest_relation(scores, RELATION_IDS[NO_RELATION], self.threshold), "scores": scores}

    def gold(self, batch: MREBatch) -> Tensor:
        """(B,) class ids."""
        return batch.relations

    def label_sums(self, batch: MREBatch) -> Totals:
        """(C,) counted posts of each relation."""
        labels = F.one_hot(batch.relations, len(RELATIONS))
        return {"labels": labels.masked_fill(~batch.counted[:, None], 0).sum(dim=0)}


class MNERModule(ExtractionModule):
    """Named entity recognition: a tag for each word of a post.

    Args:
        backbone: see `ExtractionModule`.
        head_dropout: dropout on the states that the emissions are computed from.
        constrained: make tag sequences that BIO forbids impossible.
        objective: the other arguments of `ExtractionModule`.
    """

    task: ClassVar[Task] = "mner"

    def __init__(
        self, backbone: MultimodalIB, head_dropout: float = 0.1, constrained: bool = True, **objective: Any
    ) -> None:
        super().__init__(backbone, **objective)
        self.head, self.crf = entity_head(backbone.dim, head_dropout, constrained)

    def task_loss(self, output: BackboneOutput, batch: MNERBatch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of the repaired tags, (B,), summed over words, and emissions (B, W, K)."""
        emissions = at_least_float32(self.head(output.states))
        return self.crf(emissions, batch.tags, batch.word_mask), emissions

    def decode(self, scores: Tensor, batch: MNERBatch) -> dict[str, Tensor]:
        """`predicted` (B, W) tag ids, O for words that the encoder does not see, -1 where padded; `confidence` (B, W).

        The confidence of a word is the marginal probability of its predicted tag; 0 where nothing was seen.
        """
        best = self.crf.viterbi(scores, batch.word_mask)
        marginals = self.crf.marginals(scores, batch.word_mask)
        confidence = marginals.gather(2, best[:, :, None]).squeeze(2)
        return {"predicted": best.masked_fill(batch.gold == NO_TAG, NO_TAG), "confidence": confidence}

    def gold(self, batch: MNERBatch) -> Tensor:
        """(B, W) the file's own tag ids, -1 where padded."""
        return batch.gold
