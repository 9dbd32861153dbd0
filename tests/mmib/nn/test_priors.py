"""Priors of the bottleneck: analytic KL, and rates whose optimum is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from mmib.nn.alignment import Latents
from mmib.nn.gaussian import Posterior
from mmib.nn.priors import LearntPrior, Prior, StandardPrior, TextConditionalPrior

B, L, R, D = 5, 4, 3, 6


def posterior() -> Posterior:
    mask = torch.ones(B, R, dtype=torch.bool)
    mask[1, 2] = mask[3] = False
    return Posterior(torch.randn(B, R, D), torch.randn(B, R, D), mask)


def text() -> Latents:
    return Latents(torch.randn(B, L, D), torch.rand(B, L) < 0.8)


def moved(prior: Prior) -> Prior:
    """The prior with parameters changed as if by training."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


@pytest.mark.parametrize("build", [StandardPrior, LearntPrior, TextConditionalPrior])
def test_every_prior_starts_as_a_standard_normal(build: type[Prior]) -> None:
    q, z = posterior(), text()
    torch.testing.assert_close(build(D)(q, z), q.kl())


def test_the_rate_for_a_learnt_prior_matches_torch_distributions() -> None:
    prior, q = moved(LearntPrior(D)), posterior()
    r = Normal(prior.mean, torch.exp(0.5 * prior.log_var))
    expected = kl_divergence(Normal(q.mean, torch.exp(0.5 * q.log_var)), r).masked_fill(~q.mask[:, :, None], 0.0)
    torch.testing.assert_close(prior(q, text()), expected, rtol=1e-4, atol=1e-5)


def test_the_conditional_prior_is_one_gaussian_per_post_and_depends_only_on_its_valid_text() -> None:
    prior, q, z = moved(TextConditionalPrior(D)), posterior(), text()
    kl = prior(q, z)
    garbled = Latents(z.z.masked_fill(~z.mask[:, :, None], 7.0), z.mask)
    torch.testing.assert_close(prior(q, garbled), kl)
    other = Latents(torch.cat([z.z[:1] + torch.randn(1, L, D), z.z[1:]]), z.mask)
    changed = (prior(q, other) - kl).abs().sum(dim=(1, 2)) > 0
    assert changed.tolist() == [bool(z.mask[0].any()), False, False, False, False]


@pytest.mark.parametrize("build", [LearntPrior, TextConditionalPrior])
def test_masked_regions_cost_nothing_and_every_parameter_learns(build: type[Prior]) -> None:
    prior, q = moved(build(D)), posterior()
    kl = prior(q, text())
    assert not kl[~q.mask].any()
    kl.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in prior.parameters())


def train(prior: Prior, q: Posterior, z: Latents, steps: int = 800) -> float:
    """The rate in nats per position with the best prior of this kind."""
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        rate = prior(q, z).sum(dim=2).mean()
        rate.backward()
        optimizer.step()
    return float(rate.detach())


def test_known_rates_of_a_linear_gaussian_channel() -> None:
    """Text z_t = t, image x = a t + b u, and q(z | x) = N(x, s^2) with t and u standard normal.

    The best fixed Gaussian leaves I(X; Z) = log((a^2 + b^2 + s^2) / s^2) / 2 nats, the best one given the text
    I(X; Z | T) = log((b^2 + s^2) / s^2) / 2: what the text tells is free.
    """
    a, b, s, posts = 2.0, 1.0, 0.5, 4000
    t, u = torch.randn(posts, 1, 1), torch.randn(posts, 1, 1)
    x = a * t + b * u
    q = Posterior(x, torch.full_like(x, 2 * math.log(s)), torch.ones(posts, 1, dtype=torch.bool))
    wide = Posterior(F.pad(q.mean, (0, 7)), F.pad(q.log_var, (0, 7)), q.mask)
    # The constants keep the norm nearly the same, so that t can be recovered after the prior's LayerNorm.
    constants = torch.tensor([3.0, -3.0] * 3 + [0.0]).expand(posts, 1, 7)
    z = Latents(torch.cat([t, constants], dim=2), q.mask)
    standard = float(StandardPrior(8)(wide, z).sum(dim=2).mean())
    learnt = train(LearntPrior(8), wide, z)
    assert standard > learnt
    assert learnt == pytest.approx(math.log((a**2 + b**2 + s**2) / s**2) / 2, abs=0.05)
    conditional = train(TextConditionalPrior(8), wide, z)
    assert conditional == pytest.approx(math.log((b**2 + s**2) / s**2) / 2, abs=0.1)
