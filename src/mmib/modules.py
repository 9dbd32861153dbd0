"""The LightningModule of every task: objective, schedules and optimisation around the task's network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from mmib.backbone import BackboneOutput, ExtractionNetwork, MultimodalIB, Regularizer
from mmib.base.lightning_internals import callbacks_of
from mmib.base.seeding import run_seed, seed_from
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import LabelSource, label_set
from mmib.information import LossTerm, Mean, MetricSums, evidence, over_ranks, pair_moments, post_means
from mmib.labels import LabelSet, difference
from mmib.metrics import ExtractionScores
from mmib.nn.compilation import compile_blocks
from mmib.nn.precision import attention_for_training
from mmib.optim import (
    Constant,
    OptimizerSettings,
    Schedule,
    keep_group_settings,
    linear_warmup_decay,
    linear_warmup_decay_by_share,
    parameter_groups,
)
from mmib.runs.checkpoints import CHECKPOINT_LABELS_KEY, CHECKPOINT_TASK_KEY, check_labels
from mmib.schema import CheckpointError, ConfigError, PostBatch, task_named
from mmib.tasks.mner import EntityNetwork
from mmib.tasks.mre import RelationNetwork


class Objective(NamedTuple):
    """What a batch comes to.

    Attributes:
        loss: scalar, of the global batch: the sum of its terms.
        terms: each term, weighted as in the loss, by name.
        scores: what the network decodes, of this rank's rows.
        sums: over the global batch, without a graph.
        output: what the backbone gives for this rank's rows.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    scores: Tensor
    sums: MetricSums
    output: BackboneOutput


class ObjectiveLogger(pl.Callback):
    """Logs what the `sums` of a step hold, the losses among it; beside one, a module logs its losses to no logger."""


