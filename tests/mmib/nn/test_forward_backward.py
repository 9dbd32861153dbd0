"""Both variants of the recursion, compared with a plain loop of logsumexp, its autograd, and each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mmib.nn import forward_backward
from mmib.nn.crf import bio_constraints
from mmib.nn.forward_backward import FORBIDDEN, chain_scores, expectations, frame, mixing_steps

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
K = len(BIO)
ONE_WAY = torch.tensor([[True, True], [False, True]])


def masks(lengths: tuple[int, ...], width: int) -> Tensor:
    """(B, W) True on words."""
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def scores(allowed_start: Tensor, allowed_transition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Random start, transition and end scores that satisfy constraints."""
    tags = len(allowed_start)
    start, transition, end = (torch.randn(shape, dtype=torch.float64) for shape in ((tags,), (tags, tags), (tags,)))
    return (
        start.masked_fill(~allowed_start, FORBIDDEN),
        transition.masked_fill(~allowed_transition, FORBIDDEN),
        end,
    )


def plain_log_z(emissions: Tensor, start: Tensor, transition: Tensor, end: Tensor) -> Tensor:
    """log Z of one post, (W, K), word by word, using autograd."""
    reached = start + emissions[0]
    for emission in emissions[1:]:
        reached = (reached[:, None] + transition).logsumexp(dim=0) + emission
    return (reached + end).logsumexp(dim=0)


def assert_same_as_plain(lengths: tuple[int, ...], scale: float, constrained: bool, scaled: bool) -> None:
    """log Z, tag probabilities and expected pairs match the plain recursion and its gradients."""
    allowed = bio_constraints(BIO) if constrained else (torch.ones(K).bool(), torch.ones(K, K).bool())
    parts, mask = scores(*allowed), masks(lengths, max(lengths) + 2)
    emissions = scale * torch.randn(*mask.shape, K, dtype=torch.float64)
    found = expectations(frame(emissions, mask), chain_scores(*parts), mixing_steps(*allowed) if scaled else None)
    for row, length in enumerate(lengths):
        shifted = emissions[row, :length] - emissions[row, :length].amax(dim=1, keepdim=True)
        leaves = [leaf.clone().requires_grad_() for leaf in (shifted, *parts)]
        log_z = plain_log_z(*leaves)
        words, start, transition, end = torch.autograd.grad(log_z, leaves, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(found.log_z[row], log_z.detach())
        torch.testing.assert_close(found.places[1 : length + 1, :K, row], words)
        torch.testing.assert_close(found.pairs[row, :K, :K], transition)
        torch.testing.assert_close(found.pairs[row, K, :K], start)
        torch.testing.assert_close(found.pairs[row, :K, K], end)
        boundary = found.places[:, K, row]
        torch.testing.assert_close(boundary, 1.0 - torch.nn.functional.pad(mask[row].double(), (1, 1)))


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 1e4])
def test_expectations_match_the_gradients_of_a_plain_loop(scale: float, constrained: bool, scaled: bool) -> None:
    torch.manual_seed(0)
    assert_same_as_plain((12, 1, 7), scale, constrained, scaled)


