"""Callback that collects a model's predictions from all ranks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from mmib.base.distributed import gather_objects
from mmib.schema import NO_LABEL

NO_COLUMNS = ("rows", "sums", "output")  # outputs of a step that are not part of a record
BY_WORD = ("gold", "predicted", "confidence")  # fields with one value per word, in records with a label for each word


class PredictionCollector(pl.Callback):
    """Collects gold (except when predicting), prediction, scores and evidence by row, for files and summary."""

    def __init__(self) -> None:
        self.predictions: dict[str, dict[int, dict[str, Any]]] = {}

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clear the predictions of the split, so that only the last of several passes counts."""
        self.predictions[_split(trainer)] = {}

    def _keep(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        columns = {key: values.tolist() for key, values in outputs.items() if key not in NO_COLUMNS}
        for row, *values in zip(outputs["rows"].tolist(), *columns.values(), strict=True):
            if row < 0:  # a padding row
                continue
            record = _without_padding(dict(zip(columns, values, strict=True)))
            self.predictions[_split(trainer)][row] = {"id": row, **record}

    def gather(self) -> None:
        """Gather the predictions of all ranks on every rank, in order of row; every rank must call this."""
        for split in sorted(self.predictions):
            rows = {row: record for kept in gather_objects(self.predictions[split]) for row, record in kept.items()}
            self.predictions[split] = dict(sorted(rows.items()))

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep


def _without_padding(record: dict[str, Any]) -> dict[str, Any]:
    """Remove the padding from a record with a label for each word."""
    predicted = record["predicted"]
    if not isinstance(predicted, list):
        return record
    words = [number for number, label in enumerate(predicted) if label != NO_LABEL]
    return record | {key: [record[key][number] for number in words] for key in BY_WORD if key in record}


def _split(trainer: pl.Trainer) -> str:
    """Return the split of the current pass; prediction reads the test rows."""
    return "test" if trainer.testing or trainer.predicting else "val"
