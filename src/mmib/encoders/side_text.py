"""Encoding of side texts of images, such as captions, to region features with a text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmib.base.code import custom_code
from mmib.encoders.regions import RegionEncoder, digest_tensors, lay_out
from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, PostBatch

DEFAULT_TEXT_ENCODER = "pip:minilm-l6"
# Maximum length of texts for encoders without a limit.
MOST_PIECES = 512
RegionsPerText = Literal["pieces", "mean"]


class SideTextEncoder(RegionEncoder):
    """A text encoder used as image encoder: regions are word pieces of side texts, or whole texts.

    A frozen text encoder encodes each text once, for the data module's cache. A text encoder that is shared with the
    model and trained encodes the texts in each batch, and is also trained by them.

    Args:
        text_encoder: name of a `TextEncoder` with frozen pretrained weights. None stands for the name of the model's
            text encoder on the command line, and for `pip:minilm-l6` elsewhere.
        regions_per_text: `pieces`: each word piece's state is a region; `mean`: the mean of these is the only region.
        pretrained: load the weights; False initialises them at random.
        shared: use the model's text encoder, with its weights, instead of a separate one.

    Attributes:
        name: name of its weights, for messages and folders.

    Raises:
        ConfigError: If `regions_per_text` is unknown, or `text_encoder` is set together with `shared`.
        EncoderError: If the text encoder cannot be loaded.
    """

    source = "text"

    def __init__(
        self,
        text_encoder: str | None = None,
        regions_per_text: RegionsPerText = "pieces",
        pretrained: bool = True,
        shared: bool = False,
    ) -> None:
        if regions_per_text not in get_args(RegionsPerText):
            raise ConfigError(f"regions_per_text {regions_per_text!r} is unknown: choose 'pieces' or 'mean'")
        if shared and text_encoder is not None:
            raise ConfigError(
                f"the encoder of side texts is shared with the model, and text_encoder names {text_encoder!r}: leave "
                "one of them out"
            )
        super().__init__()
        self.regions_per_text = regions_per_text
        self.shared = shared
        self.frozen = True
        # In a list the model's text encoder is not a submodule, so that checkpoints contain its weights once.
        self._model_encoder: list[TextEncoder] = []
        self.name = "text-shared"
        if not shared:
            name = DEFAULT_TEXT_ENCODER if text_encoder is None else text_encoder
            self.name = f"text-{name}"
            self.encoder = TextEncoder(name, pretrained)
            self.requires_grad_(False)
            self.eval()

    def share(self, text_encoder: TextEncoder) -> None:
        """See `RegionEncoder.share`."""
        if self.shared:
            self._model_encoder = [text_encoder]
            self.frozen = not any(parameter.requires_grad for parameter in text_encoder.parameters())

    @property
    def text_encoder(self) -> TextEncoder:
        """The text encoder in use.

        Raises:
            ConfigError: If it is shared, but no model has set it yet.
        """
        if not self.shared:
            return self.encoder
        if not self._model_encoder:
            raise ConfigError(
                "the encoder of side texts is shared, but has no model yet: build a MultimodalIB with it first"
            )
        return self._model_encoder[0]

    @property
    def dim(self) -> int:
        """Width V of the text encoder's states."""
        return self.text_encoder.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """See `RegionEncoder.dims`."""
        return (self.dim,)

    def input_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word pieces of each text, special ones included, truncated to the encoder's maximum length."""
        tokenizer = self.text_encoder.tokenizer
        most = (tokenizer.max_length or MOST_PIECES) - len(tokenizer.prefix) - len(tokenizer.suffix)
        words = tokenizer.pieces([text.split() for text in texts])
        pieces = [[piece for word in text for piece in word] for text in words]
        return [[*tokenizer.prefix, *text[:most], *tokenizer.suffix] for text in pieces]

    def region_count(self, input_ids: Sequence[int]) -> int:
        """Return the number of regions of a text with these word pieces."""
        tokenizer = self.text_encoder.tokenizer
        special = len(tokenizer.prefix) + len(tokenizer.suffix)
        return len(input_ids) - special if self.regions_per_text == "pieces" else 1

    def forward(self, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Encode texts (T, S), special pieces included, to the features (N, V) of their regions, text by text."""
        tokenizer = self.text_encoder.tokenizer
        states: Tensor = self.text_encoder(input_ids, text_mask)
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        ends = text_mask.sum(dim=1, keepdim=True) - len(tokenizer.suffix)
        is_region = (place >= len(tokenizer.prefix)) & (place < ends)
        if self.regions_per_text == "pieces":
            return states[is_region]
        return (states * is_region[:, :, None]).sum(dim=1) / is_region.sum(dim=1, keepdim=True)

    def encode(self, batch: PostBatch) -> tuple[Tensor, ...]:
        """See `RegionEncoder.encode`: the batch's cached features, or those of its texts.

        Raises:
            ConfigError: If the batch has no side texts.
        """
        texts = batch.side_texts
        if texts is None:
            raise ConfigError(
                "the model reads side texts of images, and was given none: set data.image_source and data.side_text"
            )
        if texts.features is not None:
            return (texts.features,)
        if texts.input_ids is None or texts.text_mask is None:
            raise ValueError("side texts are either features or word pieces: a batch holds neither")
        if not len(texts.input_ids):
            return (torch.zeros(*texts.mask.shape, self.dim, device=texts.mask.device),)
        return (lay_out(self(texts.input_ids, texts.text_mask), texts.mask),)

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the regions of each text, (G, V) on the CPU; G is 1 or the number of non-special word pieces."""
        rows = self.input_ids(texts)
        ids, mask = padded(rows, self.text_encoder.tokenizer.pad_id)
        with _evaluated(self.text_encoder):
            device = self.text_encoder.markers.weight.device
            features: Tensor = self(ids.to(device), mask.to(device)).float().cpu()
        return list(features.split([self.region_count(row) for row in rows]))

    def fingerprint(self) -> str:
        """Return a SHA-256 over weights, tokenizer, regions and the code of subclasses; equal encoders share it."""
        tokenizer = self.text_encoder.tokenizer.fingerprint()
        described = f"{type(self).__qualname__}\n{self.regions_per_text}\n{tokenizer}\n"
        custom = custom_code(type(self), SideTextEncoder) + custom_code(type(self.text_encoder), TextEncoder)
        digest = hashlib.sha256((described + custom).encode())
        # Entity markers are random, and do not occur in side texts.
        state = {key: value for key, value in self.text_encoder.state_dict().items() if "markers." not in key}
        digest_tensors(digest, state)
        return digest.hexdigest()


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad the word pieces of T texts; return ids and mask, (T, S) each."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    ids = torch.full((len(rows), max(map(len, rows), default=0)), pad_id)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """Return a context in which a network is in evaluation mode."""
    mode = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(mode)
