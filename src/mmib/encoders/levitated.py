"""Levitated markers: those of any number of entity pairs behind a text, which sees none of them.

(Zhong and Chen 2021, section 3.3; Ye et al. 2022.) The four markers of a pair share the positions of the pieces that
they levitate over, and see the text and each other. The text is encoded once for all pairs, as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmib.encoders.text_model import takes
from mmib.encoders.tokenizer import WordTokenizer
from mmib.schema import MARKERS, ConfigError, EncoderError

# Longer than what attention in a sliding window sees at once.
PROBED = 300
# Of float32 rounding, as a share of the largest state; and what another position changes at least.
ROUNDING, CHANGE = 1e-4, 1e-3


class TextWithMarkers(NamedTuple):
    """What an encoder is given.

    Attributes:
        input_ids: (B, N) the L pieces of a text and, behind them, M markers.
        positions: (B, N) of each, the first piece being 0.
        mask: (B, 1, N, N) what is added to the scores of attention: 0, or the least number where a query may not look.
            (Numbers, because plain attention would add a boolean mask, too.)
    """

    input_ids: Tensor
    positions: Tensor
    mask: Tensor


def with_markers(
    input_ids: Tensor, mask: Tensor, places: Tensor, first_marker: int, dtype: torch.dtype
) -> TextWithMarkers:
    """Set markers behind a text.

    Args:
        input_ids: (B, L) word pieces, no markers among them.
        mask: (B, L) True on pieces.
        places: (B, P, 4) of the pieces that the markers of each pair levitate over; below 0 where there is no pair.
        first_marker: id of the first of `MARKERS`.
        dtype: of the mask.
    """
    (rows, length), pairs = input_ids.shape, places.shape[1]
    markers = torch.arange(len(MARKERS), device=input_ids.device).repeat(pairs)
    of_pair = torch.arange(pairs, device=input_ids.device).repeat_interleave(len(MARKERS))
    count = length + len(markers)
    seen = mask.new_zeros(rows, count, count)
    seen[:, :, :length] = mask[:, None, :]
    seen[:, length:, length:] = of_pair[:, None] == of_pair[None, :]
    text_places = torch.arange(length, device=input_ids.device).expand(rows, length)
    return TextWithMarkers(
        input_ids=torch.cat([input_ids, (first_marker + markers).expand(rows, -1)], dim=1),
        positions=torch.cat([text_places, places.flatten(1).clamp(min=0)], dim=1),
        mask=torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[
            :, None
        ],
    )


def check_levitation(encoder: PreTrainedModel) -> None:
    """Raise where an encoder's class or its attention takes no positions or masks.

    Raises:
        EncoderError: it takes no positions, or not them alone.
        ConfigError: its attention is one of the kernels that build their own masks.
    """
    # Tables of relative positions go by where a piece stands in the sequence.
    if not takes(encoder, "position_ids") or any("relative" in name for name, _ in encoder.named_parameters()):
        raise _refused(encoder)
    attention = encoder.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        raise ConfigError(
            f"attention {attention!r} takes no mask that hides levitated markers from the text: set attention of the "
            "text encoder to sdpa or eager, or its markers to inserted"
        )


def probe_levitation(
    encoder: PreTrainedModel,
    tokenizer: WordTokenizer,
    plain: Callable[[Tensor, Tensor], Tensor],
    levitated: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Raise unless an encoder takes positions and masks as they are given, and nothing else tells where a piece stands.

    Args:
        encoder: the model.
        tokenizer: its tokenizer.
        plain: from ids and mask to states.
        levitated: from ids, mask and places to the states of the text and of its markers.

    Raises:
        EncoderError: it does not.
    """
    length = min(tokenizer.max_length or PROBED, PROBED)
    frame = len(tokenizer.prefix) + len(tokenizer.suffix)
    # Pieces that differ: of equal ones attention makes the same wherever it looks.
    inside = [number * 7919 % tokenizer.vocabulary_size for number in range(length - frame)]
    device = next(encoder.parameters()).device
    ids = torch.tensor([[*tokenizer.prefix, *inside, *tokenizer.suffix]], device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    ends = [0, 1, length // 2, length // 2 + 1]
    places = torch.tensor([[ends, ends, [place + 2 for place in ends]]], device=device)
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            expected, (text, markers) = plain(ids, mask), levitated(ids, mask, places)
    # Which error it is depends on what a model does with a mask that it does not expect.
    except Exception as error:
        raise _refused(encoder) from error
    finally:
        encoder.train(training)
    scale = expected.abs().max()
    first, again, elsewhere = markers[0]
    same = max(float((text - expected).abs().max() / scale), float((first - again).abs().max() / scale))
    if not same < ROUNDING or not float((first - elsewhere).abs().max() / scale) > CHANGE:
        raise _refused(encoder)


def _refused(encoder: PreTrainedModel) -> EncoderError:
    return EncoderError(
        f"{type(encoder).__name__} cannot have levitated markers: the positions of its word pieces, or what each of "
        "them attends to, cannot be given (they are relative, left to right, or in a window); set markers of the text "
        "encoder to inserted, or choose a BERT, RoBERTa, ELECTRA or the like"
    )
