"""The CRF, compared with enumeration of all paths and with the independent library pytorch-crf."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmib.nn.crf import FORBIDDEN, LinearChainCRF, bio_constraints
from mmib.schema import ConfigError

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
K = len(BIO)


class Posts(NamedTuple):
    """Emissions (B, W, K), tags (B, W) and mask (B, W)."""

    emissions: Tensor
    tags: Tensor
    mask: Tensor


def posts(lengths: tuple[int, ...] = (4, 1, 3), dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Posts:
    """Random posts of the given lengths, padded; constraints may forbid their tags."""
    shape = len(lengths), max(*lengths, 1)
    mask = torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]
    return Posts(scale * torch.randn(*shape, K, dtype=dtype), torch.randint(K, shape), mask)


def crf(constrained: bool = False, dtype: torch.dtype = torch.float64) -> LinearChainCRF:
    """A CRF with random scores."""
    module = LinearChainCRF(K, *(bio_constraints(BIO) if constrained else ())).to(dtype)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def legal(path: tuple[int, ...]) -> bool:
    """Checks BIO by definition, without the module's own constraints."""
    names = ["O", *(BIO[tag] for tag in path)]
    return all(tag[0] != "I" or before in (f"B{tag[1:]}", f"I{tag[1:]}") for before, tag in itertools.pairwise(names))


def enumerate_paths(module: LinearChainCRF, emissions: Tensor, constrained: bool) -> dict[tuple[int, ...], float]:
    """The score of every (legal) path of one post."""
    scores = {}
    for path in itertools.product(range(K), repeat=len(emissions)):
        if constrained and not legal(path):
            continue
        score = module.start[path[0]] + module.end[path[-1]]
        score = score + sum(emissions[word, tag] for word, tag in enumerate(path))
        score = score + sum(module.transition[before, tag] for before, tag in itertools.pairwise(path))
        scores[path] = score.item()
    return scores


