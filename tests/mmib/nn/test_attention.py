"""The attention block: masked keys are ignored, and a query without keys is unchanged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmib.nn.attention import AttentionBlock, start_as_similarity
from mmib.schema import ConfigError

WIDTH = 12


def block(dropout: float = 0.0) -> AttentionBlock:
    return AttentionBlock(WIDTH, heads=3, dropout=dropout)


def without_attention(module: AttentionBlock, query: Tensor) -> Tensor:
    hidden = module.attention_norm(query)
    return module.feed_forward_norm(hidden + module.feed_forward(hidden))


def naive(module: AttentionBlock, query: Tensor, context: Tensor, keys: list[int]) -> Tensor:
    """A loop over heads and queries for one row, (Q, D) and (K, D), using only unmasked keys."""
    size = WIDTH // module.heads
    q, k, v = module.query(query), module.key(context), module.value(context)
    attended = torch.zeros_like(query)
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        for at in range(len(query)):
            scores = torch.stack([q[at, part] @ k[key, part] / math.sqrt(size) for key in keys])
            weights = scores.softmax(dim=0)
            attended[at, part] = sum(weight * v[key, part] for weight, key in zip(weights, keys, strict=True))
    hidden = module.attention_norm(query + module.output(attended))
    return module.feed_forward_norm(hidden + module.feed_forward(hidden))


def test_output_matches_a_naive_loop_over_the_unmasked_keys() -> None:
    """Defect 1: the mask is over keys, not over queries."""
    module = block()
    query, context = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH)
    mask = torch.tensor([[True, False, True, True, False], [True, True, False, False, False]])
    output = module(query, context, mask)
    for row in range(2):
        expected = naive(module, query[row], context[row], mask[row].nonzero().flatten().tolist())
        torch.testing.assert_close(output[row], expected)


@pytest.mark.parametrize("padding", [1, 4, 30])
def test_appended_masked_keys_have_no_effect_for_any_content(padding: int) -> None:
    """Defect 1: the padding's content was visible to every token."""
    module = block()
    query, context = torch.randn(3, 4, WIDTH), torch.randn(3, 5, WIDTH)
    mask = torch.rand(3, 5) > 0.3
    mask[:, 0] = True
    longer = torch.cat([context, 1e4 * torch.randn(3, padding, WIDTH)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, padding, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(module(query, longer, longer_mask), module(query, context, mask))


def test_every_unmasked_key_affects_every_query() -> None:
    module = block()
    query, context = torch.randn(1, 4, WIDTH), torch.randn(1, 3, WIDTH, requires_grad=True)
    output = module(query, context, torch.tensor([[True, True, False]]))
    for at in range(4):
        (gradient,) = torch.autograd.grad(output[0, at, 0], context, retain_graph=True)
        assert gradient[0, :2].abs().min() > 0
        assert gradient[0, 2].abs().max() == 0


def test_a_query_without_keys_takes_exactly_the_residual_path() -> None:
    module = block()
    query, context = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH)
    mask = torch.tensor([[False] * 5, [True] * 5])
    output = module(query, context, mask)
    assert torch.equal(output[0], without_attention(module, query)[0])
    assert not torch.allclose(output[1], without_attention(module, query)[1])


def test_gradients_are_finite_for_a_row_without_keys() -> None:
    module = block()
    query, context = torch.randn(2, 4, WIDTH, requires_grad=True), torch.randn(2, 5, WIDTH, requires_grad=True)
    module(query, context, torch.zeros(2, 5, dtype=torch.bool)).square().sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert context.grad is None or not context.grad.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_query_key_and_value_weights_diverge_in_the_first_step() -> None:
    """Defect 12: three copies of one initialised layer. Query and key deliberately share their initial weights."""
    module = block()
    assert not torch.equal(module.query.weight, module.value.weight)
    query, context = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH)
    module(query, context, torch.ones(2, 5, dtype=torch.bool)).square().sum().backward()
    gradients = [layer.weight.grad for layer in (module.query, module.key)]
    assert all(gradient is not None and gradient.any() for gradient in gradients)
    assert not torch.allclose(*gradients)


