"""Loads and checks models of the library transformers that can encode text."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from mmib.encoders.pretrained import is_weightless, unreachable
from mmib.schema import ConfigError, EncoderError

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]
DROPOUT = re.compile(r".*dropout(_prob|_rate)?|.*_pdrop")


class LoadedModel(NamedTuple):
    """The text encoder of a model.

    Attributes:
        config: configuration of the whole model, from which it can be rebuilt.
        encoder: the encoder.
        missing: parameters of the encoder that the weight file lacks.
    """

    config: PreTrainedConfig
    encoder: PreTrainedModel
    missing: set[nn.Parameter]


def read_configuration(folder: str, dropout: float | None, options: dict[str, Any]) -> PreTrainedConfig:
    """Read the configuration of a model, and override its dropout if one is given.

    Raises:
        EncoderError: If there is none, or transformers has no model for it.
    """
    try:
        if Path(folder).is_dir() and not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError("no file named config.json")
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **options)
    except OSError as error:
        raise unreachable("text", folder, error) from error
    except (KeyError, ValueError) as error:  # the architecture is unknown, missing, or custom code
        raise EncoderError(
            f"text encoder {folder!r} is of no architecture that transformers {transformers.__version__} has: "
            f"{first_sentence(error)}"
        ) from error
    if type(config) not in MODEL_MAPPING:
        raise EncoderError(
            f"text encoder {folder!r} is of type {config.model_type}, of which transformers builds no encoder"
        )
    if dropout is not None:
        for part in (config, getattr(config, "text_config", config)):
            for key in (key for key in vars(part) if DROPOUT.fullmatch(key)):
                setattr(part, key, dropout)
    return config


def load_model(
    folder: str, config: PreTrainedConfig, pretrained: bool, attention: Attention, options: dict[str, Any]
) -> LoadedModel:
    """Load the text encoder of a model in float32, for any precision of its file.

    Raises:
        EncoderError: If its weights cannot be loaded.
    """
    chosen = {"attn_implementation": None if attention == "auto" else attention, "dtype": torch.float32}
    if not pretrained or is_weightless():
        model = AutoModel.from_config(config, trust_remote_code=False, **chosen)
        return LoadedModel(model.config, _text_part(model), set())
    try:
        with _without_report():
            model, found = AutoModel.from_pretrained(
                folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **chosen, **options
            )
    # Damaged weights raise RuntimeError or SafetensorError.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unreachable("text", folder, error) from error
    for name, stored, expected in sorted(found["mismatched_keys"]):
        raise EncoderError(
            f"the weights of text encoder {folder!r} are of another shape than its config.json says: {name} is "
            f"{tuple(stored)} and should be {tuple(expected)}"
        )
    missing = {parameter for name, parameter in model.named_parameters() if name in found["missing_keys"]}
    return LoadedModel(model.config, _text_part(model), missing)


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Return a context in which transformers does not list missing and unused parameters, which are checked here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of an encoder-decoder, the text tower of a two-tower model, or the whole model."""
    if model.config.is_encoder_decoder:
        return cast(PreTrainedModel, model.get_encoder())
    return cast(PreTrainedModel, getattr(model, "text_model", model))


def word_embeddings(encoder: PreTrainedModel) -> nn.Embedding:
    """Return the embeddings of an encoder's word pieces.

    Raises:
        EncoderError: If it has none, as models of images or audio.
    """
    try:
        words = encoder.get_input_embeddings()
    except NotImplementedError:
        words = None
    if not isinstance(words, nn.Embedding):
        raise EncoderError(f"{type(encoder).__name__} cannot serve as text encoder: it has no embeddings of words")
    return words


def takes(encoder: PreTrainedModel, argument: str) -> bool:
    """Whether an encoder's `forward` has an argument of this name."""
    return argument in inspect.signature(encoder.forward).parameters


@contextlib.contextmanager
def plain_operations(encoder: PreTrainedModel) -> Iterator[None]:
    """Return a context in which an encoder uses no dropout, and no attention kernels that may need a GPU."""
    attention, training = encoder.config._attn_implementation, encoder.training
    encoder.config._attn_implementation = "eager"
    encoder.eval()
    try:
        yield
    finally:
        encoder.config._attn_implementation = attention
        encoder.train(training)


def parameters_behind(tensor: Tensor) -> set[nn.Parameter]:
    """Return the parameters that a tensor depends on."""
    nodes, seen, found = [tensor.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        nodes.extend(following for following, _ in node.next_functions)
    return found


def check_attention(config: PreTrainedConfig, attention: str) -> None:
    """Check that a model of this configuration can be built with an attention implementation.

    Raises:
        ConfigError: If it is unknown, the model does not support it, or its package or a GPU is missing.
    """
    if attention not in get_args(Attention):
        raise ConfigError(f"attention {attention!r} is unknown: choose from {', '.join(get_args(Attention))}")
    if attention in ("auto", "eager"):
        return
    if attention == "flex_attention" and not torch.cuda.is_available():
        raise _cannot_attend(attention, "PyTorch computes its gradients on GPUs only")
    try:
        with torch.device("meta"):
            AutoModel.from_config(copy.deepcopy(config), attn_implementation=attention, trust_remote_code=False)
    except ImportError as error:
        raise _cannot_attend(attention, f"{first_sentence(error)}; install it with `pip install flash-attn`") from error
    except ValueError as error:
        raise _cannot_attend(attention, first_sentence(error)) from error


def _cannot_attend(attention: str, reason: str) -> ConfigError:
    return ConfigError(f"the text encoder cannot use attention {attention!r} here: {reason}; leave it at auto")


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error's message."""
    message = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=[a-z)`])\.(?: |$)", message, maxsplit=1)[0][:200]


def max_length(encoder: PreTrainedModel) -> int | None:
    """Return the maximum sequence length of an encoder, or None if it is unlimited."""
    positions: int | None = getattr(encoder.config, "max_position_embeddings", None)
    if positions is None or positions <= 0:  # -1 means no limit in XLNet
        return None
    return positions - first_position(encoder)


def first_position(encoder: PreTrainedModel) -> int:
    """Return the position id of the first piece; RoBERTa and similar models start after the padding id."""
    table = next((m for name, m in encoder.named_modules() if name.endswith("position_embeddings")), None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1
