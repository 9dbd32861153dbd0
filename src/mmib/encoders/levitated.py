"""Levitated markers: markers of any number of entity pairs, appended to a text that does not attend to them.

The four markers of a pair share the positions of the pieces over which they levitate, and attend to the text and to
each other. The text is encoded once for all pairs, as if without markers (Zhong and Chen 2021, section 3.3; Ye et al.
2022).
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

# Longer than the window of sliding-window attention.
PROBED = 300
# Relative to the largest state: bound on float32 rounding, and minimum change by another position.
ROUNDING, CHANGE = 1e-4, 1e-3


class TextWithMarkers(NamedTuple):
    """Input of an encoder with levitated markers.

    Attributes:
        input_ids: (B, N) the L pieces of a text, followed by M markers.
        positions: (B, N) position of each, from 0 for the first piece.
        mask: (B, 1, N, N) additive attention mask: 0, or the lowest number where a query must not attend. It is not
            boolean because eager attention adds it to the scores.
    """

    input_ids: Tensor
    positions: Tensor
    mask: Tensor


def with_markers(
    input_ids: Tensor, mask: Tensor, places: Tensor, first_marker: int, dtype: torch.dtype
) -> TextWithMarkers:
    """Append levitated markers to a text.

    Args:
        input_ids: (B, L) word pieces without markers.
        mask: (B, L) True on pieces.
        places: (B, P, 4) positions of the pieces over which the markers of each pair levitate; negative without a pair.
        first_marker: id of the first of `MARKERS`.
        dtype: dtype of the returned mask.
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
    """Check that an encoder and its attention implementation accept positions and masks.

    Raises:
        EncoderError: If the encoder takes no positions, or has relative ones.
        ConfigError: If its attention implementation builds its own masks.
    """
    # Relative positions are derived from a piece's place in the sequence, not from position ids.
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
    """Check on an example that an encoder respects positions and masks, and has no other position information.

    Args:
        encoder: the model.
        tokenizer: its tokenizer.
        plain: maps ids and mask to states.
        levitated: maps ids, mask and places to the states of the text and of its markers.

    Raises:
        EncoderError: If the check fails.
    """
    length = min(tokenizer.max_length or PROBED, PROBED)
    frame = len(tokenizer.prefix) + len(tokenizer.suffix)
    # Distinct pieces, because attention over equal ones has the same result at any position.
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
    # The type of error depends on how a model handles an unexpected mask.
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
