"""Models of transformers: which are loaded, and what is said about those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, EncoderError

Build = Callable[..., TextEncoder]


def test_folder_without_weights_is_one_clear_error(unpack_bert: Path) -> None:
    (unpack_bert / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"text encoder '.*bert' could not be loaded from that folder.*safetensors"):
        TextEncoder(str(unpack_bert))


def test_damaged_weights_are_one_clear_error(unpack_bert: Path) -> None:
    (unpack_bert / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(EncoderError, match="could not be loaded from that folder"):
        TextEncoder(str(unpack_bert))


def test_weights_of_another_shape_are_one_clear_error(unpack_bert: Path) -> None:
    config = json.loads((unpack_bert / "config.json").read_text())
    (unpack_bert / "config.json").write_text(json.dumps(config | {"intermediate_size": 7}))
    with pytest.raises(EncoderError, match="could not be loaded from that folder"):
        TextEncoder(str(unpack_bert))


def test_dropout_overrides_the_encoders_own(make_text_encoder: Build) -> None:
    for given_, expected in ((0.37, {0.37}), (None, {0.1})):
        encoder = make_text_encoder(dropout=given_)
        assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_that_cannot_work_here_is_refused_in_one_sentence(
    make_text_encoder: Build, attention: str, pretrained: bool
) -> None:
    with pytest.raises(ConfigError, match=rf"^the text encoder cannot use attention '{attention}' here: .*; leave it"):
        make_text_encoder(attention=attention, pretrained=pretrained)


def test_unknown_attention_is_refused(make_text_encoder: Build) -> None:
    assert make_text_encoder().encoder.config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match=r"^attention 'eagr' is unknown: choose from auto, eager, sdpa, "):
        make_text_encoder(attention="eagr")