def test_scaled_probabilities_are_used_exactly_where_they_are_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest scores that are still scaled, and slightly wider ones, both match the plain loop."""
    calls = []
    exact = forward_backward._exact
    monkeypatch.setattr(forward_backward, "_exact", lambda *given: calls.append(1) or exact(*given))
    torch.manual_seed(0)
    assert_same_as_plain((30, 4), 20.0, True, True)
    assert not calls
    assert_same_as_plain((30, 4), 100.0, True, True)
    assert calls


def test_scores_at_the_limit_of_the_range_are_exact() -> None:
    """All likely paths end at the next word, so that only apparently lost paths remain."""
    width, spread = 20, forward_backward.SCALED_RANGE - math.log(3) - 1
    emissions = torch.zeros(1, width, 2, dtype=torch.float64)
    emissions[0, ::2, 0] = emissions[0, 1::2, 1] = -spread / 2
    transition = torch.tensor([[0.0, -spread / 2], [-spread / 2, 0.0]], dtype=torch.float64)
    chain = chain_scores(torch.zeros(2).double(), transition, torch.zeros(2).double())
    framed = frame(emissions, torch.ones(1, width, dtype=torch.bool))
    assert forward_backward._can_be_scaled(framed.scores, chain, 1)
    for one, other in zip(expectations(framed, chain, 1), expectations(framed, chain, None), strict=True):
        torch.testing.assert_close(one, other)


def test_a_tie_between_regions_that_forget_the_start_is_detected() -> None:
    """A tag lost at 400 nats that is recovered two regions later: probabilities underflow, but the result must not."""
    emissions = torch.zeros(1, 3, 2, dtype=torch.float64)
    emissions[0, :, 0] = torch.tensor([0.0, -800.0, 0.0])
    emissions[0, :, 1] = torch.tensor([-400.0, 0.0, -400.0])
    apart = torch.tensor([[0.0, -1e4], [-1e4, 0.0]], dtype=torch.float64)
    chain = chain_scores(torch.zeros(2).double(), apart, torch.zeros(2).double())
    found = expectations(frame(emissions, torch.ones(1, 3, dtype=torch.bool)), chain, 1)
    assert found.log_z.item() == pytest.approx(-800 + math.log(2))
    torch.testing.assert_close(found.places[1:-1, :2], torch.full((3, 2, 1), 0.5, dtype=torch.float64))


def test_emissions_are_shifted_by_their_maximum_and_padding_is_ignored() -> None:
    mask = masks((2, 0), 3)
    emissions = torch.tensor([[[5.0, 7.0], [-3.0, -3.0], [math.nan, math.inf]]] * 2)
    emissions[1] = math.nan
    scores_, impossible = frame(emissions, mask)
    assert scores_[:, :, 0].tolist() == [[0, 0, 0], [-2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert impossible[:, 0, 0].tolist() == [True, False, False, True, True]
    assert impossible[:, 2].T.tolist() == [[False, True, True, False, False], [False] * 5]
    assert not scores_[:, :, 1].any()


@pytest.mark.parametrize("mixing", [1, None])
def test_a_post_without_words_has_one_path_with_weight_one(mixing: int | None) -> None:
    parts = scores(torch.ones(K).bool(), torch.ones(K, K).bool())
    found = expectations(frame(torch.randn(2, 3, K), masks((0, 0), 3)), chain_scores(*parts), mixing)
    assert found.log_z.tolist() == [0.0, 0.0]
    assert not found.places[:, :K].any()
    assert not found.pairs[:, :K].any()


@pytest.mark.parametrize("mixing", [1, None])
def test_a_nan_score_affects_only_its_own_post(mixing: int | None) -> None:
    chain = chain_scores(*scores(torch.ones(K).bool(), torch.ones(K, K).bool()))
    emissions, mask = torch.randn(2, 3, K), masks((3, 2), 3)
    clean = expectations(frame(emissions, mask), chain, mixing)
    emissions[0, 1, 2] = math.nan
    found = expectations(frame(emissions, mask), chain, mixing)
    assert found.log_z[0].isnan()
    torch.testing.assert_close(found.log_z[1], clean.log_z[1])
    torch.testing.assert_close(found.pairs[1], clean.pairs[1])


def test_a_tag_with_emission_minus_infinity_has_probability_zero() -> None:
    chain = chain_scores(*scores(torch.ones(K).bool(), torch.ones(K, K).bool()))
    emissions, mask = torch.randn(1, 3, K), masks((3,), 3)
    emissions[0, 1, 2] = -math.inf
    found = expectations(frame(emissions, mask), chain, 1)
    assert found.log_z.isfinite().all()
    assert found.places[2, 2, 0] == 0
    torch.testing.assert_close(found.places.sum(dim=1), torch.ones(5, 1, dtype=torch.float64))


def test_mixing_steps_match_enumeration() -> None:
    start, transition = bio_constraints(BIO)
    assert mixing_steps(start, transition) == 2
    assert mixing_steps(torch.ones(K).bool(), torch.ones(K, K).bool()) == 1
    assert mixing_steps(torch.ones(1).bool(), torch.ones(1, 1).bool()) == 1
    assert mixing_steps(torch.ones(2).bool(), ONE_WAY) is None
    assert mixing_steps(torch.zeros(K).bool(), torch.ones(K, K).bool()) is None
    # Wielandt's example needs the maximum number of steps of any chain of its size.
    ring = torch.zeros(4, 4, dtype=torch.bool)
    for before, after in [*itertools.pairwise(range(4)), (3, 0), (3, 1)]:
        ring[before, after] = True
    assert mixing_steps(torch.ones(4).bool(), ring) == 10


def test_an_irreversible_chain_is_exact() -> None:
    """The first tag cannot be reached from the second: lost paths may be all that remain."""
    allowed = torch.ones(2).bool(), ONE_WAY
    parts, mask = scores(*allowed), masks((40,), 40)
    emissions = torch.zeros(1, 40, 2, dtype=torch.float64)
    emissions[0, :, 1] = -30.0
    emissions[0, -1, 0] = -2000.0
    found = expectations(frame(emissions, mask), chain_scores(*parts), mixing_steps(*allowed))
    shifted = emissions[0] - emissions[0].amax(dim=1, keepdim=True)
    torch.testing.assert_close(found.log_z[0], plain_log_z(shifted, *parts))