@pytest.mark.parametrize("constrained", [False, True])
def test_likelihood_best_path_and_marginals_match_enumeration(constrained: bool) -> None:
    module, (emissions, tags, mask) = crf(constrained), posts((4, 1, 3, 2, 4))
    if constrained:
        tags = module.viterbi(torch.randn_like(emissions), mask)
    losses, best, marginals = (
        module(emissions, tags, mask),
        module.viterbi(emissions, mask),
        module.marginals(emissions, mask),
    )
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        scores = enumerate_paths(module, emissions[row, :length], constrained)
        paths, values = list(scores), torch.tensor(list(scores.values()), dtype=torch.float64)
        gold = scores[tuple(tags[row, :length].tolist())]
        assert losses[row].item() == pytest.approx(values.logsumexp(0).item() - gold, rel=1e-10)
        assert tuple(best[row, :length].tolist()) == paths[int(values.argmax())]
        expected = torch.zeros(length, K, dtype=torch.float64)
        for path, probability in zip(paths, values.softmax(0), strict=True):
            expected[torch.arange(length), torch.tensor(path)] += probability
        torch.testing.assert_close(marginals[row, :length], expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", range(5))
def test_values_and_gradients_match_pytorch_crf(dtype: torch.dtype, tolerance: float, seed: int) -> None:
    """The library runs in float64, so that its rounding is not measured."""
    torch.manual_seed(seed)
    module, (emissions, tags, mask) = crf(dtype=dtype), posts((30, 7, 1, 18), dtype, scale=3.0)
    library = torchcrf.CRF(K, batch_first=True).double()
    theirs = [library.start_transitions, library.end_transitions, library.transitions]
    with torch.no_grad():
        for target, parameter in zip(theirs, (module.start, module.end, module.transition), strict=True):
            target.copy_(parameter)
    reference = emissions.double().requires_grad_()
    emissions.requires_grad_()
    losses, expected = module(emissions, tags, mask), -library(reference, tags, mask, reduction="none")
    torch.testing.assert_close(losses.double(), expected, rtol=tolerance, atol=0)
    weights = torch.rand(len(tags), dtype=torch.float64)
    gradients = torch.autograd.grad((weights * losses).sum(), [emissions, module.start, module.end, module.transition])
    for gradient, wanted in zip(
        gradients, torch.autograd.grad((weights * expected).sum(), [reference, *theirs]), strict=True
    ):
        # Relative to the largest: single entries may be zero up to rounding.
        difference = (gradient.double() - wanted).abs().max()
        assert difference <= tolerance * wanted.abs().max()
    decoded = [row[row_mask].tolist() for row, row_mask in zip(module.viterbi(emissions, mask), mask, strict=True)]
    assert decoded == library.decode(reference, mask)


@pytest.mark.parametrize("constrained", [False, True])
def test_gradients_match_finite_differences(constrained: bool) -> None:
    module, (emissions, _, mask) = crf(constrained), posts((3, 0, 2))
    tags = module.viterbi(torch.randn_like(emissions), mask)
    inputs = [emissions.requires_grad_(), *module.parameters()]
    assert torch.autograd.gradcheck(lambda *_: module(emissions, tags, mask), inputs)
    assert not module.marginals(emissions, mask).requires_grad


def test_marginals_are_the_gradient_of_log_z() -> None:
    """d(nll) / d(emission) = marginal - gold."""
    module, (emissions, tags, mask) = crf(), posts()
    (gradient,) = torch.autograd.grad(module(emissions.requires_grad_(), tags, mask).sum(), emissions)
    gold = torch.nn.functional.one_hot(tags, K) * mask[:, :, None]
    torch.testing.assert_close(gradient, module.marginals(emissions, mask) - gold)


@settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    seed=st.integers(0, 2**32),
)
def test_a_constrained_crf_never_gives_an_invalid_path(lengths: list[int], scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    module, (emissions, _, mask) = crf(True, torch.float32), posts(tuple(lengths), torch.float32, scale)
    for row, length in zip(module.viterbi(emissions, mask).tolist(), lengths, strict=True):
        assert legal(tuple(row[:length]))
        assert not any(row[length:])
    marginals = module.marginals(emissions, mask)
    torch.testing.assert_close(marginals.sum(dim=2), mask.float())
    inside = [BIO.index("I-PER"), BIO.index("I-LOC")]
    assert not marginals[:, 0, inside].any()


def test_training_cannot_change_forbidden_scores() -> None:
    module, (emissions, _, mask) = crf(True), posts()
    tags = module.viterbi(torch.randn_like(emissions), mask)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter[...] = 1e6
    assert all(legal(tuple(row[:4].tolist())) for row in module.viterbi(emissions, mask))
    module(emissions, tags, mask).sum().backward()
    assert module.start.grad is not None
    assert module.transition.grad is not None
    assert not module.start.grad[~module.allowed_start].any()
    assert not module.transition.grad[~module.allowed_transition].any()
    assert module.transition.grad[module.allowed_transition].any()


def test_a_forbidden_gold_path_has_a_finite_loss_and_finite_gradients() -> None:
    module = crf(True, torch.float32)
    tags = torch.tensor([[2, 4, 2], [1, 2, 0]])
    emissions, mask = torch.randn(2, 3, K, requires_grad=True), torch.ones(2, 3, dtype=torch.bool)
    losses = module(emissions, tags, mask)
    assert losses[0].item() == pytest.approx(-3 * FORBIDDEN)
    assert losses.isfinite().all()
    assert 0 < losses[1] < 100
    losses.sum().backward()
    assert emissions.grad is not None
    assert emissions.grad.abs().max() <= 1
    assert module.start.grad is not None
    assert module.transition.grad is not None
    assert not module.start.grad[~module.allowed_start].any()
    assert not module.transition.grad[~module.allowed_transition].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("garbage", [1e3, float("inf"), float("nan")])
@pytest.mark.parametrize("tag", [-100, 0, 10**6])
def test_padding_has_no_effect(garbage: float, tag: int) -> None:
    module, (emissions, tags, mask) = crf(), posts((4, 1, 0, 3))
    shape = len(tags), 3
    longer = Posts(
        torch.cat([emissions.masked_fill(~mask[:, :, None], garbage), torch.full((*shape, K), garbage)], dim=1),
        torch.cat([tags.masked_fill(~mask, tag), torch.full(shape, tag)], dim=1),
        torch.cat([mask, torch.zeros(shape, dtype=torch.bool)], dim=1),
    )
    outcomes = []
    for given_posts in (Posts(emissions, tags, mask), longer):
        leaf = given_posts.emissions.clone().requires_grad_()
        losses = module(leaf, given_posts.tags, given_posts.mask)
        gradients = torch.autograd.grad(losses.sum(), [leaf, *module.parameters()])
        best, marginals = module.viterbi(leaf, given_posts.mask), module.marginals(leaf, given_posts.mask)
        outcomes.append([losses, *gradients[1:], gradients[0][:, :4], best[:, :4], marginals[:, :4]])
        behind = ~given_posts.mask
        assert not any(tensor[behind].any() for tensor in (gradients[0], best, marginals))
    for short, long in zip(*outcomes, strict=True):
        torch.testing.assert_close(long, short)


def test_posts_are_independent_of_each_other() -> None:
    module, (emissions, tags, mask) = crf(), posts((4, 1, 3))
    together = module(emissions, tags, mask)
    for row in range(3):
        torch.testing.assert_close(
            module(emissions[row : row + 1], tags[row : row + 1], mask[row : row + 1]), together[row : row + 1]
        )


def test_a_batch_without_words_has_zero_loss_and_zero_gradients() -> None:
    module, (emissions, tags, mask) = crf(), posts((0, 0))
    losses = module(emissions.requires_grad_(), tags, mask)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 0.0]
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in (emissions, *module.parameters()))
    assert not module.viterbi(emissions, mask).any()
    assert not module.marginals(emissions, mask).any()


