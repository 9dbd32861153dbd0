"""Side text as an image: captions and other texts of an image to region features, by a frozen text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmib.encoders.image import ImageEncoder, digest_tensors
from mmib.encoders.text import TextEncoder
from mmib.schema import WHOLE_IMAGE, ConfigError

DEFAULT_TEXT_ENCODER = "pip:minilm-l6"
RegionsPerText = Literal["pieces", "mean"]


class SideTextEncoder(ImageEncoder):
    """A frozen text encoder in the place of an image encoder: regions are word pieces of side texts, or whole texts.

    It reads no pixels; the data module encodes the texts once, with `image_source: text`.

    Args:
        text_encoder: name of a `TextEncoder`, frozen at its pretrained weights. On the command line None is the
            model's text encoder; elsewhere it is `pip:minilm-l6`.
        regions_per_text: `pieces`: the state of each word piece is a region; `mean`: their mean is the only one.
        pretrained: load the weights; False initialises them at random.

    Attributes:
        dim: width V of the text encoder's states.
        max_pieces: word pieces that are read of a text; those behind them are left out.

    Raises:
        ConfigError: `regions_per_text` is unknown.
        EncoderError: the text encoder cannot be loaded.
    """

    def __init__(
        self, text_encoder: str | None = None, regions_per_text: RegionsPerText = "pieces", pretrained: bool = True
    ) -> None:
        if regions_per_text not in get_args(RegionsPerText):
            raise ConfigError(f"regions_per_text {regions_per_text!r} is unknown: choose 'pieces' or 'mean'")
        nn.Module.__init__(self)  # ImageEncoder's own builds a network for pixels
        name = DEFAULT_TEXT_ENCODER if text_encoder is None else text_encoder
        self.encoder: TextEncoder = TextEncoder(name, pretrained)
        self.name = f"text-{name}"
        self.regions = "crops"
        self.regions_per_text = regions_per_text
        self.frozen = True
        self.dim = self.encoder.dim
        self.model_args = {}
        tokenizer = self.encoder.tokenizer
        frame = len(tokenizer.prefix) + len(tokenizer.suffix)
        self.max_pieces = (tokenizer.max_length or 512) - frame
        self.requires_grad_(False)
        self.eval()

    @property
    def architecture(self) -> str:
        """The text encoder's model type."""
        return str(self.encoder.config.model_type)

    def forward(self, pixels: Tensor) -> Tensor:
        """Raise: there is nothing that could read pixels.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "the model reads side texts in place of images, and was given pixels: give it texts of the images, with "
            "data.image_source: text"
        )

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> list[Tensor]:
        """The regions of each text, (G, V) on the CPU: G word pieces, special tokens left out, or 1 for their mean."""
        tokenizer, device = self.encoder.tokenizer, next(self.parameters()).device
        words = tokenizer.pieces([text.split() for text in texts])
        pieces = [[piece for word in post for piece in word][: self.max_pieces] for post in words]
        rows = [torch.tensor([*tokenizer.prefix, *post, *tokenizer.suffix]) for post in pieces]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        states = self.encoder(ids.to(device), mask.to(device)).float().cpu()
        first = len(tokenizer.prefix)
        regions = [row[first : first + len(post)] for row, post in zip(states, pieces, strict=True)]
        return regions if self.regions_per_text == "pieces" else [row.mean(0, keepdim=True) for row in regions]

    def region_boxes(self) -> list[tuple[float, float, float, float]]:
        """The whole image: where in it a text's words are to be seen is not known."""
        return [WHOLE_IMAGE]

    def fingerprint(self) -> str:
        """SHA-256 over class, weights, tokenizer and regions: equal where features are equal."""
        described = f"{type(self).__qualname__}\n{self.regions_per_text}\n{self.encoder.tokenizer.fingerprint()}\n"
        digest = hashlib.sha256(described.encode())
        # Entity markers are random, and no text has any.
        state = {key: value for key, value in self.encoder.state_dict().items() if "markers." not in key}
        digest_tensors(digest, state)
        return digest.hexdigest()
