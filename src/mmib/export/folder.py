"""Exported models: one self-contained folder per model, verified when it is read.

- `model.safetensors`: weights of the whole network
- `config.json`: task, labels, network, image preprocessing, calibration, and the checksums of the other files
- `text_encoder/`: the text encoder's configuration and its tokenizer
- `README.md`: the model card
- `model.onnx`: if requested, the whole network for other runtimes; for tagging with a CRF also `crf.json` and
  `numpy_crf.py`, which decode emissions; `model.int8.onnx`, the same network with 8-bit integer matrix products

A folder for several tasks has one such subfolder per task, named after it, and a config.json that lists them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mmib.analysis.calibration import Temperature
from mmib.base.files import atomic_file, checksum, parse_json, replace_folder, write_text
from mmib.base.revision import revision
from mmib.datamodules.base import PostDataModule, checked_length
from mmib.datamodules.files import inside
from mmib.datamodules.released import LABELS_BEFORE_0_2
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.export.card import model_card
from mmib.export.foreign import check_finite, check_image_encoder, check_text_encoder
from mmib.export.int8 import write_int8
from mmib.export.model import TrainedModel, build, load_weights
from mmib.export.onnx_model import require_packages, write_onnx
from mmib.export.sizes import bounded, check_sizes
from mmib.export.values import check_values
from mmib.labels import LabelSet
from mmib.plugins import task_of
from mmib.schema import DataError, ExportError, MMIBError, TaskError, task_named

FORMAT = 2
MODEL_TYPE = "mmib"
CONFIG, WEIGHTS, TEXT_ENCODER, CARD = "config.json", "model.safetensors", "text_encoder", "README.md"
DIGEST = "digest"
# Prefixes of the encoders' weights in a network.
ENCODERS = ("backbone.text_encoder", "backbone.image_encoder")


def write_export(
    models: Sequence[TrainedModel],
    folder: Path,
    onnx: bool = False,
    int8: Mapping[str, PostDataModule] | None = None,
) -> None:
    """Write a folder with one model, or with one model per task; it appears once it is complete and has been read back.

    Args:
        models: the models.
        folder: the output folder; an existing export is replaced.
        onnx: also write each network as `model.onnx`, after comparing it with PyTorch.
        int8: validation rows by task; each of these tasks also gets `model.onnx` and `model.int8.onnx`, scored on them.

    Raises:
        ExportError: two models have the same task, the relations of one fit no entities of the other, the folder is
            not an export, or it cannot be written; with `onnx` or `int8`, a package is missing, or a network cannot be
            exported.
    """
    int8 = int8 or {}
    if onnx or int8:
        require_packages()
    tasks = [model.task for model in models]
    if len(set(tasks)) < len(tasks):
        raise ExportError("an export holds one model of each task: export the runs into separate folders")
    labels = {task_named(model.task).finds: model.labels for model in models}
    if {"entities", "relations"} <= labels.keys() and not labels["relations"].relates(labels["entities"].names):
        raise ExportError(
            f"no relation fits the entities: they are {labels['entities']}, and relations hold between "
            f"{', '.join(labels['relations'].argument_types)}: export the runs into separate folders"
        )
    if folder.exists() and not _replaceable(folder):
        raise ExportError(f"{folder} is not an export: choose another folder, or empty it")
    folder = Path(os.path.realpath(folder))  # follow a link
    # Write beside the folder, so that a rename puts it in place.
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        if len(models) == 1:
            _write_model(models[0], new, onnx, int8.get(models[0].task))
        else:
            models = [_write_model(model, new / model.task, onnx, int8.get(model.task)) for model in models]
            _write_json(new / CONFIG, {"model_type": MODEL_TYPE, "format": FORMAT, **_code(), "parts": sorted(tasks)})
            write_text(new / CARD, model_card(models))
        read_export(new)
        replace_folder(folder, new)
    except OSError as error:
        raise ExportError(f"the export {folder} cannot be written: {error}; choose another place with -o") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_export(folder: Path) -> list[TrainedModel]:
    """Read the models of an exported folder, and verify them against its config.json.

    Raises:
        ExportError: the folder is not an export, has a newer format, is damaged, or was edited.
        TaskError: its task is not registered.
    """
    config = read_config(folder)
    parts = config.get("parts")
    if parts is None:
        return [_read_model(folder, config)]
    if not isinstance(parts, list) or not parts or not all(isinstance(name, str) for name in parts):
        raise ExportError(f"{folder / CONFIG} names the parts {parts!r}: expected a list of tasks")
    try:
        folders = [inside(folder, name, str(folder / CONFIG)) for name in parts]
    except DataError as error:
        raise ExportError(str(error)) from error
    return [_read_model(part, read_config(part)) for part in folders]


def files_of(folder: Path) -> list[str]:
    """List the files of an export that has been read, relative to its folder; other files in it are left out."""
    config = read_config(folder)
    if "parts" in config:
        names = [f"{part}/{name}" for part in config["parts"] for name in files_of(folder / part)]
    else:
        names = list(config["files"])
    return sorted([*names, CONFIG, *([CARD] if (folder / CARD).is_file() else [])])


def read_config(folder: Path) -> dict[str, Any]:
    """Read an export's config.json.

    Raises:
        ExportError: the folder is not an export, or has a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ExportError(f"{folder} is no exported model: it has no {CONFIG}; make one with mmib export RUN -o FOLDER")
    try:
        config = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE or type(config.get("format")) is not int:
        raise ExportError(f"{folder} is no exported model of mmib: make one with mmib export RUN -o FOLDER")
    if config["format"] > FORMAT:
        raise ExportError(
            f"{folder} was exported in format {config['format']} by mmib {config.get('mmib', 'unknown')}, and this "
            f"version, {metadata.version('mmib')}, reads formats up to {FORMAT}: update mmib"
        )
    return config


