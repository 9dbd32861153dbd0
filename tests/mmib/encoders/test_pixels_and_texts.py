"""Pixels and side texts combined in one model, with separate projections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from mmib.backbone import MultimodalIB
from mmib.encoders.image import ImageEncoder
from mmib.encoders.pixels_and_texts import PixelsAndTextsEncoder, encoders_of
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, PostBatch, SideTextBatch


@pytest.mark.parametrize("task", ["mner"])
def test_each_source_has_a_separate_projection(
    make_text_encoder: Callable[..., TextEncoder],
    make_image_encoder: Callable[..., ImageEncoder],
    make_batch: Callable[..., PostBatch],
) -> None:
    text_encoder = make_text_encoder()
    encoder = PixelsAndTextsEncoder(make_image_encoder(), SideTextEncoder(shared=True))
    backbone = MultimodalIB(text_encoder, encoder).eval()
    assert encoder.dims == (encoder.pixels.dim, text_encoder.dim)
    batch = make_batch(regions=(3, 1, 0, 2))
    # One region of the first row is an image, none of the second, both of the last.
    mask = torch.tensor([[False, True, True], [True, False, False], [False] * 3, [False] * 3])
    ids = torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]])
    side = SideTextBatch(mask=mask, input_ids=ids, text_mask=ids > 0)
    mixed = dataclasses.replace(batch, side_texts=side)
    assert mixed.to("cpu").side_texts is not None
    regions = backbone._regions(mixed)
    alone = backbone._regions(
        dataclasses.replace(batch, side_texts=dataclasses.replace(side, mask=mask & False, input_ids=ids[:0]))
    )
    torch.testing.assert_close(regions[mixed.pixel_mask], alone[mixed.pixel_mask])
    states = text_encoder(ids, ids > 0)
    expected = torch.stack([states[0, 1], states[0, 2], states[1, 1]])
    projected = backbone.side_text_projection(expected) + backbone.box_projection(batch.boxes[mask])
    torch.testing.assert_close(regions[mask], projected)


def test_an_encoder_needs_pixels_texts_or_both(
    make_image_encoder: Callable[..., ImageEncoder], bert_folder: str
) -> None:
    pixels, texts = make_image_encoder(), SideTextEncoder(bert_folder)
    both = PixelsAndTextsEncoder(pixels, texts)
    assert encoders_of(both) == (pixels, texts)
    assert encoders_of(pixels) == (pixels, None)
    assert encoders_of(texts) == (None, texts)
    assert not both.train().pixels.training
    with pytest.raises(
        ConfigError, match=r"a Linear: make its class a subclass of mmib\.encoders\.image\.ImageEncoder"
    ):
        encoders_of(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