def test_a_new_block_attends_to_similar_keys() -> None:
    module = block()
    start_as_similarity(module.value, module.output)
    context = 20 * torch.eye(WIDTH)[None]
    chosen = torch.tensor([5, 0, 11])
    attended = module._attend(context[:, chosen], context, torch.ones(1, WIDTH, dtype=torch.bool))
    # Each head sees a slice of the width; the nonzero part of the chosen key is in one of them.
    assert torch.equal(attended[0].argmax(dim=1), chosen)


def test_weights_reproduce_the_output() -> None:
    module = AttentionBlock(WIDTH, heads=1, dropout=0.5)
    query, context, mask = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH), torch.rand(2, 5) < 0.6
    mask[:, 0] = True
    attended = module.eval()._attend(query, context, mask)
    weights = module.train().weights(query, context, mask)
    torch.testing.assert_close(module.output(weights @ module.value(context)), attended)


def test_weights_match_torchs_attention_averaged_over_heads() -> None:
    module, reference = block(), torch.nn.MultiheadAttention(WIDTH, 3, batch_first=True)
    layers = (module.query, module.key, module.value)
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_()
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    query, context, mask = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH), torch.rand(2, 5) < 0.6
    mask[:, 0] = True
    _, expected = reference(query, context, context, key_padding_mask=~mask)
    torch.testing.assert_close(module.weights(query, context, mask), expected)


def test_weights_sum_to_one_or_zero_for_any_padding() -> None:
    module = block()
    query, context = torch.randn(3, 4, WIDTH), torch.randn(3, 5, WIDTH)
    mask = torch.tensor([[True] * 5, [False, True, False, True, False], [False] * 5])
    weights = module.weights(query, context, mask)
    torch.testing.assert_close(weights.sum(dim=2), mask.any(dim=1)[:, None].expand(3, 4).float())
    longer = torch.cat([torch.where(mask[:, :, None], context, 1e4), 1e4 * torch.randn(3, 6, WIDTH)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 6, dtype=torch.bool)], dim=1)
    padded = module.weights(query, longer, longer_mask)
    torch.testing.assert_close(padded[:, :, :5], weights)
    assert not padded[:, :, 5:].any()


def test_dropout_acts_in_training_only() -> None:
    module = block(dropout=0.5)
    states, mask = torch.randn(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool)
    assert not torch.equal(module(states, states, mask), module(states, states, mask))
    module.eval()
    assert torch.equal(module(states, states, mask), module(states, states, mask))


def test_a_number_of_heads_that_does_not_divide_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 attention heads do not divide the width 24"):
        AttentionBlock(24, heads=5)


@pytest.mark.fresh_weights
def test_a_new_block_is_near_the_identity_and_all_its_parameters_learn_from_the_first_step() -> None:
    attention = block()
    query, context = torch.randn(2, 3, WIDTH), torch.randn(2, 4, WIDTH)
    normed = torch.nn.functional.layer_norm(query, (WIDTH,))
    output = attention(query, context, torch.ones(2, 4, dtype=torch.bool))
    assert torch.cosine_similarity(output, normed, dim=-1).min() > 0.9
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None
        if name != "key.bias":  # adds the same value to all scores of a query
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("normalized", [False, True])
def test_normalized_attention_depends_only_on_directions(normalized: bool) -> None:
    """A bottleneck shrinks latents, which must not make attention weights uniform."""
    module = AttentionBlock(WIDTH, heads=3, dropout=0.0, normalized=normalized)
    query, context, mask = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool)
    weights, shrunk = module.weights(query, context, mask), module.weights(0.1 * query, 0.1 * context, mask)
    assert torch.allclose(weights, shrunk, atol=0.01) is normalized
