"""Image encoding: pixels to region features with any timm model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from mmib.encoders.pretrained import PACKAGED, PREFIX, is_weightless, packaged_file, settle_hub_mode, unreachable
from mmib.schema import ConfigError, EncoderError

Regions = Literal["crops", "grid"]
# Images that a CPU encodes at a time; see `ImageEncoder.features`.
CPU_BATCH = 4


class ImageEncoder(nn.Module):
    """Any timm model as encoder of image regions.

    Args:
        name: `pip:efficientnet-lite0` or a timm model name.
        weights: local weight file (.safetensors or .pth) for the timm model `name`.
        pretrained: load weights; False initialises them at random.
        frozen: no gradient, and always in evaluation mode: batch statistics neither used nor updated.
        regions: `crops` pools the whole image and each crop into one region; `grid` makes every cell of
            the whole image's last feature map a region.

    Attributes:
        dim: feature width V.
        preprocessing: timm's data configuration, by which images are prepared.
        transform: PIL image to normalised pixels (3, height, width), from that data configuration.
        training_transform: the same with timm's random crops and flips.

    Raises:
        EncoderError: the model is unknown or its weights cannot be loaded.
        ConfigError: unknown regions.
    """

    def __init__(
        self,
        name: str = "pip:efficientnet-lite0",
        weights: str | None = None,
        pretrained: bool = True,
        frozen: bool = True,
        regions: Regions = "crops",
    ) -> None:
        super().__init__()
        if regions not in ("crops", "grid"):
            raise ConfigError(f"image regions {regions!r} are unknown: choose 'crops' or 'grid'")
        self.name = name
        self.regions = regions
        self.frozen = frozen
        self.encoder = _create(name, weights, pretrained)
        # Some networks widen their features once more between pooling and classifier.
        self.dim: int = self.encoder.num_features if regions == "grid" else self.encoder.head_hidden_size
        self.preprocess_as(resolve_model_data_config(self.encoder))
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def preprocess_as(self, preprocessing: dict[str, Any]) -> None:
        """Prepare images by a data configuration of timm: size, crop, interpolation, mean and deviation."""
        self.preprocessing = preprocessing
        self.input_size: tuple[int, int, int] = preprocessing["input_size"]
        self.transform: Callable[[Image.Image], Tensor] = create_transform(**preprocessing, is_training=False)
        self.training_transform: Callable[[Image.Image], Tensor] = create_transform(**preprocessing, is_training=True)

    @property
    def architecture(self) -> str:
        """timm's name of the network, without that of its weights."""
        return str(self.encoder.pretrained_cfg["architecture"])

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, height, width) to region features (N, G, V); G is 1, or the cells of the grid."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.encoder.forward_features(pixels)
            if self.regions == "crops":
                pooled: Tensor = self.encoder.forward_head(features, pre_logits=True)
                return pooled[:, None, :]
            if features.ndim == 4:
                return self._channels_first(features).flatten(2).transpose(1, 2)
            return features[:, self.encoder.num_prefix_tokens :, :]

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """What `forward` gives, (N, G, V) on the CPU, of pixels on any device, for use without gradients.

        A CPU encodes `CPU_BATCH` images at a time: the activations of more do not fit its caches, and each takes longer
        (docs/performance.md).
        """
        device = next(self.encoder.parameters()).device
        parts = pixels.split(CPU_BATCH if device.type == "cpu" else len(pixels))
        return torch.cat([self(part.to(device, memory_format=torch.channels_last)).cpu() for part in parts])

    def train(self, mode: bool = True) -> ImageEncoder:
        """A frozen encoder ignores training mode."""
        super().train(mode and not self.frozen)
        return self

    @cached_property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of the last feature map."""
        mode = self.training
        self.eval()  # a pass in training mode would change the batch statistics
        with torch.inference_mode():
            device = next(self.encoder.parameters()).device
            features = self.encoder.forward_features(torch.zeros(1, *self.input_size, device=device))
        self.train(mode)
        if features.ndim == 4:
            _, _, rows, columns = self._channels_first(features).shape
            return rows, columns
        side = math.isqrt(features.shape[1] - self.encoder.num_prefix_tokens)
        return side, side

    def _channels_first(self, features: Tensor) -> Tensor:
        """A feature map as (N, V, rows, columns); some timm models, Swin among them, give channels last."""
        channels_last = getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if channels_last else features

    def region_boxes(self) -> list[tuple[float, float, float, float]]:
        """Box of each of the G regions inside its image or crop, x0 y0 x1 y1 in 0..1, in the order of `forward`."""
        rows, columns = (1, 1) if self.regions == "crops" else self._grid
        return [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]

    def fingerprint(self) -> str:
        """SHA-256 over class, weights, transform and regions: equal where features are equal."""
        digest = hashlib.sha256(f"{self.regions}\n{self.transform}\n".encode())
        if type(self) is not ImageEncoder:
            digest.update(type(self).__qualname__.encode())
        for key, tensor in self.encoder.state_dict().items():
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _create(name: str, weights: str | None, pretrained: bool) -> Any:
    if name.startswith(PREFIX):
        if weights is not None:
            raise ConfigError(f"{name} comes with weights: leave out {weights!r}, or name the timm model they fit")
        return _create_packaged(name, pretrained)
    if weights is not None and not Path(weights).is_file():
        raise EncoderError(f"the image weights {weights!r} do not exist")
    load = (pretrained or weights is not None) and not is_weightless()
    if load and weights is None:
        settle_hub_mode()
    overlay = {"file": weights} if weights is not None else None
    try:
        return timm.create_model(name, pretrained=load, num_classes=0, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise EncoderError(f"timm has no image model {name!r}; it has for example: {close}") from error
        raise EncoderError(f"the weights of image encoder {name!r} do not fit it: {error}") from error
    # The hub client raises many types of errors; all of them mean the same to the user.
    except Exception as error:
        if weights is not None:
            raise EncoderError(f"the image weights {weights!r} cannot be read: {error}") from error
        raise unreachable("image", name, error) from error


def _create_packaged(name: str, pretrained: bool) -> Any:
    """A network whose packaged state dict lines up one to one, in order, with that of timm under other names."""
    path = packaged_file(name)
    architecture = PACKAGED[name].architecture
    if architecture is None:
        raise EncoderError(f"{name} is not an image encoder")
    model: Any = timm.create_model(architecture, pretrained=False)
    if not pretrained or is_weightless():
        model.reset_classifier(0)
        return model
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    expected = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in packaged.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise EncoderError(f"the weights of {name} do not line up with timm's {architecture}")
    model.load_state_dict(dict(zip(expected, packaged.values(), strict=True)))
    model.reset_classifier(0)
    return model
