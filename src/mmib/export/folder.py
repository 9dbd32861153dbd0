"""Exported models: one folder that holds all that is needed to use a model, checked when it is read.

    model.safetensors   weights of the whole network
    config.json         task, labels, network, image preprocessing, calibration, and the checksums of the other files
    text_encoder/       the text encoder's configuration and its tokenizer
    README.md           the model card
    model.onnx          where it was asked for: the whole network for other runtimes, with crf.json and numpy_crf.py,
                        which decode emissions, where it recognises entities

A folder for both tasks holds one of these for each, named after its task, and a config.json that says so.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mmib.analysis.calibration import Temperature
from mmib.base.files import atomic_file, checksum, parse_json, replace_folder, write_text
from mmib.datamodules.files import inside
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.export.card import model_card
from mmib.export.model import TrainedModel, build, load_weights
from mmib.export.onnx_model import require_packages, write_onnx
from mmib.schema import LABELS, DataError, EncoderError, ExportError

FORMAT = 1
KIND = "mmib"
CONFIG, WEIGHTS, TEXT_ENCODER, CARD = "config.json", "model.safetensors", "text_encoder", "README.md"


def write_export(models: Sequence[TrainedModel], folder: Path, onnx: bool = False) -> None:
    """Write a folder with one model, or with one of each task; it appears when it is complete and could be read.

    Args:
        models: what to write.
        folder: where; an export that is there already is replaced.
        onnx: write each network as `model.onnx` too, compared with PyTorch first.

    Raises:
        ExportError: two models of one task, the folder holds something else, or it cannot be written; with `onnx`, a
            package is missing, or a network does not export.
    """
    if onnx:
        require_packages()
    tasks = [model.task for model in models]
    if len(set(tasks)) < len(tasks):
        raise ExportError("an export holds one model of each task: export the runs into folders of their own")
    if folder.exists() and not _replaceable(folder):
        raise ExportError(f"{folder} holds something else than an export: choose another folder, or empty it")
    # Beside the folder, so that it can be put in place by renaming.
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        if len(models) == 1:
            _write_model(models[0], new, onnx)
        else:
            for model in models:
                _write_model(model, new / model.task, onnx)
            _write_json(new / CONFIG, {"model_type": KIND, "format": FORMAT, "parts": sorted(tasks)})
            write_text(new / CARD, model_card(models))
        read_export(new)
        replace_folder(folder, new)
    except OSError as error:
        raise ExportError(f"the export {folder} cannot be written: {error}; choose another place with -o") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_export(folder: Path) -> list[TrainedModel]:
    """The models of an exported folder, checked against what its config.json says of them.

    Raises:
        ExportError: it is no export, of a newer format, or damaged.
    """
    config = read_config(folder)
    parts = config.get("parts")
    if parts is None:
        return [_read_model(folder, config)]
    if not isinstance(parts, list) or not parts or not set(parts) <= set(LABELS):
        raise ExportError(f"{folder / CONFIG} names the parts {parts!r}: expected some of {', '.join(LABELS)}")
    return [_read_model(folder / str(name), read_config(folder / str(name))) for name in parts]


def read_config(folder: Path) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        ExportError: it is no export, or one of a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ExportError(f"{folder} is no exported model: it has no {CONFIG}; make one with mmib export RUN -o FOLDER")
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != KIND or type(config.get("format")) is not int:
        raise ExportError(f"{folder} is no exported model of mmib: make one with mmib export RUN -o FOLDER")
    if config["format"] > FORMAT:
        raise ExportError(
            f"{folder} was exported in format {config['format']} by mmib {config.get('mmib', 'unknown')}, and this "
            f"version, {metadata.version('mmib')}, reads formats up to {FORMAT}: update mmib"
        )
    return config


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or an export, maybe one that cannot be read any more."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        read_config(folder)
    except ExportError:
        return False
    return True


def _write_model(model: TrainedModel, folder: Path, onnx: bool) -> None:
    backbone = model.network.backbone
    folder.mkdir(parents=True)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(weights, metadata={"format": "pt"}))
    backbone.text_encoder.save_architecture(folder / TEXT_ENCODER)
    onnx_part = {"onnx": write_onnx(model, folder)} if onnx else {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    image = backbone.image_encoder
    config = {
        "model_type": KIND,
        "format": FORMAT,
        "mmib": metadata.version("mmib"),
        "task": model.task,
        "labels": list(LABELS[model.task]),
        "head": model.network.settings(),
        "parts_of_network": model.parts,
        "max_length": model.max_length,
        "image_encoder": {
            "architecture": image.architecture,
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
    _write_json(folder / CONFIG, config)
    write_text(folder / CARD, model_card([model]))


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
        raise ExportError(f"{folder / CONFIG} names no {WEIGHTS}")


def _read_model(folder: Path, config: dict[str, Any]) -> TrainedModel:
    try:
        _check_files(folder, config["files"])
        task, image = config["task"], config["image_encoder"]
        if config["labels"] != list(LABELS[task]):
            raise ExportError(f"{folder} was trained on other labels than this version of mmib knows")
        encoders = _encoders(folder, image)
        network = build(task, encoders, config["parts_of_network"], config["head"])
        load_weights(network, load_file(folder / WEIGHTS), folder / WEIGHTS)
        return TrainedModel(
            network=network,
            parts=config["parts_of_network"],
            max_length=int(config["max_length"]),
            max_crops=int(image["max_crops"]),
            reads_images=bool(image["used"]),
            temperature=Temperature(**config["calibration"]),
            card=config["trained"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, DataError, EncoderError) as error:
        name = type(error).__name__
        raise ExportError(f"{folder / CONFIG} describes no model that can be built ({name}: {error})") from error


def _encoders(folder: Path, image: dict[str, Any]) -> tuple[TextEncoder, ImageEncoder]:
    """Encoders of random weights, which are about to be replaced; nothing is asked of a model hub."""
    text = TextEncoder(str(folder / TEXT_ENCODER), pretrained=False)
    pictures = ImageEncoder(image["architecture"], pretrained=False, regions=image["regions"])
    lists = image["preprocessing"].items()
    pictures.preprocess_as({name: tuple(own) if isinstance(own, list) else own for name, own in lists})
    return text, pictures
