"""Write an ONNX file with 8-bit integer matrix products, and measure its F1 on a run's validation rows."""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser

from mmib.base.files import atomic_file
from mmib.base.onnx_files import open_session
from mmib.datamodules.base import PostDataModule
from mmib.export.model import TrainedModel
from mmib.export.onnx_model import MODEL, Inputs
from mmib.runs.reader import FinishedRun, fingerprint
from mmib.schema import ExportError, MMIBError, PostBatch, task_named

INT8_MODEL = "model.int8.onnx"
# Without convolutions: onnxruntime has no ConvInteger on CPUs.
PRODUCTS = ("MatMul", "Gemm")
SPLIT = "val"


def validation_data(run: FinishedRun, model: TrainedModel) -> PostDataModule:
    """Load the validation rows of a run, as pixels: the ONNX network takes pixels as input.

    Raises:
        ExportError: the rows are missing, or have changed since the run.
        RunError: the run's configuration is damaged.
    """
    described = run.config().get("data") or {}
    try:
        module, _, name = described["class_path"].rpartition(".")
        found = getattr(importlib.import_module(module), name)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(found, skip={"text_encoder", "image_encoder"}, sub_configs=False)
        # With augmentation, pixels are not cached as features; those of the validation split are not augmented.
        settings = parser.parse_object({**described["init_args"], "augment": model.reads_images, "workers": 0})
        data: PostDataModule = found(
            **vars(parser.instantiate_classes(settings)),
            text_encoder=model.network.backbone.text_encoder,
            image_encoder=model.image_encoder,
        )
        data.prepare_data()
        data.setup("validate")
    except (ArgumentError, AttributeError, ImportError, KeyError, TypeError, ValueError, MMIBError) as error:
        raise ExportError(
            f"int8 is scored on the validation rows of {run.folder}, which cannot be read: {error}; put them back, or "
            "leave --int8 out"
        ) from error
    if run.fingerprint(SPLIT) not in (None, fingerprint(data.fingerprint(SPLIT))):
        raise ExportError(
            f"the validation rows of {run.folder} have changed since it was trained: put them back, or leave --int8 out"
        )
    return data


def write_int8(model: TrainedModel, data: PostDataModule, folder: Path) -> dict[str, Any]:
    """Write `model.int8.onnx` beside `model.onnx`, and score both.

    Args:
        model: the model that `model.onnx` was written from.
        data: the rows to score both files on, as pixels.
        folder: the folder of the files.

    Returns:
        Split, number of rows, and bytes and F1 (a fraction) of both files, for the model card.

    Raises:
        ExportError: the network has no matrix product with fixed weights.
        OSError: a file cannot be written.
    """
    content = quantized(folder / MODEL)
    with atomic_file(folder / INT8_MODEL) as file:
        file.write(content)
    files = {"float32": folder / MODEL, "int8": folder / INT8_MODEL}
    scores = f1(list(files.values()), model, data)
    measured = {name: {"bytes": file.stat().st_size, "f1": scores[file]} for name, file in files.items()}
    return {"split": SPLIT, "rows": len(data.examples[SPLIT]), **measured}


def quantized(file: Path) -> bytes:
    """Quantise an ONNX network to 8-bit integer products: weights per channel to 7 bits, activations dynamically.

    Raises:
        ExportError: the network has no matrix product with fixed weights.
    """
    import onnx  # noqa: PLC0415 - an extra
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    # It warns, through the root logger, that a preprocessing step is missing, which would only fold some shapes.
    with tempfile.TemporaryDirectory() as folder, _without_warnings():
        made = Path(folder) / INT8_MODEL
        # Weights of 7 bits: CPUs without VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
        weights: dict[str, Any] = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
        quantize_dynamic(file, made, op_types_to_quantize=list(PRODUCTS), **weights)
        content = made.read_bytes()
    operators = {node.op_type for node in onnx.load_from_string(content).graph.node}
    if "MatMulInteger" not in operators:
        raise ExportError(
            f"the network has no {' or '.join(PRODUCTS)} with fixed weights that could be quantised: leave --int8 out"
        )
    return content


@contextmanager
def _without_warnings() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@torch.no_grad()
def f1(files: Sequence[Path], model: TrainedModel, data: PostDataModule) -> dict[Path, float]:
    """F1, a fraction, of ONNX networks on validation rows, whose images are decoded only once."""
    sessions = {file: open_session(file) for file in files}
    metrics = {file: task_named(model.task).metric(model.labels, sync_on_compute=False) for file in files}
    nothing = torch.zeros(0, *model.image_encoder.input_size)
    for batch in data.val_dataloader():
        inputs = {name: _array(batch, name, nothing) for name in Inputs._fields}
        for file, session in sessions.items():
            (scores,) = session.run(None, inputs)
            decoded = model.network.decode(torch.from_numpy(scores), batch)
            metrics[file].update(decoded["predicted"][batch.valid], model.network.gold(batch)[batch.valid])
    return {file: float(metric.compute()["f1"]) for file, metric in metrics.items()}


def _array(batch: PostBatch, name: str, nothing: torch.Tensor) -> np.ndarray:
    """Return an input of the network as an array; empty pixels if no post of the batch has an image."""
    value = getattr(batch, name)
    found: np.ndarray = (nothing if value is None else value).numpy()
    return found
