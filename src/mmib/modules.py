"""The LightningModule of all tasks: objective, schedules and optimisation of a task's network."""

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
from mmib.encoders.pixels_and_texts import reads_alike
from mmib.information import LossTerm, Mean, MetricSums, evidence, over_ranks, pair_moments, post_means
from mmib.labels import LabelSet, difference, shown
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
    """The objective of a batch, with everything that it was computed from.

    Attributes:
        loss: scalar loss of the global batch, the sum of its terms.
        terms: the terms by name, weighted as in the loss.
        scores: the network's scores for this rank's rows, before decoding.
        sums: metric sums over the global batch, detached from the graph.
        output: the backbone's output for this rank's rows.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    scores: Tensor
    sums: MetricSums
    output: BackboneOutput


class ObjectiveLogger(pl.Callback):
    """Base of callbacks that log the `sums` of a step, losses included; with one, a module does not log its losses."""


class ExtractionModule(pl.LightningModule):
    """Trains and evaluates the network of any task.

    The objective is L = L_task + beta_text * KL_t + beta_image * KL_v + gamma * L_align (DESIGN section 2), plus the
    terms of `regularizers`. KL is summed over latent dimensions and averaged over valid positions. A weight of 0
    switches its term off; with gamma 0 the alignment's parameters are also frozen.

    The module logs its losses as `train/loss`, `train/task` (by step with the suffix `_step`), `val/loss` and
    `val/task`, and its scores as `val/f1` etc. `mmib.callbacks.IBMonitor` also logs the bottleneck and the alignment.

    Args:
        network: backbone and head of a task. Its parts become submodules of this module, so that checkpoints name them
            without a prefix.
        beta_text: weight of the text bottleneck: nats of the objective per post for each nat of rate per word piece.
        beta_image: weight of the image bottleneck: the same for each nat of rate per region.
        gamma: weight of the alignment regulariser.
        beta_schedule: factor on both betas over the course of training; constant by default.
        free_bits: KL per latent dimension, in nats and averaged over the batch, below which it is not penalised.
        mention_dropout: probability of replacing all word pieces of a gold mention by mask pieces, in training only.
            The model then cannot memorise names and has to rely on the context and the image.
        regularizers: further terms of the objective, with distinct names.
        optimizer: learning rates and schedule.
        compile: compile the layers and attention blocks with `torch.compile`, in the first steps.

    Raises:
        ConfigError: If a weight is negative, a dropout is no probability, the compiler is missing, the network is of
            another task than the class, or the network has parameters outside its submodules.

    Attributes:
        task: name of the network's task; a subclass for a single task sets it as a class attribute.
        network: the network passed in; it shares its parts with the module.
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
            raise ConfigError(f"mention_dropout is {mention_dropout}: it must be a probability, from 0 to 1")
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
        """Register the network's parts as submodules, but not the network, which would prefix every parameter name."""
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
        """The label set of the predictions."""
        return self.network.labels

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, also of the network, which is not a submodule."""
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
        """Compute the loss of the global batch, this rank's scores, and all metric sums.

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
        # Divided, so that the sum over the batches of a step gives the step's objective.
        sums.scalars["loss"] = Mean(loss * sums.posts / batch.window.posts, sums.posts)
        for modality, moments in sums.moments.items():
            posts = sums.posts * (moments.positions > 0)  # a batch without images does not count for the image's beta
            sums.scalars[f"ib/beta_{modality}"] = Mean(weights[f"kl_{modality}"] * posts, posts)
        return Objective(loss, weighted, scores, sums.detached(), output)

    def _weights(self) -> dict[str, float]:
        """Current weights of the built-in terms, by name."""
        factor = self.beta_schedule(self._progress())
        return {"kl_text": factor * self.beta_text, "kl_image": factor * self.beta_image, "align": self.gamma}

    def setup(self, stage: str) -> None:
        """Check that the data module fits the model."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PostDataModule):
            self.check_data(data)

    def check_data(self, data: PostDataModule) -> None:
        """Check that a data module has the model's task and label set, and was built for encoders equal to the model's.

        Raises:
            ConfigError: If they differ.
        """
        if data.task.name != self.task:
            raise ConfigError(
                f"{type(self).__name__} is a model for the task {self.task!r}, but {type(data).__name__} has data for "
                f"{data.task.name!r}: choose both for one task"
            )
        if differing := difference(self.labels, data.labels):
            raise ConfigError(f"the labels of model and data differ, {differing}: use one label set for both")
        text = self.backbone.text_encoder
        same_pieces = data.tokenizer is text.tokenizer or data.tokenizer.fingerprint() == text.tokenizer.fingerprint()
        others = {
            "tokenizer": not same_pieces,
            "placement of markers": data.levitated != text.levitated,
            "image encoder": not reads_alike(data.image_encoder, self.backbone.image_encoder),
        }
        if any(others.values()):
            raise ConfigError(
                f"{type(data).__name__} was built for another model, with another "
                f"{shown([name for name, differs in others.items() if differs])}: build it with "
                "text_encoder=model.text_encoder and image_encoder=model.image_encoder of the model that it is for"
            )

    def on_fit_start(self) -> None:
        """Look up the number of steps once, because that builds the data loaders."""
        self._total_steps = self.trainer.estimated_stepping_batches

    def on_train_batch_start(self, batch: PostBatch, batch_index: int) -> None:
        """Seed noise and dropout by rank and step, so that no generator state has to be saved."""
        torch.manual_seed(seed_from(run_seed(), self.global_rank, self.trainer.fit_loop.total_batch_idx))

    def training_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Return loss and `sums`, which callbacks read; `loss_terms` are kept until after the backward pass."""
        with attention_for_training(self.device):
            objective = self.objective(self._hide_mentions(batch))
        self.loss_terms = objective.terms
        self._log_losses("train", objective.sums)
        return {"loss": objective.loss, "sums": objective.sums}

    def on_after_backward(self) -> None:
        """Release the graph."""
        self.loss_terms = {}

    def validation_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Evaluate a validation batch."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: PostBatch, batch_index: int) -> dict[str, Any]:
        """Evaluate a test batch."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: PostBatch, batch_index: int) -> dict[str, Tensor]:
        """Return rows, predictions, scores and evidence of a batch."""
        output = self.backbone(batch)
        decoded = self.network.decode(self.network.scores(output.states), batch)
        return {"rows": batch.rows, **decoded, **self._evidence(output, batch)}

    def on_validation_epoch_end(self) -> None:
        """Log `val/f1` and the other validation scores."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/f1` and the other test scores."""
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
        """Replace a share of `mention_dropout` of the gold mentions by mask pieces."""
        if not self.mention_dropout:
            return batch
        # A row has fewer mentions than word pieces, so one sample per piece is enough.
        dropped = torch.rand(batch.mentions.shape, device=batch.mentions.device) < self.mention_dropout
        hidden = dropped.gather(1, batch.mentions) & (batch.mentions > 0)
        masked = batch.input_ids.masked_fill(hidden, self.backbone.text_encoder.tokenizer.mask_id)
        return replace(batch, input_ids=masked)

    def _log_losses(self, split: str, sums: MetricSums) -> None:
        """Show the objective on the progress bar, and log it and its task term unless an `ObjectiveLogger` does."""
        if self._trainer is None:
            return
        if split == "train":
            self.log("loss", sums.scalars["loss"].value.float(), prog_bar=True, logger=False)
        if any(isinstance(callback, ObjectiveLogger) for callback in callbacks_of(self.trainer)):
            return
        means = {"loss": sums.scalars["loss"], "task": sums.terms["task"]}
        losses = {f"{split}/{name}": mean.value.float() for name, mean in means.items()}
        # Equal on all ranks, so nothing has to be synchronised.
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=int(sums.posts))
        if split == "train":
            self.log_dict({f"{name}_step": loss for name, loss in losses.items()}, on_step=True, on_epoch=False)

    def _log_metric(self, split: str) -> None:
        metric = self._metric(split)
        for name, value in metric.compute().items():
            # The progress bar is one line and also shows the loss.
            self.log(f"{split}/{name}", value, prog_bar=name == "f1")
        metric.reset()

    def _metric(self, split: str) -> ExtractionScores:
        return self.test_metric if split == "test" else self.val_metric

    def _progress(self) -> float:
        """Share of the optimiser steps done, or of the time if only that ends training; 1 outside training."""
        if not self.training or self._trainer is None:
            return 1.0
        if math.isinf(self._total_steps):
            return self._share_of_time()
        return min(1.0, self.global_step / max(1, self._total_steps))

    def _share_of_time(self) -> float:
        """Share of the trainer's `max_time` that has passed, by rank 0's clock; 0 without `max_time`."""
        share = 0.0
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
                share = callback.time_elapsed() / max(callback.time_elapsed() + remaining, 1e-9)
        return min(1.0, self.trainer.strategy.broadcast(share))

    def configure_optimizers(self) -> Any:
        """Build AdamW over groups of all trainable parameters, with the linear schedule by step."""
        # The fused step is several times faster, but cannot undo the loss scaling of float16 before clipping.
        optimizer = torch.optim.AdamW(self.parameter_groups(), fused=self.trainer.precision != "16-mixed")
        keep_group_settings(optimizer)
        steps, warmup = self.trainer.estimated_stepping_batches, self.optimizer.warmup
        if math.isinf(steps):
            scheduler = linear_warmup_decay_by_share(optimizer, self._share_of_time, warmup)
        else:
            scheduler = linear_warmup_decay(optimizer, int(steps), warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser groups: trainable parameters with learning rates and weight decay.

        Raises:
            ConfigError: If a pattern of `optimizer.other_lrs` matches no parameter.
        """
        settings = self.optimizer
        rates = dict(settings.other_lrs)  # which take precedence, also where a pattern is one of those below
        rates.setdefault(r"^backbone\.text_encoder\.", settings.text_lr)
        # An encoder of side texts may have no weights of its own, as it uses the text encoder's.
        if any(True for _ in self.backbone.image_encoder.parameters()):
            rates.setdefault(r"^backbone\.image_encoder\.", settings.image_lr)
        rates.setdefault(".", settings.lr)
        return parameter_groups(self.named_parameters(), rates, settings.weight_decay)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as configured; for bf16-mixed directly, as Lightning refuses to clip with a fused optimiser."""
        if self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save task and labels, by which `on_load_checkpoint` recognises a checkpoint of another model."""
        checkpoint[CHECKPOINT_TASK_KEY] = self.task
        checkpoint[CHECKPOINT_LABELS_KEY] = self.labels.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint is of this task, label set and network.

        Raises:
            CheckpointError: If it is not, or if training cannot be resumed from it.
        """
        found = checkpoint.get(CHECKPOINT_TASK_KEY)
        if found != self.task:
            raise CheckpointError(
                f"the checkpoint was made by the task {found!r}, this configuration is for {self.task!r}: "
                "use the config.yaml in the run folder of the checkpoint"
            )
        check_labels(checkpoint, self.labels, "the checkpoint")
        ours = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        if ours != theirs:
            differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            raise CheckpointError(
                f"the network of the checkpoint differs from this configuration: {len(differing)} tensors differ, "
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
        if not all("name" in group for group in groups):  # of another optimiser, which checks its groups itself
            return
        trained, trainable = _group_sizes(groups), _group_sizes(self.parameter_groups())
        if trained != trainable:
            raise CheckpointError(
                f"the checkpoint trained {_described(trained)}, and this configuration trains "
                f"{_described(trainable)}: a run is resumed with the layers, and the patterns of optimizer.other_lrs, "
                "that it began with; the rates themselves may change"
            )


def _group_sizes(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Number of tensors of each optimiser group, by name."""
    return {group["name"]: len(group["params"]) for group in groups}


def _described(sizes: dict[str, int]) -> str:
    groups = ", ".join(f"{name}: {count}" for name, count in sizes.items())
    return f"{sum(sizes.values())} tensors ({groups})"


def _named_once(terms: list[LossTerm]) -> list[LossTerm]:
    """Return the terms unchanged, after checking that their names are distinct.

    Raises:
        ConfigError: If two terms have the same name.
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
        labels: the relations, in any form that `mmib.datamodules.labels.label_set` accepts. On the command line they
            are taken from the data module.
        head_dropout: dropout on the states that the classifier reads.
        threshold: predict the most probable relation if its probability is above this, else the negative class. The
            threshold that is optimal for F1 is half the F1 that it attains (Lipton et al. 2014, theorem 1). Without a
            threshold the most probable class is predicted, the negative class included, which is optimal for accuracy.
        beta_text, beta_image, gamma, beta_schedule, free_bits, mention_dropout, regularizers, optimizer, compile: see
            `ExtractionModule`.

    Raises:
        ConfigError: See `ExtractionModule`; also if the threshold is outside (0, 1), or set without a negative class.
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
        labels: the entity types, in any form that `mmib.datamodules.labels.label_set` accepts. On the command line they
            are taken from the data module.
        head_dropout: dropout on the states that the emissions are computed from.
        constrained: rule out tag sequences that are invalid in BIO.
        beta_text, beta_image, gamma, beta_schedule, free_bits, mention_dropout, regularizers, optimizer, compile: see
            `ExtractionModule`.

    Raises:
        ConfigError: See `ExtractionModule`.
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
