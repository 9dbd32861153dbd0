"""The information estimates, for distributions whose information is known in closed form or by quadrature.

Samples use fixed seeds; "within sampling error" is four standard errors of the mean over batches.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, special, stats
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from experiments.known_answers import (
    DensityRatio,
    Estimate,
    best_info_nce,
    channel,
    correlation,
    estimate,
    excess,
    gaussian_pairs,
    information,
    jensen_shannon,
    jsd,
    log_density_ratio,
    own_info_nce,
    shared_info_nce,
    sphere_information,
    sphere_pairs,
)
from mmib.nn.alignment import Candidates, candidate_mask, info_nce
from mmib.nn.gaussian import Posterior

ERRORS = 4
SIZES = (8, 32, 128)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def above(found: Estimate, bound: float) -> bool:
    """Whether an estimate exceeds a number by more than the sampling error."""
    return found.mean > bound + ERRORS * found.error


def close(found: Estimate, value: float) -> bool:
    return abs(found.mean - value) <= ERRORS * found.error


# The true values.


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.7, 0.99])
def test_mutual_information_is_the_kl_divergence_of_joint_and_product(rho: float) -> None:
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    joint, product = (MultivariateNormal(torch.zeros(2).double(), c) for c in (covariance, torch.eye(2).double()))
    assert information(rho) == pytest.approx(kl_divergence(joint, product).item(), abs=1e-12)
    assert information(rho, dims=5) == pytest.approx(5 * information(rho))
    assert correlation(information(rho, dims=5), dims=5) == pytest.approx(abs(rho))
    x, z = torch.randn(2, 50, dtype=torch.float64)
    pairs = torch.stack([x, z], dim=1)
    ratio = log_density_ratio(x[:, None], z[:, None], rho)
    torch.testing.assert_close(ratio, joint.log_prob(pairs) - product.log_prob(pairs))


def test_information_on_the_circle_matches_bessel_functions() -> None:
    for at in (0.5, 4.0, 80.0):
        expected = at * special.i1e(at) / special.i0e(at) - math.log(special.i0e(at)) - at
        assert sphere_information(at, dims=2) == pytest.approx(expected, rel=1e-9)


def test_pairs_on_the_sphere_are_as_close_as_their_concentration_implies() -> None:
    """E cos = I_{d/2}(c) / I_{d/2 - 1}(c), around every x and not only around the pole."""
    x, z = sphere_pairs(7.0, 4000, 4, seed=0)
    cosines = (x * z).sum(dim=1)
    assert close(estimate(cosines.tolist()), special.ive(2, 7.0) / special.ive(1, 7.0))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert z.mean(dim=0).abs().max() < 0.05


def test_quadrature_of_the_jensen_shannon_divergence_at_its_limits() -> None:
    """Nearly independent: JSD = chi^2 / 8 = rho^2 / 8. Nearly deterministic: log 2."""
    assert jensen_shannon(0.0) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon(0.02) == pytest.approx(0.02**2 / 8, rel=1e-3)
    assert 0.99 * math.log(2) < jensen_shannon(1 - 1e-10) < math.log(2)


# The KL rate.


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("dims", [1, 6])
def test_the_rate_is_the_mutual_information_if_latents_are_standard_normal(
    generator: torch.Generator, rho: float, dims: int
) -> None:
    x = torch.randn(20_000, dims, generator=generator, dtype=torch.float64)
    q = channel(x, rho)
    assert close(estimate(q.kl().sum(dim=(1, 2)).tolist()), information(rho, dims))
    by_dimension = q.kl().mean(dim=(0, 1))
    assert by_dimension.sum().item() == pytest.approx(information(rho, dims), rel=0.05)
    torch.testing.assert_close(by_dimension, torch.full_like(by_dimension, information(rho)), rtol=0.05, atol=0.0)


def test_rates_of_dimensions_add_up_in_nats(generator: torch.Generator) -> None:
    """I(X; Z) = -1/2 sum log(1 - rho_d^2); an uninformative dimension costs nothing."""
    rhos = [0.0, 0.4, 0.8]
    x = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    parts = [channel(column, rho) for column, rho in zip(x.split(1, dim=1), rhos, strict=True)]
    q = Posterior(torch.cat([p.mean for p in parts], 2), torch.cat([p.log_var for p in parts], 2), parts[0].mask)
    assert close(estimate(q.kl().sum(dim=(1, 2)).tolist()), sum(map(information, rhos)))
    assert not q.kl()[:, :, 0].any()


@pytest.mark.parametrize(("offset", "scale"), [(0.5, 1.0), (0.0, 0.3), (-1.0, 2.0)])
def test_the_rate_of_other_latents_exceeds_the_mutual_information_by_their_divergence_from_the_prior(
    generator: torch.Generator, offset: float, scale: float
) -> None:
    """E KL(q(z|x) || p) = I(X; Z) + KL(q(z) || p), and shifting or scaling z does not change the information."""
    marginal = Normal(*torch.tensor([offset, scale], dtype=torch.float64))
    gap = kl_divergence(marginal, Normal(0.0, 1.0)).item()
    assert excess(offset, scale) == pytest.approx(gap, rel=1e-9)
    x = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    found = estimate(channel(x, 0.7, offset, scale).kl().sum(dim=(1, 2)).tolist())
    assert close(found, information(0.7, 2) + 2 * gap)
    assert above(found, information(0.7, 2))


# InfoNCE.


@pytest.mark.parametrize("nats", [0.2, 1.0, 3.0, 8.0])
def test_info_nce_with_the_optimal_critic_is_a_lower_bound_that_rises_with_the_batch_size(
    generator: torch.Generator, nats: float
) -> None:
    rho = correlation(nats, 8)
    x, z = gaussian_pairs(rho, 8192, 8, generator)
    found = [best_info_nce(x, z, size, rho) for size in SIZES]
    assert not any(above(bound, min(nats, math.log(size))) for bound, size in zip(found, SIZES, strict=True))
    # The same pairs in smaller and larger batches, so that the sampling error hardly matters.
    assert found[0].mean < found[1].mean < found[2].mean


def test_info_nce_is_tight_for_little_information_and_saturates_at_log_n_for_much(generator: torch.Generator) -> None:
    little, much = (gaussian_pairs(correlation(nats, 8), 8192, 8, generator) for nats in (0.2, 20.0))
    tight = best_info_nce(*little, 128, correlation(0.2, 8))
    assert close(tight, 0.2)
    assert tight.error < 0.02
    for size in SIZES:
        found = best_info_nce(*much, size, correlation(20.0, 8)).mean
        assert math.log(size) - 0.01 < found <= math.log(size)


def test_the_module_reaches_the_optimal_critic_if_that_is_a_cosine() -> None:
    """On the sphere the cosine over temperature 1 / concentration is the log density ratio, up to a constant."""
    concentration, dims, size = 8.0, 3, 64
    x, z = sphere_pairs(concentration, 4096, dims, seed=0)
    truth = sphere_information(concentration, dims)
    best = own_info_nce(x, z, size, 1 / concentration)
    assert not above(best, truth)
    assert best.mean > 0.97 * truth
    candidates = Candidates(candidate_mask(torch.arange(size)))
    by_hand = [
        math.log(size) - info_nce(concentration * a @ b.T, candidates).mean().item()
        for a, b in zip(x.split(size), z.split(size), strict=True)
    ]
    assert best.mean == pytest.approx(estimate(by_hand).mean, abs=0.01)
    for wrong in (0.3, 3.0):
        assert own_info_nce(x, z, size, wrong / concentration).mean < best.mean - ERRORS * best.error


def test_a_cosine_critic_ignores_the_length_of_gaussian_vectors(generator: torch.Generator) -> None:
    """Its bound holds, and is lower than the optimal critic's at every temperature."""
    rho = correlation(3.0, 8)
    x, z = gaussian_pairs(rho, 8192, 8, generator)
    best = best_info_nce(x, z, 64, rho)
    cosine = max(own_info_nce(x, z, 64, temperature) for temperature in (0.05, 0.1, 0.2))
    assert 0.5 * best.mean < cosine.mean < best.mean - ERRORS * best.error


