"""Linear-chain conditional random field over the words of a post."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmib.nn.precision import at_least_float32, autocast_off
from mmib.schema import ConfigError

# Score of what is forbidden, in nats: below that of any allowed path by far, and finite even once for every word, so
# that neither scores nor gradients meet -inf or NaN.
FORBIDDEN = -1e30


def bio_constraints(tags: Sequence[str]) -> tuple[Tensor, Tensor]:
    """What BIO allows among tag names: I-X follows B-X or I-X only, and starts no post.

    Returns:
        (K,) allowed starts and (K, K) allowed transitions from row to column, boolean.
    """
    start = [not tag.startswith("I-") for tag in tags]
    transition = [
        [not tag.startswith("I-") or before in {tag, "B-" + tag.removeprefix("I-")} for tag in tags] for before in tags
    ]
    return torch.tensor(start), torch.tensor(transition)


class LinearChainCRF(nn.Module):
    """p(tags | post) = exp(score of the path) / Z, over the words of a post (Lafferty et al. 2001, equation 1).

    The score of a path adds up the emission of each word's tag, a start, an end and a transition for each pair of
    neighbours, all in nats and all learnt but the emissions. They start at zero. What is forbidden has probability
    zero and cannot be learnt.

    Masks are left-aligned: True on the words of a post, which come first. What stands behind them, NaN included,
    changes nothing. Posts without words are allowed, W is at least 1. Everything runs in float32, or in float64 where
    the emissions have it, also under autocast.

    Args:
        tags: number K of tags.
        allowed_start: (K,) True where a post may start; None allows every tag.
        allowed_transition: (K, K) True where the column's tag may follow the row's; None allows every pair.

    Raises:
        ConfigError: constraints of another number of tags.
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
            # The configuration decides what is allowed, not the checkpoint.
            self.register_buffer(name, mask, persistent=False)
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))
        self.transition = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood of gold tags.

        Gold tags must be allowed ones. Each forbidden step costs 1e30 nats instead of an error, which would make the
        device wait: the loss shows it and stays finite, the gradients keep their usual size.

        Args:
            emissions: (B, W, K) scores in nats.
            tags: (B, W) gold tag ids.
            mask: (B, W) True on words.

        Returns:
            (B,) nats a post, summed over its words; 0 for a post without words.
        """
        emissions = _prepare(emissions, mask)
        tags = tags.masked_fill(~mask, 0)
        with autocast_off(emissions):
            start, transition, end = self._scores()
            words = emissions.gather(2, tags[:, :, None]).squeeze(2).masked_fill(~mask, 0.0)
            last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
            steps = transition[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0)
            gold = start[tags[:, 0]] + words.sum(dim=1) + steps.sum(dim=1) + end[last]
            log_z = (self._forward_scores(emissions, mask)[-1] + end).logsumexp(dim=1)
            return (log_z - gold).masked_fill(~mask.any(dim=1), 0.0)

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The most probable tags of each post (Viterbi 1967; Rabiner 1989, equations 32 to 35).

        Args:
            emissions: (B, W, K) scores in nats.
            mask: (B, W) True on words.

        Returns:
            (B, W) tag ids, 0 where masked.
        """
        emissions = _prepare(emissions, mask)
        with autocast_off(emissions):
            start, transition, end = self._scores()
            best = start + emissions[:, 0]
            stay = torch.arange(len(start), device=emissions.device)
            came_from = []
            for emission, word in zip(emissions.unbind(1)[1:], mask[:, 1:, None].unbind(1), strict=True):
                reached, before = (best[:, :, None] + transition).max(dim=1)
                best = torch.where(word, reached + emission, best)
                came_from.append(torch.where(word, before, stay))
            path = [(best + end).argmax(dim=1, keepdim=True)]
            for before in reversed(came_from):
                path.append(before.gather(1, path[-1]))
            return torch.cat(path[::-1], dim=1).masked_fill(~mask, 0)

    def marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Probability of each tag at each word by forward and backward recursion (Rabiner 1989, equation 27).

        Args:
            emissions: (B, W, K) scores in nats.
            mask: (B, W) True on words.

        Returns:
            (B, W, K), summing to 1 over the tags of a word; zero where masked.
        """
        emissions = _prepare(emissions, mask)
        with autocast_off(emissions):
            _, transition, end = self._scores()
            before = torch.stack(self._forward_scores(emissions, mask), dim=1)
            backward = [end.expand_as(emissions[:, 0])]
            for emission, word in zip(
                reversed(emissions.unbind(1)[1:]), reversed(mask[:, 1:, None].unbind(1)), strict=True
            ):
                continued = (transition + (emission + backward[-1])[:, None, :]).logsumexp(dim=2)
                backward.append(torch.where(word, continued, end))
            after = torch.stack(backward[::-1], dim=1)
            return (before + after).softmax(dim=2).masked_fill(~mask[:, :, None], 0.0)

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Start (K,), transition (K, K) and end (K,) scores, constraints applied."""
        start, transition, end = (at_least_float32(scores) for scores in (self.start, self.transition, self.end))
        return (
            start.masked_fill(~self.allowed_start, FORBIDDEN),
            transition.masked_fill(~self.allowed_transition, FORBIDDEN),
            end,
        )

    def _forward_scores(self, emissions: Tensor, mask: Tensor) -> list[Tensor]:
        """For each word, (B, K) log-sums over all paths that end there in each tag; behind a post, its last ones."""
        start, transition, _ = self._scores()
        scores = [start + emissions[:, 0]]
        for emission, word in zip(emissions.unbind(1)[1:], mask[:, 1:, None].unbind(1), strict=True):
            reached = (scores[-1][:, :, None] + transition).logsumexp(dim=1) + emission
            scores.append(torch.where(word, reached, scores[-1]))
        return scores


def _prepare(emissions: Tensor, mask: Tensor) -> Tensor:
    """Emissions in at least float32, measured from the highest of each word, zero where masked.

    A constant added to all emissions of a word changes no probability. Without it, sums over long posts stay small,
    and a small loss is no difference of large ones.
    """
    emissions = at_least_float32(emissions).masked_fill(~mask[:, :, None], 0.0)
    return emissions - emissions.detach().amax(dim=2, keepdim=True)