def digest_of(config: dict[str, Any]) -> str:
    """SHA-256 of the content of a config.json, independent of its layout and without the digest itself."""
    content = {name: value for name, value in config.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _code() -> dict[str, Any]:
    """The version of the code that writes the export; the card has the version that trained the model."""
    return {"mmib": revision().version, "git": revision().git}


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or an export, even one that cannot be read any more."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        read_config(folder)
    except ExportError:
        return False
    return True


def _write_model(model: TrainedModel, folder: Path, onnx: bool, rows: PostDataModule | None) -> TrainedModel:
    """Write a model, and return it with the int8 measurements added to its card."""
    backbone = model.network.backbone
    folder.mkdir(parents=True)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(weights, metadata={"format": "pt"}))
    backbone.text_encoder.save_architecture(folder / TEXT_ENCODER)
    onnx_part = {"onnx": write_onnx(model, folder)} if onnx or rows is not None else {}
    if rows is not None:
        model = replace(model, card={**model.card, "int8": write_int8(model, rows, folder)})
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    image = model.image_encoder
    config = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        **_code(),
        "task": model.task,
        "task_module": type(task_named(model.task)).__module__,
        "labels": model.labels.to_dict(),
        "head": model.network.settings(),
        "parts_of_network": model.parts,
        "max_length": model.max_length,
        "text_encoder": {"markers": backbone.text_encoder.placement},
        "image_encoder": {
            "architecture": image.architecture,
            "model_args": image.model_args,
            "regions": image.regions,
            "preprocessing": image.preprocessing,
            "max_crops": model.max_crops,
            "used": model.reads_images,
        },
        "calibration": asdict(model.temperature),
        "trained": model.card,
        **onnx_part,
        "files": {path.relative_to(folder).as_posix(): _described(path) for path in files},
    }
    plain = json.loads(json.dumps(config))
    _write_json(folder / CONFIG, {**plain, DIGEST: digest_of(plain)})
    write_text(folder / CARD, model_card([model]))
    return model


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    for name, expected in files.items():
        path = inside(folder, name, str(folder / CONFIG))
        if not path.is_file():
            raise ExportError(f"{folder} is not complete: {name} is missing; copy it again")
        if _described(path) != expected:
            raise ExportError(f"{path} is damaged: it is not the file that was exported; copy it again")
    if WEIGHTS not in files:
        raise ExportError(f"{folder / CONFIG} names no {WEIGHTS}: it is no complete export; copy or export it again")


