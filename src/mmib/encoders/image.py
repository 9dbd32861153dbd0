"""Image encoding: from pixels to region features with any timm model."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models import load_model_config_from_hf
from torch import Tensor

from mmib.base.code import custom_code
from mmib.encoders import onnx_image
from mmib.encoders.pretrained import PACKAGED, PREFIX, is_weightless, packaged_file, settle_hub_mode, unreachable
from mmib.encoders.regions import RegionEncoder, digest_tensors, lay_out
from mmib.labels import shown
from mmib.schema import ConfigError, EncoderError, PostBatch

Regions = Literal["crops", "grid"]
Runtime = Literal["torch", "onnx"]
# Batch size on a CPU; see `ImageEncoder.features`.
CPU_BATCH = 4
# Prefixes of names of timm models in a hub repository, or in a folder.
HUB, FOLDER = "hf-hub:", "local-dir:"
# timm's log messages on a weight file; see `_tensors_not_found`.
NOT_FOUND = re.compile(r"Missing keys \((.*)\)")
NOT_USED = "Unexpected keys"


class ImageEncoder(RegionEncoder):
    """Encodes image regions with any timm model.

    Parameters that the regions do not depend on, such as the pooling of a model whose grid is used, are frozen even if
    the others are trained, because DDP requires a gradient for every trained parameter.

    Args:
        name: `pip:efficientnet-lite0`; the name of a timm model, with or without the tag of its weights
            (`resnet50.a1_in1k`); or a timm model elsewhere, as `hf-hub:` and a hub repository, or `local-dir:` and a
            folder.
        weights: local weight file (.safetensors or .pth) for the timm model `name`.
        pretrained: load the weights; False initialises them at random.
        frozen: no gradients, and always in evaluation mode, so that batch statistics are neither used nor updated.
        regions: `crops` pools the whole image and each crop to one region; `grid` makes every cell of the whole image's
            last feature map a region.
        model_args: further arguments of `timm.create_model`, such as `img_size` (a number, or height and width) for
            transformers, whose input size is fixed at construction.
        runtime: runtime of a frozen encoder on a CPU, for the feature cache and for extraction: `torch`, or `onnx` for
            onnxruntime, which is faster and must agree with PyTorch to a thousandth.

    Attributes:
        dim: feature width V.
        model_args: all arguments, beside the architecture, with which timm can rebuild the network.
        preprocessing: timm's data configuration for preparing images.
        transform: from PIL image to normalised pixels (3, height, width), by that data configuration.
        training_transform: the same with timm's random crops and flips.

    Raises:
        EncoderError: If the model is unknown, cannot be built or has no grid, its weights cannot be loaded, or the
            packages of the runtime are not installed.
        ConfigError: If regions or runtime are unknown, `weights` is set for a name that comes with weights, or
            onnxruntime is chosen for an encoder that is not frozen.
    """

    source = "pixels"

    def __init__(
        self,
        name: str = "pip:efficientnet-lite0",
        weights: str | None = None,
        pretrained: bool = True,
        frozen: bool = True,
        regions: Regions = "crops",
        model_args: dict[str, Any] | None = None,
        runtime: Runtime = "torch",
    ) -> None:
        super().__init__()
        if regions not in ("crops", "grid"):
            raise ConfigError(f"image regions {regions!r} are unknown: choose 'crops' or 'grid'")
        if runtime == "onnx" and not frozen:
            raise ConfigError("runtime: onnx runs frozen image encoders alone: freeze it, or choose runtime: torch")
        self.name = name
        self.regions = regions
        self.frozen = frozen
        self.run_by(runtime)
        self.encoder, self.model_args = _create(name, weights, pretrained, model_args or {})
        # Some networks widen their features again between pooling and classifier.
        self.dim: int = self.encoder.num_features if regions == "grid" else self.encoder.head_hidden_size
        self.preprocess_as(resolve_model_data_config(self.encoder, _input_size(self.model_args)))
        if frozen:
            self.requires_grad_(False)
            self.eval()
        elif type(self).forward is ImageEncoder.forward:
            self.freeze_unused()

    def preprocess_as(self, preprocessing: dict[str, Any]) -> None:
        """Set timm's data configuration for preparing images: size, crop, interpolation, mean and deviation.

        Raises:
            EncoderError: If regions are grid cells, and the features of an image of that size form no grid.
        """
        self.preprocessing = preprocessing
        self.input_size: tuple[int, int, int] = preprocessing["input_size"]
        self._cells = (1, 1) if self.regions == "crops" else self._grid()
        self.transform: Callable[[Image.Image], Tensor] = create_transform(**preprocessing, is_training=False)
        self.training_transform: Callable[[Image.Image], Tensor] = create_transform(**preprocessing, is_training=True)

    def run_by(self, runtime: Runtime) -> None:
        """Choose the runtime of `features` on a CPU.

        Raises:
            ConfigError: If the runtime is unknown.
            EncoderError: If its packages are not installed.
        """
        if runtime not in ("torch", "onnx"):
            raise ConfigError(f"the runtime {runtime!r} is unknown: choose 'torch' or 'onnx'")
        if runtime == "onnx":
            onnx_image.require_onnx()
        self.runtime = runtime

    def load_runtime(self) -> None:
        """Prepare the runtime before the first call of `features` on a CPU; onnxruntime needs the network as a file.

        Raises:
            EncoderError: If `runtime` cannot run this encoder.
        """
        if self.runtime == "onnx":
            onnx_image.load(self._onnx_file)

    @property
    def dims(self) -> tuple[int, ...]:
        """See `RegionEncoder.dims`."""
        return (self.dim,)

    @property
    def architecture(self) -> str:
        """timm's name of the network, without the tag of its weights."""
        return str(self.encoder.pretrained_cfg["architecture"])

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels (N, 3, height, width) to region features (N, G, V); G is 1, or the number of grid cells."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.encoder.forward_features(pixels)
            if self.regions == "crops":
                pooled: Tensor = self.encoder.forward_head(features, pre_logits=True)
                return pooled[:, None, :]
            if features.ndim == 4:
                return self._channels_first(features).flatten(2).transpose(1, 2)
            return features[:, self._prefix_tokens :, :]

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Return the features of `forward`, (N, G, V) on the CPU, without gradients, for pixels on any device.

        A CPU encodes `CPU_BATCH` images at a time; the activations of more exceed its caches, which makes each image
        slower (docs/explanation/performance.md).

        Raises:
            EncoderError: If `runtime` cannot run this encoder.
        """
        device = next(self.encoder.parameters()).device
        parts = pixels.split(CPU_BATCH if device.type == "cpu" else len(pixels))
        if self.runtime == "onnx" and device.type == "cpu":
            return torch.cat([onnx_image.run(self._onnx_file, part) for part in parts])
        return torch.cat([self(part.to(device, memory_format=torch.channels_last)).cpu() for part in parts])

    @cached_property
    def _onnx_file(self) -> Path:
        return onnx_image.network_file(self, self.name, self.fingerprint(), self.input_size)

    def encode(self, batch: PostBatch) -> tuple[Tensor, ...]:
        """See `RegionEncoder.encode`: the batch's cached features, or those of its pixels.

        Raises:
            ValueError: If the batch has neither.
        """
        if batch.pixels is not None:
            return (lay_out(self(batch.pixels).flatten(0, 1), batch.pixel_mask),)
        if batch.features is None:
            raise ValueError("a batch holds either features or pixels of images: this one holds neither")
        if self.frozen:
            return (batch.features,)
        # A rank whose rows have no image must still use every trained parameter, for DDP.
        return (batch.features + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad),)

    def freeze_unused(self) -> None:
        """Freeze the parameters that no region depends on.

        A subclass that overrides `forward` calls this at the end of its constructor.
        """
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with self._evaluated() as empty, torch.enable_grad():
            gradients = torch.autograd.grad(self(empty).sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def _grid(self) -> tuple[int, int]:
        """Return rows and columns of the last feature map."""
        # Not in inference mode: some networks cache tensors of the first call, which training would then use.
        with self._evaluated() as empty, torch.no_grad():
            features = self.encoder.forward_features(empty)
        if not isinstance(features, Tensor):
            raise EncoderError(f"{self.name} has no single last feature map: use regions: crops")
        if features.ndim == 4:
            _, _, rows, columns = self._channels_first(features).shape
            return rows, columns
        cells = features.shape[1] - self._prefix_tokens
        _, height, width = self.input_size
        # Tokens are listed row by row, and cells are square, so that their side gives the number of columns.
        for side in range(1, min(height, width) + 1):
            if (height // side) * (width // side) == cells:
                return height // side, width // side
        raise EncoderError(
            f"the {cells} features that {self.name} gives of an image of {height} x {width} are no grid of cells: use "
            "regions: crops"
        )

    @contextmanager
    def _evaluated(self) -> Iterator[Tensor]:
        """Yield a zero image, (1, 3, height, width), with the network in evaluation mode, to keep its statistics."""
        mode = self.encoder.training
        self.encoder.eval()
        try:
            yield next(self.encoder.parameters()).new_zeros(1, *self.input_size)
        finally:
            self.encoder.train(mode)

    @property
    def _prefix_tokens(self) -> int:
        """Number of tokens before those of the cells: class token and registers."""
        return getattr(self.encoder, "num_prefix_tokens", 0)

    def _channels_first(self, features: Tensor) -> Tensor:
        """Return a feature map as (N, V, rows, columns); some timm models, such as Swin, have channels last."""
        channels_last = getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if channels_last else features

    def region_boxes(self) -> list[tuple[float, float, float, float]]:
        """Return the box of each of the G regions in its image or crop, x0 y0 x1 y1 in 0..1, in `forward`'s order."""
        rows, columns = self._cells
        return [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]

    def fingerprint(self) -> str:
        """Return a SHA-256 over weights, transform, regions and a subclass's code; equal encoders share it."""
        digest = hashlib.sha256(f"{self.regions}\n{self.transform}\n".encode())
        digest.update(custom_code(type(self), ImageEncoder).encode())
        digest_tensors(digest, self.encoder.state_dict())
        return digest.hexdigest()


