"""Callback that records whether the bottleneck of a run works: rates at start and end, betas and gradient ratios."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor

from mmib.callbacks.monitor import added, gradient_norms
from mmib.information import MODALITIES, MetricSums, scalars
from mmib.modules import ExtractionModule

log = logging.getLogger(__name__)

# Number of steps, spread evenly, at which gradients are compared.
COMPARISONS = 10
# Number of powers of two at which they are compared if the number of steps is unknown: more than any training has.
MOST_POWERS = 48
# A KL gradient below this share of the task's gradient is too weak to compress.
INERT_RATIO = 1e-3
# A rate above this share of its start value has not fallen.
FALLEN = 0.95
# Nats per position below which latents hold no information.
COLLAPSED_NATS = 0.1
UNITS = {"text": "word piece", "image": "region"}


class BottleneckRecord(pl.Callback):
    """Records whether the rates of a run are compressed, for its summary.

    For each modality it records the rates of the first training batch and of the last validation, in nats per position
    and per post; the posterior's standard deviation, beta, and the share of beta times KL in the loss at the last
    validation; and the ratio of the KL's gradient norm to the task's at ten steps spread over the training
    (`ib/gradient_ratio_<modality>` in the logs). It warns as soon as a rate collapses in training.
    """

    def __init__(self) -> None:
        self._start: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._ratios: list[dict[str, float]] = []
        self._collapsed: dict[str, int] = {}
        self._validation: MetricSums | None = None
        self._compared_steps: frozenset[int] = frozenset()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the steps at which gradients are compared."""
        self._compared_steps = compared_steps(float(trainer.estimated_stepping_batches))

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Compare gradient norms when they are due."""
        step = trainer.global_step
        if step not in self._compared_steps or any(ratio["step"] == step for ratio in self._ratios):
            return
        norms = gradient_norms(cast(ExtractionModule, pl_module))
        task = float(norms["task"])
        ratios = {modality: float(norms[f"kl_{modality}"]) / task for modality in MODALITIES} if task > 0 else {}
        self._ratios.append({"step": step, **ratios})
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"ib/gradient_ratio_{modality}": ratio for modality, ratio in ratios.items()}, step=step
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the first batch, and warn of a collapsed rate."""
        step = trainer.global_step
        if not self._start and trainer.fit_loop.total_batch_idx == 0:
            self._start = _numbers(outputs["sums"])
        every = cast(Any, trainer).log_every_n_steps  # 0 disables logging by step
        if every and step % every == 0:
            self._report_collapse(step, outputs["sums"])

    def _report_collapse(self, step: int, sums: MetricSums) -> None:
        for modality in MODALITIES:
            if modality in self._collapsed or not sums.terms[f"kl_{modality}"].count > 0:
                continue
            rate = float(sums.rate(modality).sum())
            if rate < COLLAPSED_NATS:
                self._collapsed[modality] = step
                log.warning(
                    "the %s rate has collapsed to %.2g nats per %s at step %d: latents hold no information; lower "
                    "beta_%s, or raise it more slowly",
                    *(modality, rate, UNITS[modality], step, modality),
                )

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the batch to the sums."""
        self._validation = added(self._validation, outputs["sums"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the validation."""
        if self._validation is not None:
            self._end, self._validation = _numbers(self._validation), None

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the record of each modality for the summary; empty if nothing was trained or validated."""
        return {
            modality: self._of(modality)
            for modality in MODALITIES
            if f"ib/kl_{modality}" in self._start and f"ib/kl_{modality}" in self._end
        }

    def _of(self, modality: str) -> dict[str, Any]:
        start, end = self._start, self._end
        ratios = [{"step": ratio["step"], "ratio": ratio[modality]} for ratio in self._ratios if modality in ratio]
        strongest = max((ratio["ratio"] for ratio in ratios), default=math.nan)
        fell = end[f"ib/kl_{modality}"] < FALLEN * start[f"ib/kl_{modality}"]
        return {
            "rate": {"start": start[f"ib/kl_{modality}"], "end": end[f"ib/kl_{modality}"]},
            "rate_post": {"start": start[f"ib/rate_{modality}"], "end": end[f"ib/rate_{modality}"]},
            **{name: end[f"ib/{name}_{modality}"] for name in ("std", "beta", "beta_vib", "share")},
            "gradient_ratios": ratios,
            "inert": end[f"ib/beta_{modality}"] > 0 and not (fell and strongest >= INERT_RATIO),
            "collapsed_at": self._collapsed.get(modality),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming."""
        return {"start": self._start, "ratios": self._ratios, "collapsed": self._collapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        self._start, self._ratios = state_dict["start"], state_dict["ratios"]
        self._collapsed = state_dict["collapsed"]


def _numbers(sums: MetricSums) -> dict[str, float]:
    return {name: float(value) for name, value in scalars(sums).items()}


def compared_steps(steps: float) -> frozenset[int]:
    """Return the steps at which gradients are compared: ten, or powers of two if the number of steps is unknown."""
    if not math.isfinite(steps):
        return frozenset(1 << power for power in range(MOST_POWERS))
    return frozenset(min(round(part * steps / COMPARISONS), int(steps) - 1) for part in range(1, COMPARISONS + 1))