def _read_model(folder: Path, config: dict[str, Any]) -> TrainedModel:
    path = folder / CONFIG
    check_values(config, path)
    try:
        _check_files(folder, config["files"])
        name, image = config["task"], config["image_encoder"]
        labels = _labels_before_0_2(path, config) if config["format"] == 1 else _checked_labels(path, config)
        task_of(name, folder, [config["task_module"]] if "task_module" in config else ())
        check_text_encoder(folder / TEXT_ENCODER)
        check_image_encoder(image["architecture"], image.get("model_args"))
        text = config.get("text_encoder", {})  # an export without one is older than levitated markers
        check_sizes(lambda: dict(zip(ENCODERS, _encoders(folder, text, image), strict=True)), folder / WEIGHTS)
        with bounded(folder / WEIGHTS):
            network = build(name, labels, _encoders(folder, text, image), config["parts_of_network"], config["head"])
        weights = load_file(folder / WEIGHTS)
        check_finite(weights, folder / WEIGHTS)
        load_weights(network, weights, folder / WEIGHTS)
        return TrainedModel(
            network=network,
            parts=config["parts_of_network"],
            max_length=checked_length(config["max_length"], network.backbone.text_encoder.tokenizer.max_length),
            max_crops=image["max_crops"],
            reads_images=image["used"],
            temperature=Temperature(**config["calibration"]),
            card=config["trained"],
        )
    except (ExportError, TaskError):
        raise
    except (SafetensorError, MMIBError) as error:
        raise ExportError(f"{path} describes no model that can be built: {error}") from error
    # transformers, timm and tokenizers raise errors of any type for invalid values.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ExportError(f"{path} describes no model that can be built: {reason}") from error


def _checked_labels(path: Path, config: dict[str, Any]) -> LabelSet:
    """Read the label set of an export after verifying the digest of its config.json.

    Raises:
        ExportError: it was edited: weights refer to labels by index, so another name or order would be wrong.
        ConfigError: it is not a valid label set.
    """
    if config.get(DIGEST) != digest_of(config):
        raise ExportError(
            f"{path} was edited after the export: its labels, task or settings have changed, and the weights have "
            "not; copy the folder again, or train with other labels and export that run"
        )
    return LabelSet.from_dict(config["labels"])


def _labels_before_0_2(path: Path, config: dict[str, Any]) -> LabelSet:
    """Return the label set of an export of version 0.1, which lists the outputs of its head.

    Raises:
        ExportError: the list differs from the labels of the released data set of its task.
    """
    labels = LABELS_BEFORE_0_2.get(config["task"])
    if labels is None or list(task_named(config["task"]).outputs(labels)) != config["labels"]:
        raise ExportError(
            f"{path} was exported by mmib {config.get('mmib', '0.1')} with other labels than that version had: copy "
            "the folder again, or export its run with this version"
        )
    return labels


def _encoders(folder: Path, text: dict[str, Any], image: dict[str, Any]) -> tuple[TextEncoder, ImageEncoder]:
    """Build encoders with random weights, which will be replaced; nothing is downloaded."""
    words = TextEncoder(str(folder / TEXT_ENCODER), pretrained=False, markers=text.get("markers", "inserted"))
    pictures = ImageEncoder(
        image["architecture"],
        pretrained=False,
        regions=image["regions"],
        model_args=image.get("model_args"),  # an export of version 0.1 has none
    )
    settings = image["preprocessing"].items()
    pictures.preprocess_as({name: tuple(value) if isinstance(value, list) else value for name, value in settings})
    return words, pictures
