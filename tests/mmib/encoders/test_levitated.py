"""Levitated markers do not affect the text or other pairs, and are refused where they would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmib.encoders.levitated import check_levitation
from mmib.encoders.text import TextEncoder
from mmib.schema import MARKERS, ConfigError, EncoderError

Build = Callable[..., TextEncoder]
SUITED = ("BERT", "RoBERTa", "XLM-R", "DistilBERT", "ALBERT", "ELECTRA", "CamemBERT", "BERTweet")
REFUSED = ("ModernBERT", "DeBERTa", "DeBERTa-v3", "MPNet", "GPT-2", "T5", "BART", "CLIP text")
# Two separate entities, nested, overlapping, identical, and one that ends the longer post; the last row has one pair.
PLACES = torch.tensor(
    [
        [[1, 2, 4, 4], [1, 6, 3, 4], [1, 4, 3, 6], [2, 2, 2, 2], [1, 1, 7, 8]],
        [[4, 5, 1, 1], [-1] * 4, [-1] * 4, [-1] * 4, [-1] * 4],
    ]
)


def texts(encoder: TextEncoder) -> tuple[Tensor, Tensor]:
    """Two posts of 10 and 7 pieces, and their mask."""
    tokenizer = encoder.tokenizer
    ids = torch.randint(5, 40, (2, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(10)[None, :] < torch.tensor([10, 7])[:, None]
    return ids.masked_fill(~mask, tokenizer.pad_id), mask


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("name", SUITED)
def test_levitated_markers_do_not_affect_the_text_and_pairs_do_not_see_each_other(
    name: str, attention: str, family_folder: Callable[[str], str]
) -> None:
    encoder = TextEncoder(family_folder(name), dropout=0.0, attention=attention, markers="levitated").eval()
    ids, mask = texts(encoder)
    with torch.inference_mode():
        states, markers = encoder.with_markers(ids, mask, PLACES)
        close(states[mask], encoder(ids, mask)[mask])
        assert markers.shape == (2, 5, len(MARKERS), encoder.dim)
        for pair in range(5):
            close(encoder.with_markers(ids, mask, PLACES[:, pair : pair + 1])[1][0, 0], markers[0, pair])
        close(encoder.with_markers(ids[1:, :7], mask[1:, :7], PLACES[1:, :1])[1][0, 0], markers[1, 0])


def test_a_marker_has_the_position_of_its_piece_and_attends_to_the_text_and_its_pair(
    make_text_encoder: Build,
) -> None:
    encoder = make_text_encoder(markers="levitated").eval()
    ids, mask = texts(encoder)
    with torch.inference_mode():
        before = encoder.with_markers(ids, mask, PLACES)[1][0]
        moved = PLACES.clone()
        moved[0, 0, 3] += 1
        after = encoder.with_markers(ids, mask, moved)[1][0]
        assert (after - before)[0].abs().amax(dim=1).min() > 1e-4, "every marker of the pair sees that one moved"
        close(after[1:], before[1:])
        for piece in range(10):
            changed = ids.clone()
            changed[0, piece] = (changed[0, piece] + 1) % 40 + 3
            states = encoder.with_markers(changed, mask, PLACES)[1][0]
            assert (states - before).abs().amax(dim=2).min() > 1e-5, f"piece {piece}"


def test_the_markers_of_a_pair_differ_and_all_are_trained(make_text_encoder: Build) -> None:
    encoder = make_text_encoder(markers="levitated").train()
    ids, mask = texts(encoder)
    _, markers = encoder.with_markers(ids, mask, PLACES[:, 3:4])  # all four at one piece
    assert torch.pdist(markers[0, 0]).min() > 1e-2
    markers[0, 0, 0].square().sum().backward()
    assert encoder.markers.weight.grad is not None
    assert (encoder.markers.weight.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", REFUSED)
def test_encoders_without_explicit_positions_or_masks_are_refused(
    name: str, family_folder: Callable[[str], str]
) -> None:
    with pytest.raises(
        EncoderError, match=r"cannot have levitated markers: .*set markers .* to inserted, or choose"
    ) as e:
        TextEncoder(family_folder(name), markers="levitated")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_kernels_that_build_their_own_mask_are_refused(
    attention: str, make_text_encoder: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_text_encoder().encoder
    monkeypatch.setattr(encoder.config, "_attn_implementation", attention)
    with pytest.raises(ConfigError, match=rf"attention '{attention}' takes no mask .*sdpa or eager, or its markers to"):
        check_levitation(encoder)


def test_an_unknown_placement_is_refused(make_text_encoder: Build) -> None:
    with pytest.raises(ConfigError, match="markers 'floating' are unknown: choose from inserted, levitated"):
        make_text_encoder(markers="floating")
