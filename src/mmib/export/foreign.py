"""What the export of a stranger may ask for: encoders of the libraries' own registries, and finite weights.

A person's own configuration may name any encoder. An export comes from anywhere, so that nothing in it may run code,
name another place to load from, or reach the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import CONFIG_MAPPING

from mmib.base.files import parse_json
from mmib.labels import shown
from mmib.schema import ExportError

# Where code beside the weights is named, and kernels of the hub, which are code too.
CODE = ("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "experts_implementation")
# Models of transformers that hand their configuration to timm, which looks names up on the hub and in folders.
THROUGH_TIMM = ("timm_wrapper", "timm_backbone")
# Arguments of `timm.create_model` that name files, or decide what is built otherwise than by the architecture.
ARGUMENTS_OF_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def check_text_encoder(folder: Path) -> None:
    """Refuse the text encoder of an export unless transformers builds it without any other code.

    Raises:
        ExportError: a JSON file names code, or config.json a type of model that transformers does not have.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} cannot be read: {error}; copy the folder again") from error
        if path.name not in ("config.json", "tokenizer_config.json", "processor_config.json"):
            continue
        for name, value in _entries(content):
            if name in CODE and value is not None:
                raise ExportError(
                    f"{path} names code to run ({name}): an export holds none. Do not use this folder unless you trust "
                    "who made it; a model of custom code cannot be exported"
                )
            if name == "model_type" and value not in ("", None) and not _is_known(value):
                raise ExportError(f"{path} is of the type {value!r}, which is no encoder of the library transformers")


def check_image_encoder(architecture: Any, model_args: Any) -> None:
    """Refuse an image encoder of an export unless timm lists it and builds it without any file.

    Raises:
        ExportError: another name, or arguments that name files.
    """
    if not isinstance(architecture, str) or architecture not in timm.list_models():
        raise ExportError(
            f"the image encoder is {architecture!r}, which is no architecture that timm {timm.__version__} lists: an "
            "export names neither repositories nor folders"
        )
    if model_args is not None and not isinstance(model_args, dict):
        raise ExportError(f"the image encoder's model_args are {model_args!r}: expected an object")
    files = [name for name in ARGUMENTS_OF_FILES if name in (model_args or {})]
    if files:
        raise ExportError(f"the image encoder's model_args name {shown(files)}: an export brings its weights itself")


def check_finite(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that would make every result NaN.

    Raises:
        ExportError: a tensor holds NaN or an infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ExportError(
                f"{path} holds NaN or infinite weights ({name}): export the run again, or another checkpoint of it"
            )


def _is_known(model_type: Any) -> bool:
    return isinstance(model_type, str) and model_type in CONFIG_MAPPING and model_type not in THROUGH_TIMM


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Every name of an object inside a JSON value, with what it stands for."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