class ExtractionModule(pl.LightningModule):
    """Trains and scores the network of any task.

    It logs its losses, as `train/loss`, `train/task` (with `_step` behind the name by step), `val/loss` and `val/task`,
    and its scores, as `val/f1` and the like. `mmib.callbacks.IBMonitor` logs the bottleneck and the alignment beside.

    L = L_task + beta_text * KL_t + beta_image * KL_v + gamma * L_align (DESIGN section 2), where KL is summed over
    latent dimensions and averaged over valid positions, and whatever `regularizers` add. A weight of 0 switches its
    term off; with gamma 0 the alignment's parameters are frozen too.

    Args:
        network: backbone and head of a task. Its parts become the module's own, so that checkpoints name them without
            a prefix.
        beta_text: weight of the text bottleneck: nats of the objective a post, for each nat of rate a word piece.
        beta_image: weight of the image bottleneck, for each nat of rate a region.
        gamma: weight of the alignment regulariser.
        beta_schedule: factor on both betas over training; constant by default.
        free_bits: nats a latent dimension below which its KL, averaged over the batch, is not pressed further.
        mention_dropout: probability that a gold mention, as a whole, is hidden behind mask pieces, in training only.
            Names cannot be learnt by heart then: what they are must be read from the words around and the image.
        regularizers: further terms of the objective, each named differently.
        optimizer: learning rates and schedule.
        compile: have `torch.compile` make code of its own for the layers and attention blocks, in the first steps.

    Raises:
        ConfigError: a negative weight, a dropout that is no probability, nothing to compile with, a network of another
            task than the class, or a network with parameters that belong to none of its parts.

    Attributes:
        task: name of the network's task; a subclass for one task says so before it is built.
        network: as it was given; its parts are the module's.
    """

    task: str
    network: ExtractionNetwork

    def __init__(
        self,
        network: ExtractionNetwork,
        beta_text: float = 1e-3,
        beta_image: float = 1e-3,
        gamma: float = 1.0,
        beta_schedule: Schedule | None = None,
        free_bits: float = 0.0,
        mention_dropout: float = 0.0,
        regularizers: list[Regularizer] | None = None,
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
        self.backbone: MultimodalIB
        self._adopt(network)
        self.beta_text = beta_text
        self.beta_image = beta_image
        self.gamma = gamma
        self.beta_schedule = beta_schedule or Constant()
        self.free_bits = free_bits
        self.mention_dropout = mention_dropout
        self.regularizers = nn.ModuleList(regularizers or [])
        self.optimizer = optimizer or OptimizerSettings()
        self.loss_terms: dict[str, Tensor] = {}
        self.val_metric = task_named(self.task).metric(self.labels)
        self.test_metric = task_named(self.task).metric(self.labels)
        if gamma == 0:
            self.backbone.alignment.requires_grad_(False)
        if compile:
            compile_blocks(self.backbone, self.backbone.text_encoder.layers())

    def _adopt(self, network: ExtractionNetwork) -> None:
        """Make the network's parts the module's own; itself it stays outside, or every name would have a prefix."""
        direct = [name for name, _ in (*network.named_parameters(recurse=False), *network.named_buffers(recurse=False))]
        if direct:
            raise ConfigError(
                f"{type(network).__name__} holds {', '.join(direct)} itself: put parameters and buffers into a module "
                "of the network, such as its head"
            )
        declared = getattr(type(self), "task", network.task)
        if declared != network.task:
            raise ConfigError(
                f"{type(self).__name__} is for the task {declared!r} and its {type(network).__name__} for "
                f"{network.task!r}: give both the same `task`"
            )
        self.task = network.task
        self.__dict__["network"] = network
        for name, part in network.named_children():
            self.add_module(name, part)

    @property
    def labels(self) -> LabelSet:
        """What is predicted."""
        return self.network.labels

    def train(self, mode: bool = True) -> Self:
        """The network's own flag follows, although it is no part of the module."""
        self.network.training = mode
        return super().train(mode)

    @property
    def text_encoder(self) -> torch.nn.Module:
        """The backbone's text encoder; the data module takes its tokenizer from here."""
        return self.backbone.text_encoder

    @property
    def image_encoder(self) -> torch.nn.Module:
        """The backbone's image encoder; the data module computes cached features with it."""
        return self.backbone.image_encoder

    def objective(self, batch: PostBatch) -> Objective:
        """The loss of the global batch, this rank's scores, and everything worth logging.

        Under DDP every rank computes the same loss; see `mmib.base.distributed` for its gradients.
        """
        network, valid = self.network, batch.valid
        output = self.backbone(batch)
        scores = network.scores(output.states)
        losses = network.loss(scores, batch)
        task = LossTerm(name="task", sum=losses.masked_fill(~valid, 0.0).sum(), count=valid.sum(), logged_as="task")
        regularizers = [regularizer(output, batch) for regularizer in self.regularizers]
        terms = _named_once([task, *output.loss_terms(valid, self.free_bits), *regularizers])
        weights = self._weights()
        terms = [replace(term, weight=weights.get(term.name, term.weight)) for term in terms]
        fusion = {f"fusion/{name}": post_means(value, valid) for name, value in output.fusion_scalars.items()}
        sums = over_ranks(
            MetricSums(
                posts=valid.sum(),
                terms={term.name: Mean(term.sum, term.count) for term in terms},
                scalars={name: mean for term in terms for name, mean in term.scalars.items()} | fusion,
                moments=output.moments(valid),
                pairs=pair_moments(output.text_latents, output.image_latents, valid),
                labels=network.label_counts(batch),
                logged_as={term.name: term.log_name for term in terms},
            )
        )
        weighted = {term.name: term.value(sums.terms[term.name], batch.window) for term in terms}
        loss = torch.stack(list(weighted.values())).sum()
        sums.scalars["loss"] = Mean(loss * sums.posts, sums.posts)
        for modality, moments in sums.moments.items():
            posts = sums.posts * (moments.positions > 0)  # a batch without any image has no say in the image's
            sums.scalars[f"ib/beta_{modality}"] = Mean(weights[f"kl_{modality}"] * posts, posts)
        return Objective(loss, weighted, scores, sums.detached(), output)

    def _weights(self) -> dict[str, float]:
        """Of the terms that the method has, at this step."""
        factor = self.beta_schedule(self._progress())
        return {"kl_text": factor * self.beta_text, "kl_image": factor * self.beta_image, "align": self.gamma}

    def setup(self, stage: str) -> None:
        """Lightning's hook: what is trained on must be what the head is for."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PostDataModule):
            self.check_data(data)

    def check_data(self, data: PostDataModule) -> None:
        """Refuse a data module of another task or label set.

        Raises:
            ConfigError: with both shown.
        """
        if data.task.name != self.task:
            raise ConfigError(
                f"{type(self).__name__} is a model of the task {self.task!r}, and {type(data).__name__} gives data of "
                f"{data.task.name!r}: choose both for one task"
            )
        if differing := difference(self.labels, data.labels):
            raise ConfigError(f"the model has other labels than its data, {differing}: give both the same")

    def on_fit_start(self) -> None:
        """The number of steps is asked for once: it builds the data loaders."""
        self._total_steps = self.trainer.estimated_stepping_batches

    def on_train_batch_start(self, batch: PostBatch, batch_index: int) -> None:
        """Noise and dropout differ between ranks and steps, and depend on nothing that would have to be saved."""
        torch.manual_seed(seed_from(run_seed(), self.global_rank, self.trainer.fit_loop.total_batch_idx))

    def training_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Lightning's hook; `sums` go to the callbacks, and `loss_terms` stay until the backward pass is done."""
        with attention_for_training(self.device):
            objective = self.objective(self._hide_mentions(batch))
        self.loss_terms = objective.terms
        self._log_losses("train", objective.sums)
        return {"loss": objective.loss, "sums": objective.sums}

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
        decoded = self.network.decode(self.network.scores(output.states), batch)
        return {"rows": batch.rows, **decoded, **self._evidence(output, batch)}

    def on_validation_epoch_end(self) -> None:
        """Log `val/f1` and the like."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/f1` and the like."""
        self._log_metric("test")

    def _evaluate(self, batch: PostBatch, split: str) -> dict[str, Any]:
        objective = self.objective(batch)
        decoded, gold = self.network.decode(objective.scores, batch), self.network.gold(batch)
        valid = batch.valid
        if split == "val":
            self._log_losses(split, objective.sums)
        self._metric(split).update(decoded["predicted"][valid], gold[valid])
        found = self._evidence(objective.output, batch)
        known = {"sums": objective.sums, "output": objective.output}
        return {"rows": batch.rows, "gold": gold, **decoded, **found, **known}

    def _evidence(self, output: BackboneOutput, batch: PostBatch) -> dict[str, Tensor]:
        similarity = self.backbone.alignment.similarity(output.text_latents, output.image_latents)
        return evidence(output.attention, output.kl, similarity, batch)

    def _hide_mentions(self, batch: PostBatch) -> PostBatch:
        """The batch with `mention_dropout` of its gold mentions behind mask pieces."""
        if not self.mention_dropout:
            return batch
        # A row has fewer mentions than word pieces: a sample for each piece is enough.
        dropped = torch.rand(batch.mentions.shape, device=batch.mentions.device) < self.mention_dropout
        hidden = dropped.gather(1, batch.mentions) & (batch.mentions > 0)
        masked = batch.input_ids.masked_fill(hidden, self.backbone.text_encoder.tokenizer.mask_id)
        return replace(batch, input_ids=masked)

    def _log_losses(self, split: str, sums: MetricSums) -> None:
        """Show the objective, and log it with its task term where no callback logs all that the sums hold."""
        if self._trainer is None:
            return
        if split == "train":
            self.log("loss", sums.scalars["loss"].value.float(), prog_bar=True, logger=False)
        if any(isinstance(callback, ObjectiveLogger) for callback in callbacks_of(self.trainer)):
            return
        means = {"loss": sums.scalars["loss"], "task": sums.terms["task"]}
        losses = {f"{split}/{name}": mean.value.float() for name, mean in means.items()}
        # The same on every rank: nothing is left to synchronise.
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=int(sums.posts))
        if split == "train":
            self.log_dict({f"{name}_step": loss for name, loss in losses.items()}, on_step=True, on_epoch=False)

    def _log_metric(self, split: str) -> None:
        metric = self._metric(split)
        for name, value in metric.compute().items():
            # Bars have a line, and the loss is on it too.
            self.log(f"{split}/{name}", value, prog_bar=name == "f1")
        metric.reset()

    def _metric(self, split: str) -> ExtractionScores:
        return self.test_metric if split == "test" else self.val_metric

    def _progress(self) -> float:
        """Share of all optimiser steps that are done, or of the time where only that ends training; 1 outside of it."""
        if not self.training or self._trainer is None:
            return 1.0
        if math.isinf(self._total_steps):
            return self._share_of_time()
        return min(1.0, self.global_step / max(1, self._total_steps))

    def _share_of_time(self) -> float:
        """Share of the trainer's `max_time` that has passed, by the clock of the first rank; 0 without such an end."""
        share = 0.0
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
                share = callback.time_elapsed() / max(callback.time_elapsed() + remaining, 1e-9)
        return min(1.0, self.trainer.strategy.broadcast(share))

    def configure_optimizers(self) -> Any:
        """AdamW over total parameter groups, with the linear schedule by step."""
        # The fused step is several times faster; it cannot undo the loss scaling of float16 before clipping.
        optimizer = torch.optim.AdamW(self.parameter_groups(), fused=self.trainer.precision != "16-mixed")
        keep_group_settings(optimizer)
        steps, warmup = self.trainer.estimated_stepping_batches, self.optimizer.warmup
        if math.isinf(steps):
            scheduler = linear_warmup_decay_by_share(optimizer, self._share_of_time, warmup)
        else:
            scheduler = linear_warmup_decay(optimizer, int(steps), warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, with its learning rates and decay.

        Raises:
            ConfigError: a pattern of `optimizer` that matches nothing, or another mistake in it.
        """
        settings = self.optimizer
        rates = dict(settings.other_lrs)
        rates[r"^backbone\.text_encoder\."] = settings.text_lr
        # An encoder of side texts may have no weights but the text encoder's.
        if any(True for _ in self.backbone.image_encoder.parameters()):
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
        """Name task and labels, so that a checkpoint of others is recognised."""
        checkpoint[CHECKPOINT_TASK_KEY] = self.task
        checkpoint[CHECKPOINT_LABELS_KEY] = self.labels.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task, label set or network."""
        found = checkpoint.get(CHECKPOINT_TASK_KEY)
        if found != self.task:
            raise CheckpointError(
                f"the checkpoint was made by the task {found!r}, this configuration is for {self.task!r}: "
                "give the configuration that lies beside the checkpoint"
            )
        check_labels(checkpoint, self.labels, "the checkpoint")
        ours = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        if ours != theirs:
            differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            raise CheckpointError(
                f"the checkpoint holds another network than this configuration: {len(differing)} tensors differ, "
                f"for example {differing[0]} ({theirs.get(differing[0])} there, {ours.get(differing[0])} here): "
                "give the config.yaml in the run folder of the checkpoint"
            )
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if CHECKPOINT_LABELS_KEY not in checkpoint:
            raise CheckpointError(
                "the checkpoint was made by version 0.1, whose runs are not resumed by this version: score it with "
                "mmib test, or start a new run"
            )
        groups = checkpoint["optimizer_states"][0]["param_groups"]
        if not all("name" in group for group in groups):  # those of another optimiser, which looks itself
            return
        trained, trainable = _group_sizes(groups), _group_sizes(self.parameter_groups())
        if trained != trainable:
            raise CheckpointError(
                f"the checkpoint trained {_described(trained)}, and this configuration trains "
                f"{_described(trainable)}: a run is resumed with the layers, and the patterns of optimizer.other_lrs, "
                "that it began with; the rates themselves may change"
            )


def _group_sizes(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Tensors in each of an optimiser's groups, by its name."""
    return {group["name"]: len(group["params"]) for group in groups}


def _described(sizes: dict[str, int]) -> str:
    groups = ", ".join(f"{name}: {count}" for name, count in sizes.items())
    return f"{sum(sizes.values())} tensors ({groups})"


def _named_once(terms: list[LossTerm]) -> list[LossTerm]:
    """The terms, where each has a name of its own.

    Raises:
        ConfigError: two have the same.
    """
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two terms of the objective are named {name!r}: have the regularizer give its term another name"
            )
    return terms


class MREModule(ExtractionModule):
    """Relation extraction between two marked entities.

    Args:
        backbone: the shared network.
        labels: the relations, as `mmib.datamodules.labels.label_set` takes them. On the command line they are the
            data module's.
        head_dropout: dropout on the states that the classifier reads.
        threshold: predict the likeliest relation where its probability is above this, else the negative class. The
            rule that is best for F1 has half of the F1 it attains as its threshold (Lipton et al. 2014, theorem 1).
            Without a threshold the likeliest class is predicted, the negative one among them, which is best for
            accuracy.
        beta_text, beta_image, gamma, beta_schedule, free_bits, mention_dropout, regularizers, optimizer, compile: see
            `ExtractionModule`.

    Raises:
        ConfigError: see `ExtractionModule`; a threshold outside (0, 1), or without a negative class.
    """

    task = "mre"

    def __init__(
        self,
        backbone: MultimodalIB,
        labels: LabelSource = "mnre",
        head_dropout: float = 0.1,
        threshold: float | None = None,
        beta_text: float = 1e-3,
        beta_image: float = 1e-3,
        gamma: float = 1.0,
        beta_schedule: Schedule | None = None,
        free_bits: float = 0.0,
        mention_dropout: float = 0.0,
        regularizers: list[Regularizer] | None = None,
        optimizer: OptimizerSettings | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            RelationNetwork(backbone, label_set(labels), threshold, head_dropout),
            beta_text=beta_text,
            beta_image=beta_image,
            gamma=gamma,
            beta_schedule=beta_schedule,
            free_bits=free_bits,
            mention_dropout=mention_dropout,
            regularizers=regularizers,
            optimizer=optimizer,
            compile=compile,
        )


class MNERModule(ExtractionModule):
    """Named entity recognition: a tag for each word of a post.

    Args:
        backbone: the shared network.
        labels: the entity types, as `mmib.datamodules.labels.label_set` takes them. On the command line they are the
            data module's.
        head_dropout: dropout on the states that the emissions are computed from.
        constrained: make tag sequences that BIO forbids impossible.
        beta_text, beta_image, gamma, beta_schedule, free_bits, mention_dropout, regularizers, optimizer, compile: see
            `ExtractionModule`.

    Raises:
        ConfigError: see `ExtractionModule`.
    """

    task = "mner"

    def __init__(
        self,
        backbone: MultimodalIB,
        labels: LabelSource = "twitter",
        head_dropout: float = 0.1,
        constrained: bool = True,
        beta_text: float = 1e-3,
        beta_image: float = 1e-3,
        gamma: float = 1.0,
        beta_schedule: Schedule | None = None,
        free_bits: float = 0.0,
        mention_dropout: float = 0.0,
        regularizers: list[Regularizer] | None = None,
        optimizer: OptimizerSettings | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            EntityNetwork(backbone, label_set(labels), constrained, head_dropout),
            beta_text=beta_text,
            beta_image=beta_image,
            gamma=gamma,
            beta_schedule=beta_schedule,
            free_bits=free_bits,
            mention_dropout=mention_dropout,
            regularizers=regularizers,
            optimizer=optimizer,
            compile=compile,
        )
