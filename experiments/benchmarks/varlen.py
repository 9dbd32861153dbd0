"""A text encoder on padded posts, and on the same posts packed into one row without padding.

In packed form, every word piece is computed once, and attention is within each post: on a GPU by PyTorch's kernel for
rows of variable length, in half precision; elsewhere post by post, which only serves to check that both compute the
same.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModel, BertConfig

NAME = "packed"


class PackedAttention:
    """Attention within each of the posts packed into one row, with the signature that transformers expects.

    Attributes:
        offsets: (B + 1,) start of each post, and the end of the last.
        longest: word pieces of the longest post.
    """

    offsets: Tensor
    longest: int

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        """Map (1, heads, T, d) inputs to (1, T, heads, d), without dropout."""
        sides = [states.squeeze(0).transpose(0, 1) for states in (query, key, value)]
        if query.is_cuda:
            from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - imports CUDA's kernels

            attended = varlen_attn(*sides, self.offsets, self.offsets, self.longest, self.longest)
            return attended[None], None
        posts = zip(*(states.split(self.offsets.diff().tolist()) for states in sides), strict=True)
        pieces = [F.scaled_dot_product_attention(*(post.transpose(0, 1) for post in sides)) for sides in posts]
        return torch.cat(pieces, dim=1).transpose(0, 1)[None], None


class Encoders:
    """Two encoders with the same random weights, for padded and for packed posts, without dropout.

    Args:
        config: shapes of the encoders.
        device: device of the encoders.
    """

    def __init__(self, config: BertConfig, device: torch.device) -> None:
        self.attention = PackedAttention()
        AttentionInterface.register(NAME, self.attention)
        self.device = device
        # The configuration stores the attention implementation, so each encoder has its own copy.
        self.padded, self.packed = (
            AutoModel.from_config(copy.deepcopy(config), attn_implementation=name, add_pooling_layer=False)
            for name in ("sdpa", NAME)
        )
        self.packed.load_state_dict(self.padded.state_dict())
        for encoder in (self.padded, self.packed):
            encoder.to(device).eval()

    def read(self, lengths: list[int]) -> None:
        """Generate the posts to encode: B random posts with these lengths, T pieces in total."""
        sizes = torch.tensor(lengths, device=self.device)
        posts = [torch.randint(1, 1000, (length,), device=self.device) for length in lengths]
        self.mask = torch.arange(max(lengths), device=self.device) < sizes[:, None]
        self.padded_ids = nn.utils.rnn.pad_sequence(posts, batch_first=True)
        self.packed_ids = torch.cat(posts)[None]
        self.positions = self.mask.nonzero()[None, :, 1]
        self.attention.offsets = F.pad(sizes.cumsum(0, dtype=torch.int32), (1, 0))
        self.attention.longest = max(lengths)

    def padded_states(self) -> Tensor:
        """Encode to (B, L, D); undefined where masked."""
        states: Tensor = self.padded(input_ids=self.padded_ids, attention_mask=self.mask.long()).last_hidden_state
        return states

    def packed_states(self) -> Tensor:
        """Encode the same posts to (T, D), one after the other."""
        states: Tensor = self.packed(input_ids=self.packed_ids, position_ids=self.positions).last_hidden_state
        return states[0]

    def difference(self) -> float:
        """Relative difference of the packed from the padded states."""
        padded = self.padded_states()[self.mask].float()
        return float((self.packed_states().float() - padded).norm() / padded.norm())
