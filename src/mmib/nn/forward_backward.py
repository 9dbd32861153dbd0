"""Forward-backward recursion of a linear chain: log Z, and the expected counts, which are its gradient.

Posts are framed by an additional tag, the boundary: once before the words, once after them, and on all padding.
Start, end and transition scores then form one matrix, and the recursions do not depend on lengths. Both directions run
as one stack with the batch innermost, so that the number of operations depends only on the longest post, and autograd
records none of them (Rabiner 1989, section III).

Shapes: B posts, W words, P = W + 2 positions, K tags, N = K + 1 with the boundary, which is last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmib.base.distributed import widened

# Score in nats of what is forbidden: far below that of any allowed path, and finite even when added for every word, so
# that neither scores nor gradients become -inf or NaN.
FORBIDDEN = -1e30

# Nats that the values of the scaled recursion may span. float64 has 708, so that a term that underflows is 47 digits
# smaller than its sum.
SCALED_RANGE = 600.0


class Places(NamedTuple):
    """Posts framed by boundaries.

    Attributes:
        scores: (P, N, B) nats relative to the highest score of each word; 0 for the boundary and for impossible tags.
        impossible: (P, N, B) True for tags outside the words, and for the boundary on words.
    """

    scores: Tensor
    impossible: Tensor


class Expectations(NamedTuple):
    """Expectations under p(tags | post).

    Attributes:
        log_z: (B,) log of the sum over all paths, in nats; 0 for a post without words.
        places: (P, N, B) probability of each tag at each position.
        pairs: (B, N, N) expected number of transitions from the row's tag to the column's.
    """

    log_z: Tensor
    places: Tensor
    pairs: Tensor


def frame(emissions: Tensor, mask: Tensor) -> Places:
    """Frame posts by boundaries, and subtract each word's highest emission, which leaves probabilities unchanged.

    Args:
        emissions: (B, W, K) nats.
        mask: (B, W) True on words, which come first.
    """
    words = F.pad(mask, (1, 1)).T[:, None]
    impossible = torch.cat([~words.expand(-1, emissions.shape[2], -1), words], dim=1)
    scores = emissions.new_zeros(impossible.shape)
    scores[1:-1, :-1] = emissions.permute(1, 2, 0)
    scores.masked_fill_(impossible, -math.inf)
    return Places(scores.sub_(scores.amax(dim=1, keepdim=True)).masked_fill_(impossible, 0.0), impossible)


def chain_scores(start: Tensor, transition: Tensor, end: Tensor) -> Tensor:
    """Return (N, N) scores of the column's tag after the row's, from start (K,), transition (K, K) and end (K,)."""
    return torch.cat([torch.cat([transition, end[:, None]], dim=1), F.pad(start, (0, 1))[None]])


def mixing_steps(allowed_start: Tensor, allowed_transition: Tensor) -> int | None:
    """Return the smallest number of steps that lead from every tag to every tag; None if there is no such number.

    Args:
        allowed_start: (K,) True where a post may start.
        allowed_transition: (K, K) True where the column's tag may follow the row's.
    """
    step = allowed_transition.double()
    reached = step
    # If this many steps are not enough, no number is (Wielandt 1950).
    for steps in range(1, (len(step) - 1) ** 2 + 2):
        if reached.all():
            return steps if allowed_start.any() else None
        reached = (reached @ step).clamp(max=1.0)
    return None


def expectations(places: Places, chain: Tensor, mixing: int | None) -> Expectations:
    """Compute expected counts and log Z, exact for scores of any size; in float64 if the device supports it.

    Args:
        places: framed posts.
        chain: (N, N) `chain_scores`.
        mixing: `mixing_steps` of the constraints.
    """
    scores, chain = widened(places.scores), widened(chain)
    recursion = _scaled if _can_be_scaled(scores, chain, mixing) else _exact
    return recursion(Places(scores, places.impossible), chain)


def _can_be_scaled(scores: Tensor, chain: Tensor, mixing: int | None) -> bool:
    """Whether all sums of the scaled recursion stay in range; False on a GPU, where the check would synchronise.

    Among all paths up to a word, those that end in a given tag have at least the share of the weight that is lost on
    the way to it from the most probable tag `mixing` steps before, or from the start.
    """
    if mixing is None or scores.device.type != "cpu":
        return False
    lowest = chain.masked_fill(chain == FORBIDDEN, math.inf).amin() + scores.amin()
    return mixing * ((chain.amax() - lowest).item() + math.log(len(chain))) <= SCALED_RANGE


def _scaled(places: Places, chain: Tensor) -> Expectations:
    """Recursion in probabilities, scaled to sum to 1 at each position; a step is a small matrix product."""
    steps = chain.exp()
    both = torch.stack([steps.T, steps])
    sums = []

    def weigh(here: Tensor, reached: Tensor) -> None:
        scale = here.mul_(reached).sum(dim=1, keepdim=True)
        here.div_(scale)
        sums.append(scale)

    emitted = places.scores.exp()
    before, after = _sweep(emitted.masked_fill(places.impossible, 0.0), lambda weights: torch.bmm(both, weights), weigh)
    scales = torch.stack(sums)[:, 0]
    # Both directions contain the position's own weight.
    joint = (before * after).div_(emitted)
    weight = joint.sum(dim=1, keepdim=True)
    onwards = after[1:].div_(weight[1:] * scales)
    # Tags innermost: `bmm` would copy another layout post by post.
    earlier, later = (way.permute(2, 0, 1).contiguous() for way in (before[:-1], onwards))
    pairs = torch.bmm(earlier.transpose(1, 2), later)
    return Expectations(scales.log().sum(dim=(0, 1)), joint.div_(weight), pairs.mul_(steps))


def _exact(places: Places, chain: Tensor) -> Expectations:
    """Recursion in nats."""
    steps = chain[:, :, None]
    both = torch.stack([steps, steps.transpose(0, 1)])
    before, after = _sweep(
        places.scores.masked_fill(places.impossible, -math.inf),
        lambda nats: (nats[:, :, None] + both).logsumexp(dim=1),
        Tensor.add_,
    )
    joint = (before[:-1, :, None] + steps + after[1:, None]).flatten(1, 2).softmax(dim=1).unflatten(1, chain.shape)
    here = torch.cat([joint.sum(dim=2), joint[-1:].sum(dim=1)])
    return Expectations(before[-1, -1], here, joint.sum(dim=0).permute(2, 0, 1))


def _sweep(
    places: Tensor, through: Callable[[Tensor], Tensor], weigh: Callable[[Tensor, Tensor], object]
) -> tuple[Tensor, Tensor]:
    """Run the forward and the backward recursion.

    Args:
        places: (P, N, B) weights of the tags at each position.
        through: maps (2, N, B) weights of paths to those after one more step, which is backward in the second half.
        weigh: multiplies (2, N, B) weights of a position, in place, by those of the paths that reach it.

    Returns:
        (P, N, B) weights of the paths up to each position, and from each position on, by the tag there.
    """
    order = torch.arange(len(places), device=places.device)
    weights = places[torch.stack([order, order.flip(0)], dim=1)]
    for before, here in itertools.pairwise(weights.unbind()):
        weigh(here, through(before))
    return weights[:, 0], weights[:, 1].flip(0)
