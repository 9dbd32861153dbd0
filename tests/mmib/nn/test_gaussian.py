"""The variational encoding: its KL, its noise, and its ability to allocate information."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from mmib.nn.gaussian import LOG_VAR_RANGE, LOG_VAR_START, GaussianEncoder, Posterior

WIDTH = 12


def posterior(mask: torch.Tensor | None = None) -> Posterior:
    shape = (2, 3, 4)
    return Posterior(
        mean=torch.randn(shape),
        log_var=torch.randn(shape),
        mask=torch.ones(2, 3, dtype=torch.bool) if mask is None else mask,
    )


def encoder() -> GaussianEncoder:
    return GaussianEncoder(WIDTH, heads=3, dropout=0.0)


def test_kl_matches_torch_distributions() -> None:
    """Defect 4: `log_var` is a log-variance, in the KL as in the sample."""
    q = posterior()
    expected = kl_divergence(Normal(q.mean, torch.exp(0.5 * q.log_var)), Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl(), expected)


@given(mean=st.floats(-30, 30), log_var=st.floats(*LOG_VAR_RANGE))
def test_kl_is_never_negative_and_zero_only_for_the_prior(mean: float, log_var: float) -> None:
    values = torch.tensor([[[mean]]], dtype=torch.float64), torch.tensor([[[log_var]]], dtype=torch.float64)
    kl = Posterior(*values, mask=torch.ones(1, 1, dtype=torch.bool)).kl().item()
    assert kl >= -1e-12
    assert kl > 1e-6 or (abs(mean) < 0.01 and abs(log_var) < 0.01)


def test_kl_is_zero_on_padding() -> None:
    """Defect 5: the mean ran over padding too, so that the value depended on the padded length."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    q = posterior(mask)
    expected = Normal(q.mean, torch.exp(0.5 * q.log_var))
    nats = kl_divergence(expected, Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl()[mask], nats[mask])
    assert not q.kl()[~mask].any()


def test_kl_without_valid_positions_is_zero_with_zero_gradients() -> None:
    q = posterior(torch.zeros(2, 3, dtype=torch.bool))
    q.mean.requires_grad_()
    kl = q.kl()
    kl.sum().backward()
    assert not kl.any()
    assert q.mean.grad is not None
    assert not q.mean.grad.any()


def test_samples_have_the_standard_deviation_exp_half_log_var() -> None:
    """Defect 4: what was called log-std was used as log-variance."""
    ones = torch.ones(1, 200_000, 1)
    q = Posterior(mean=2.0 * ones, log_var=-1.5 * ones, mask=ones[:, :, 0] > 0)
    sample = q.rsample()
    assert sample.mean().item() == pytest.approx(2.0, abs=0.01)
    assert sample.std().item() == pytest.approx(torch.exp(torch.tensor(-0.75)).item(), rel=0.01)


def test_gradients_of_samples_reach_mean_and_log_var() -> None:
    q = posterior()
    q.mean.requires_grad_()
    q.log_var.requires_grad_()
    z = q.rsample()
    by_mean, by_log_var = torch.autograd.grad(z.sum(), [q.mean, q.log_var])
    torch.testing.assert_close(by_mean, torch.ones_like(z))
    torch.testing.assert_close(by_log_var, 0.5 * (z - q.mean).detach())


def test_log_var_starts_at_minus_three_for_any_input() -> None:
    q = encoder()(50 * torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(q.log_var, torch.full_like(q.log_var, LOG_VAR_START))
    assert LOG_VAR_START == -3.0


@pytest.mark.parametrize(("bias", "expected"), [(-1e4, -10.0), (1e4, 5.0)])
def test_log_var_is_clamped(bias: float, expected: float) -> None:
    module = encoder()
    torch.nn.init.constant_(module.log_var.bias, bias)
    q = module(torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(q.log_var, torch.full_like(q.log_var, expected))
    assert q.kl().isfinite().all()


def test_information_differs_between_tokens_and_can_be_reduced_by_the_encoder() -> None:
    """Defect 3: a LayerNorm after the heads fixed the norm of every mean, and the KL had no gradient before it."""
    module = encoder()
    torch.nn.init.normal_(module.mean.weight)  # it starts as the identity on normalised states, and may change
    q = module(torch.randn(4, 8, WIDTH), torch.ones(4, 8, dtype=torch.bool))
    norms = q.mean.square().mean(dim=2)
    assert norms.std() / norms.mean() > 0.05
    q.kl().mean().backward()
    reaching = [p.grad.abs().max() for name, p in module.block.named_parameters() if p.grad is not None]
    assert max(reaching) > 1e-4


def test_mean_can_shrink_to_zero_information() -> None:
    """Defect 3: with plain linear heads the posterior can equal the prior."""
    module = encoder()
    for parameter in (module.mean.weight, module.mean.bias, module.log_var.bias):
        torch.nn.init.zeros_(parameter)
    assert not module(torch.randn(1, 3, WIDTH), torch.ones(1, 3, dtype=torch.bool)).kl().any()


@pytest.mark.parametrize("padding", [1, 6, 40])
def test_appended_padding_changes_neither_posterior_nor_kl(padding: int) -> None:
    """Defects 1 and 5."""
    module = encoder()
    torch.nn.init.normal_(module.log_var.weight)
    states, mask = torch.randn(2, 5, WIDTH), torch.tensor([[True] * 5, [True, True, True, False, False]])
    longer = torch.cat([states, 1e3 * torch.randn(2, padding, WIDTH)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(2, padding, dtype=torch.bool)], dim=1)
    short, long = module(states, mask), module(longer, longer_mask)
    torch.testing.assert_close(long.mean[:, :5][mask], short.mean[mask])
    torch.testing.assert_close(long.log_var[:, :5][mask], short.log_var[mask])
    torch.testing.assert_close(long.kl().sum(dim=1), short.kl().sum(dim=1))


def test_kl_is_computed_in_float32_under_autocast() -> None:
    module = encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = module(torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
        under_autocast = q.kl()
    assert {tensor.dtype for tensor in (q.mean, q.log_var, under_autocast)} == {torch.float32}
    assert torch.equal(under_autocast, q.kl())


def test_float64_is_preserved() -> None:
    q = encoder().double()(torch.randn(2, 5, WIDTH, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool))
    assert q.mean.dtype == q.log_var.dtype == q.kl().dtype == q.rsample().dtype == torch.float64