def test_the_bound_with_shared_images_counts_the_candidates_of_each_row(generator: torch.Generator) -> None:
    """Two texts per image: 63 of 64 rows are candidates, and the bound still holds."""
    found = shared_info_nce(1.0, images=32, rows=2, count=400, generator=generator)
    assert not above(found, 1.0)
    assert found.mean > 0.95
    saturated = shared_info_nce(12.0, images=8, rows=2, count=50, generator=generator)
    assert math.log(15) - 0.01 < saturated.mean <= math.log(15)


def test_rows_of_one_image_as_negatives_would_lower_the_bound(generator: torch.Generator) -> None:
    rho = correlation(1.0)
    image = torch.randn(32, 1, generator=generator, dtype=torch.float64).repeat_interleave(2, dim=0)
    text = rho * image + math.sqrt(1 - rho**2) * torch.randn(64, 1, generator=generator, dtype=torch.float64)
    logits = log_density_ratio(text[:, None], image[None], rho)
    bounds = [
        (mask.sum(dim=1).log() - info_nce(logits, Candidates(mask))).mean().item()
        for mask in (candidate_mask(torch.arange(32).repeat_interleave(2)), candidate_mask(torch.arange(64)))
    ]
    assert bounds[1] < bounds[0] - 0.02


def test_the_bound_does_not_hold_if_many_rows_of_a_batch_share_an_image(generator: torch.Generator) -> None:
    """See docs/explanation/information.md: eight copies of one negative are not eight negatives."""
    assert above(shared_info_nce(0.5, images=2, rows=8, count=1000, generator=generator), 0.5)


