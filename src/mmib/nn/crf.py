"""Linear-chain conditional random field over the words of a post."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmib.base.distributed import widened
from mmib.nn.forward_backward import FORBIDDEN, chain_scores, expectations, frame, mixing_steps
from mmib.nn.precision import at_least_float32, autocast_off
from mmib.schema import ConfigError


def bio_constraints(tags: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the BIO constraints of tag names: I-X follows B-X or I-X only, and does not start a post.

    Returns:
        (K,) allowed starts and (K, K) allowed transitions from row to column, boolean.
    """
    start = [not tag.startswith("I-") for tag in tags]
    transition = [
        [not tag.startswith("I-") or before in {tag, "B-" + tag.removeprefix("I-")} for tag in tags] for before in tags
    ]
    return torch.tensor(start), torch.tensor(transition)


class LinearChainCRF(nn.Module):
    """Linear-chain CRF: p(tags | post) = exp(score of the path) / Z (Lafferty et al. 2001, equation 1).

    The score of a path is the sum of the emissions of its tags, a start and an end score, and a transition score for
    each pair of neighbours, in nats. All but the emissions are parameters, which start at zero. Forbidden tags and
    transitions have probability zero.

    Masks are left-aligned: True on the words of a post, which come first. Values after them, NaN included, have no
    effect. Posts without words are allowed; W is at least 1. All computations are in float32, or in float64 for float64
    emissions, also under autocast.

    Args:
        tags: number K of tags.
        allowed_start: (K,) True for tags that may start a post; None allows every tag.
        allowed_transition: (K, K) True where the column's tag may follow the row's; None allows every pair.

    Raises:
        ConfigError: If a constraint is not boolean, or is of another number of tags.
    """

    allowed_start: Tensor
    allowed_transition: Tensor

    def __init__(
        self, tags: int, allowed_start: Tensor | None = None, allowed_transition: Tensor | None = None
    ) -> None:
        super().__init__()
        for name, allowed, shape in (
            ("allowed_start", allowed_start, (tags,)),
            ("allowed_transition", allowed_transition, (tags, tags)),
        ):
            mask = torch.ones(shape, dtype=torch.bool) if allowed is None else allowed
            if mask.shape != shape or mask.dtype != torch.bool:
                raise ConfigError(f"{name} is {mask.dtype} {tuple(mask.shape)}: {tags} tags need booleans {shape}")
            # Constraints come from the configuration, not from the checkpoint.
            self.register_buffer(name, mask, persistent=False)
        self.mixing = mixing_steps(self.allowed_start, self.allowed_transition)
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))
        self.transition = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Return the negative log-likelihood of gold tags.

        Gold tags must be allowed. A forbidden step adds 1e30 nats instead of raising an error, which would synchronise
        the device. The loss stays finite, and the gradients keep their usual size.

        Args:
            emissions: (B, W, K) scores in nats.
            tags: (B, W) gold tag ids.
            mask: (B, W) True on words.

        Returns:
            (B,) nats per post, summed over its words; 0 for a post without words.
        """
        emissions = at_least_float32(emissions)
        with autocast_off(emissions):
            losses: Tensor = _NegativeLogLikelihood.apply(emissions, self._chain(), tags, mask, self.mixing)
            return losses

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the most probable tags of each post (Viterbi 1967; Rabiner 1989, equations 32 to 35).

        Args:
            emissions: (B, W, K) scores in nats.
            mask: (B, W) True on words.

        Returns:
            (B, W) tag ids, 0 where masked.
        """
        emissions = at_least_float32(emissions)
        with autocast_off(emissions):
            places, steps = frame(emissions, mask), self._chain()
            onwards = steps[:, :, None]
            best, *following = places.scores.masked_fill(places.impossible, -math.inf).unbind()
            until = []
            for scores in following:
                until.append(best)
                best = (best[:, None] + onwards).amax(dim=0).add_(scores)
            # Backtracking recomputes the best previous tag, but only for the tags on the path.
            boundary = len(steps) - 1
            path = [mask.new_full((len(mask),), boundary, dtype=torch.long)]
            for best in reversed(until[1:]):
                path.append(steps.index_select(1, path[-1]).add_(best).max(dim=0).indices)
            # If scores are NaN, the boundary may be the best tag within a post.
            return torch.stack(path[:0:-1], dim=1).clamp_(max=boundary - 1).masked_fill_(~mask, 0)

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the marginal probability of each tag at each word, by forward-backward (Rabiner 1989, equation 27).

        Args:
            emissions: (B, W, K) scores in nats.
            mask: (B, W) True on words.

        Returns:
            (B, W, K) probabilities that sum to 1 over the tags of a word; zero where masked. Without gradients.
        """
        emissions = at_least_float32(emissions)
        with autocast_off(emissions):
            places = expectations(frame(emissions, mask), self._chain(), self.mixing).places
            return _of_words(places, emissions.dtype)

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return start (K,), transition (K, K) and end (K,) scores in nats, with the constraints applied."""
        start, transition, end = (at_least_float32(scores) for scores in (self.start, self.transition, self.end))
        return (
            start.masked_fill(~self.allowed_start, FORBIDDEN),
            transition.masked_fill(~self.allowed_transition, FORBIDDEN),
            end,
        )

    def _chain(self) -> Tensor:
        """Return the (K + 1, K + 1) scores with the boundary."""
        return chain_scores(*self.scores())


class _NegativeLogLikelihood(torch.autograd.Function):
    """log Z minus the gold score, (B,). Its gradient is the expected counts minus those of the gold tags."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, chain: Tensor, tags: Tensor, mask: Tensor, mixing: int | None) -> Tensor:
        places, boundary = frame(emissions, mask), len(chain) - 1
        expected = expectations(places, chain, mixing)
        framed = F.pad(tags.masked_fill(~mask, boundary), (1, 1), value=boundary)
        pairs = framed[:, :-1] * len(chain) + framed[:, 1:]
        gold_tags = framed.T[:, None]
        # Integer counts, so that the order of a GPU's additions does not matter.
        counts = torch.zeros_like(expected.pairs).flatten(1)
        counts.scatter_add_(1, pairs, torch.ones_like(pairs, dtype=counts.dtype))
        gold = widened(places.scores.gather(1, gold_tags)).sum(dim=(0, 1)) + counts @ widened(chain).flatten()
        surplus = expected.places.scatter_add_(1, gold_tags, -torch.ones_like(gold_tags, dtype=counts.dtype))
        ctx.save_for_backward(
            _of_words(surplus, emissions.dtype), (expected.pairs - counts.view_as(expected.pairs)).to(chain.dtype)
        )
        return (expected.log_z - gold).to(emissions.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        words, pairs = ctx.saved_tensors
        of_posts = gradient[:, None, None]
        return of_posts * words, (of_posts * pairs).sum(dim=0), None, None, None


def _of_words(places: Tensor, dtype: torch.dtype) -> Tensor:
    """Remove the boundary: (P, N, B) to (B, W, K)."""
    return places[1:-1, :-1].permute(2, 0, 1).to(dtype, memory_format=torch.contiguous_format)
