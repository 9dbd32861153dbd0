"""Checks of an untrusted export: only encoders from the libraries' own registries, and finite weights.

A user's own configuration may name any encoder. An export may come from anyone, so nothing in it may run code, load
from another place, or access the network.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from mmib.base.files import parse_json
from mmib.export.values import entries
from mmib.labels import shown
from mmib.schema import ExportError

# Settings that name code beside the weights, or kernels on the hub, which are code too.
CODE = ("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "experts_implementation")
# Parts of names of settings and models in transformers that look up other models on the hub or in folders while
# their configuration is read, through timm or, as in DETR and similar models, through `backbone`.
IMAGES = ("backbone", "timm")
TEXT_MODELS = frozenset().union(
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    TOKENIZER_MAPPING_NAMES,
)
# Settings that make a configuration list so many items; the limits for these and for others; names that are not sizes.
LISTED = ("num_labels", "_num_labels", "extra_ids")
MOST_LISTED, LARGEST = 100_000, 2**24
NO_SIZES = ("theta", "model_max_length")
# Arguments of `timm.create_model` that name files, or that change what is built beyond the architecture.
ARGUMENTS_OF_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def check_text_encoder(folder: Path) -> None:
    """Refuse the text encoder of an export unless transformers can build it without other code.

    Raises:
        ExportError: a JSON file names code, an image encoder or an excessive size, or config.json has a model type that
            transformers does not have.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            content = parse_json(path.read_text(encoding="utf-8"), allow_nan=True)
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} cannot be read: {error}; copy the folder again") from error
        if path.name not in ("config.json", "tokenizer_config.json", "processor_config.json"):
            continue
        for name, value in entries(content):
            for part in value if isinstance(value, list) else [value]:
                _check_number(name, part, path)
            if any(part in name for part in IMAGES) and value not in (None, False):
                raise ExportError(f"{path} names an encoder of images ({name}): an export may only use those of timm")
            if name in CODE and value is not None:
                raise ExportError(
                    f"{path} names code to run ({name}): an export holds none. Do not use this folder unless you trust "
                    "who made it; a model of custom code cannot be exported"
                )
            if name == "model_type" and value not in ("", None) and not _is_known(value):
                raise ExportError(f"{path} is of the type {value!r}, which is no encoder of the library transformers")
        whole = content.get("model_type") if isinstance(content, dict) else None
        if whole not in ("", None) and whole not in TEXT_MODELS:
            raise ExportError(f"{path} is of the type {whole!r}, no encoder of the library transformers for texts")


def check_image_encoder(architecture: Any, model_args: Any) -> None:
    """Refuse the image encoder of an export unless timm lists it and can build it without files.

    Raises:
        ExportError: timm does not list the name, or the arguments name files.
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


def _check_number(name: str, value: Any, path: Path) -> None:
    most = MOST_LISTED if name in LISTED else LARGEST
    if type(value) is int and abs(value) > most and not name.endswith(NO_SIZES):
        raise ExportError(f"{path}: {name} is {value:,}, which is beyond the size of any model: {most:,} at most")


def _is_known(model_type: Any) -> bool:
    """Whether transformers has an encoder of this type, or a part of one, that names no image encoder."""
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return False
    return not any(part in field.name for field in dataclasses.fields(CONFIG_MAPPING[model_type]) for part in IMAGES)