def _create(name: str, weights: str | None, pretrained: bool, model_args: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Build the network, and return it with all its arguments."""
    comes_with_weights = name.startswith((PREFIX, HUB, FOLDER))
    if comes_with_weights and weights is not None:
        raise ConfigError(f"{name} comes with weights: leave out {weights!r}, or name the timm model they fit")
    if name.startswith(PREFIX):
        return _create_packaged(name, pretrained, model_args), model_args
    if not comes_with_weights:
        _check_known(name)
    if weights is not None and not Path(weights).is_file():
        raise EncoderError(f"the image weights {weights!r} do not exist: name a file of weights, or leave them out")
    load = (pretrained or weights is not None) and not is_weightless()
    if name.startswith(HUB) or (load and weights is None):
        settle_hub_mode()
    overlay = {"file": weights} if weights is not None else None
    try:
        arguments = _saved_args(name) | model_args
        with _tensors_not_found() as missing:
            model: Any = timm.create_model(
                name, pretrained=load, num_classes=0, pretrained_cfg_overlay=overlay, **model_args
            )
    # timm and the hub client raise many types of errors.
    except Exception as error:
        raise _not_created(name, weights, model_args, error) from error
    if missing and (weights is not None or comes_with_weights):
        raise _do_not_fit(
            name,
            weights,
            f"they lack {len(missing)} of its {len(model.state_dict())} tensors, for example {missing[0]}",
        )
    if model.pretrained_cfg.get("fixed_input_size"):
        arguments.setdefault("img_size", model.pretrained_cfg["input_size"][1:])
    return model, arguments


def _check_known(name: str) -> None:
    """Check that timm knows a name.

    Raises:
        EncoderError: If it does not; the message suggests known names.
    """
    if "/" in name or ":" in name:
        raise EncoderError(
            f"timm has no image model {name!r}: write {HUB}OWNER/NAME for a timm model on the hub, {FOLDER}PATH for "
            "one in a folder"
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), 5)) or "see timm.list_models()"
        raise EncoderError(f"timm has no image model {architecture!r}; it has for example: {close}")
    tagged = timm.list_models(architecture, include_tags=True)
    if tag and name not in tagged:
        close_first = difflib.get_close_matches(name, tagged, len(tagged), cutoff=0)
        raise EncoderError(f"timm has no weights {tag!r} of {architecture}; it has: {shown(close_first)}")


def _saved_args(name: str) -> dict[str, Any]:
    """Return the arguments saved with a timm model on the hub or in a folder."""
    args: dict[str, Any] = {}
    if name.startswith(HUB):
        _, _, args = load_model_config_from_hf(name.removeprefix(HUB))
    elif name.startswith(FOLDER):
        config = Path(name.removeprefix(FOLDER), "config.json").read_text(encoding="utf-8")
        args = json.loads(config).get("model_args", {})
    return dict(args)


def _input_size(model_args: dict[str, Any]) -> dict[str, Any]:
    """Return the input size in a network's arguments, for the data configuration."""
    size = model_args.get("img_size")
    if size is None:
        return {}
    height, width = (size, size) if isinstance(size, int) else size
    return {"input_size": (3, height, width)}


@contextmanager
def _tensors_not_found() -> Iterator[list[str]]:
    """Collect the names of tensors missing in a weight file; timm only logs them, and keeps their initial values."""
    missing: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        found = NOT_FOUND.match(message)
        if found:
            missing.extend(found[1].split(", "))
        return record.levelno >= effective and not found and not message.startswith(NOT_USED)

    log = logging.getLogger("timm.models._builder")
    level, effective = log.level, log.getEffectiveLevel()
    log.addFilter(collect)
    log.setLevel(logging.INFO)
    try:
        yield missing
    finally:
        log.setLevel(level)
        log.removeFilter(collect)


def _not_created(name: str, weights: str | None, model_args: dict[str, Any], error: Exception) -> EncoderError:
    """Return the error for a network that timm failed to build."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no more is known"]
    if lines[0].startswith("Error(s) in loading state_dict"):
        return _do_not_fit(name, weights, lines[1][:200])
    reason = f"{type(error).__name__}: {lines[0][:200]}"
    if weights is not None and not isinstance(error, TypeError):
        return EncoderError(f"the image weights {weights!r} cannot be read as those of {name} ({reason})")
    if isinstance(error, KeyError) and name.startswith((HUB, FOLDER)):
        return EncoderError(f"the config.json of {name} describes no timm model: it has no {lines[0]}")
    if isinstance(error, OSError) and not name.startswith(FOLDER):
        return unreachable("image", name, error)
    given = f" with model_args {model_args}" if model_args else ""
    return EncoderError(f"image encoder {name!r} cannot be built{given} ({reason})")


def _do_not_fit(name: str, weights: str | None, reason: str) -> EncoderError:
    return EncoderError(f"the image weights {weights or name!r} do not fit {name}: {reason}")


def _create_packaged(name: str, pretrained: bool, model_args: dict[str, Any]) -> Any:
    """Build a network from a packaged state dict whose tensors match timm's in order, under other names."""
    path = packaged_file(name)
    architecture = PACKAGED[name].architecture
    if architecture is None:
        known = ", ".join(sorted(name for name, weights in PACKAGED.items() if weights.architecture))
        raise EncoderError(f"{name} is not an image encoder: choose one of timm's names, or {known}")
    model: Any = timm.create_model(architecture, pretrained=False, **model_args)
    if not pretrained or is_weightless():
        model.reset_classifier(0)
        return model
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    expected = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in packaged.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise EncoderError(
            f"the weights of {name} do not line up with timm's {architecture}: install the versions of constraints.txt"
        )
    model.load_state_dict(dict(zip(expected, packaged.values(), strict=True)))
    model.reset_classifier(0)
    return model