# JSD.


def by_rectangles(rho: float) -> float:
    """2 JSD by the same integral in the original coordinates, on a grid."""
    at = torch.linspace(-8, 8, 2001, dtype=torch.float64).numpy()
    grid = stats.multivariate_normal(cov=[[1, rho], [rho, 1]])
    joint = grid.pdf([[(x, z) for z in at] for x in at[::4]])
    product = stats.norm.pdf(at[::4])[:, None] * stats.norm.pdf(at)[None]
    middle = 0.5 * (joint + product)
    density = special.rel_entr(joint, middle) + special.rel_entr(product, middle)
    return float(integrate.simpson(integrate.simpson(density, x=at), x=at[::4]))


def test_quadrature_agrees_with_a_grid() -> None:
    assert 2 * jensen_shannon(0.8) == pytest.approx(by_rectangles(0.8), abs=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, -0.8, 0.99])
def test_jsd_with_the_optimal_discriminator_is_twice_the_divergence(generator: torch.Generator, rho: float) -> None:
    pairs = gaussian_pairs(rho, 30_000, 1, generator)
    found, truth = jsd(*pairs, DensityRatio(rho)), 2 * jensen_shannon(rho)
    assert close(found, truth)
    assert found.error < 0.005
    assert found.mean < 2 * math.log(2)


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, -1.0])
def test_jsd_with_a_suboptimal_discriminator_is_lower(generator: torch.Generator, scale: float) -> None:
    pairs = gaussian_pairs(0.8, 30_000, 1, generator)
    found = jsd(*pairs, DensityRatio(0.8, scale))
    assert found.mean < 2 * jensen_shannon(0.8) - ERRORS * found.error


def test_jsd_is_not_mutual_information() -> None:
    """Half of it for little information, at most 2 log 2 for any amount, and never more than log 2 times it."""
    rhos = [0.1, 0.5, 0.9, 0.99, 1 - 1e-9]
    shares = [2 * jensen_shannon(rho) / information(rho) for rho in rhos]
    assert shares[0] == pytest.approx(0.5, abs=0.01)
    assert max(shares) < math.log(2)
    assert shares[-1] < 0.15
    assert information(rhos[-1]) > 10 > 2 * math.log(2) > 2 * jensen_shannon(rhos[-1])


def test_jsd_is_bounded_by_log_2_times_the_information_for_all_distributions() -> None:
    """Both are f-divergences: it suffices to compare their generators at every density ratio."""
    t = torch.logspace(-12, 12, 1001, dtype=torch.float64)
    twice_jsd = t * torch.log(2 * t / (1 + t)) + torch.log(2 / (1 + t))
    kl = t * t.log() - t + 1
    assert (twice_jsd <= math.log(2) * kl + 1e-12).all()