def test_one_word_is_a_softmax_with_start_and_end_scores_and_trains_every_parameter() -> None:
    """A parameter without a gradient stops DDP."""
    module, (emissions, tags, mask) = crf(), posts((1, 1))
    losses = module(emissions, tags, mask)
    logits = emissions[:, 0] + module.start + module.end
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(logits, tags[:, 0], reduction="none"))
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_autocast_has_no_effect_for_the_same_emissions() -> None:
    module, (emissions, tags, mask) = crf(dtype=torch.float32), posts((30, 7), torch.bfloat16)
    plain = module(emissions.float(), tags, mask), module.marginals(emissions.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = module(emissions, tags, mask), module.marginals(emissions, mask)
    for one, other in zip(plain, lowered, strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one, other)


def test_a_half_precision_module_still_recurs_in_float32() -> None:
    module, (emissions, tags, mask) = crf(dtype=torch.bfloat16), posts((30, 7), torch.bfloat16)
    losses = module(emissions, tags, mask)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, module.float()(emissions, tags, mask))


@pytest.mark.parametrize("constrained", [False, True])
def test_extreme_emissions_give_finite_results(constrained: bool) -> None:
    module, (emissions, tags, mask) = crf(constrained, torch.float32), posts((40, 5), torch.float32, scale=1e4)
    if constrained:
        tags = module.viterbi(torch.randn_like(emissions), mask)
    losses = module(emissions.requires_grad_(), tags, mask)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses > 0).all()
    assert module.marginals(emissions, mask).isfinite().all()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (emissions, *module.parameters()))


def test_a_small_loss_is_exact_in_float32() -> None:
    """If log Z is computed from large scores, rounding hides what a confident model still has to learn."""
    tags = torch.randint(K, (1, 60))
    emissions = 9.0 * torch.nn.functional.one_hot(tags, K).float() + 50.0
    mask = torch.ones(1, 60, dtype=torch.bool)
    exact = LinearChainCRF(K)(emissions.double(), tags, mask)
    loss = LinearChainCRF(K)(emissions, tags, mask)
    assert 0 < exact.item() < 0.1
    torch.testing.assert_close(loss.double(), exact, rtol=1e-3, atol=0)


def test_decoding_works_under_inference_mode() -> None:
    module, (emissions, _, mask) = crf(True), posts()
    with torch.inference_mode():
        inside = module.viterbi(emissions, mask), module.marginals(emissions, mask)
    assert torch.equal(inside[0], module.viterbi(emissions.requires_grad_(), mask))
    torch.testing.assert_close(inside[1], module.marginals(emissions, mask).detach())


def test_gradient_descent_learns_transitions() -> None:
    """With equal emissions only transitions distinguish B-PER I-PER O from other paths."""
    module = LinearChainCRF(K, *bio_constraints(BIO))
    tags, mask = torch.tensor([[1, 2, 0]]), torch.ones(1, 3, dtype=torch.bool)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        module(torch.zeros(1, 3, K), tags, mask).sum().backward()
        optimizer.step()
    assert torch.equal(module.viterbi(torch.zeros(1, 3, K), mask), tags)


def test_bio_constraints_follow_the_definition() -> None:
    start, transition = bio_constraints(BIO)
    for tag in range(K):
        assert start[tag] == legal((tag,))
    for before, tag in itertools.product(range(K), repeat=2):
        # An I- tag requires its B- tag, the tag before it in the list.
        opening = (before - 1,) if BIO[before][0] == "I" else ()
        assert transition[before, tag] == legal((*opening, before, tag))


def test_constraints_are_not_in_the_checkpoint_and_are_validated() -> None:
    assert set(crf(True).state_dict()) == {"start", "end", "transition"}
    start, transition = bio_constraints(BIO)
    with pytest.raises(ConfigError, match=r"allowed_start is torch\.bool \(5,\): 4 tags"):
        LinearChainCRF(4, start)
    with pytest.raises(ConfigError, match=r"allowed_transition is torch\.float32"):
        LinearChainCRF(K, start, transition.float())
