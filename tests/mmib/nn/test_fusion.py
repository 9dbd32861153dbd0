"""Fusions: what the text receives from the image, and what is masked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmib.nn.alignment import Latents
from mmib.nn.fusion import CrossModalFusion, Fusion, LateFusion

WIDTH = 12


def fusions() -> list[Fusion]:
    return [CrossModalFusion(WIDTH, heads=3, dropout=0.0), LateFusion(WIDTH, dropout=0.0)]


@pytest.fixture(params=[0, 1], ids=["CrossModalFusion", "LateFusion"])
def fusion(request: pytest.FixtureRequest) -> Fusion:
    """Built inside the test, where blocks are not initialised as identities."""
    return fusions()[request.param]


def latents(lengths: list[int], width: int = 0) -> Latents:
    size = max(width, *lengths)
    mask = torch.arange(size)[None, :] < torch.tensor(lengths)[:, None]
    return Latents(torch.randn(len(lengths), size, WIDTH), mask)


@pytest.mark.parametrize(("pieces", "regions"), [(1, 0), (0, 1), (5, 3), (30, 10)])
def test_padding_of_either_side_does_not_change_any_word(
    fusion: Fusion, pad: Callable[[Latents, int], Latents], pieces: int, regions: int
) -> None:
    """Defects 1, 2 and 24."""
    text, image = latents([5, 3, 4]), latents([2, 3, 0])
    padded = fusion(pad(text, pieces).z, pad(text, pieces), pad(image, regions)).states
    torch.testing.assert_close(padded[:, :5][text.mask], fusion(text.z, text, image).states[text.mask])


def test_an_image_affects_every_word_of_its_own_post_only(fusion: Fusion) -> None:
    text, image = latents([3, 3]), latents([2, 2])
    image.z.requires_grad_()
    output = fusion(text.z, text, image).states
    for at in range(3):
        (gradient,) = torch.autograd.grad(output[0, at].square().sum(), image.z, retain_graph=True)
        assert gradient[0].abs().max() > 0
        assert gradient[1].abs().max() == 0


def test_a_post_without_an_image_ignores_its_empty_regions(fusion: Fusion) -> None:
    """Defect 24: missing crops were zero images without a mask."""
    text, image = latents([4, 2]), latents([0, 0], width=3)
    first = fusion(text.z, text, image).states
    other = Latents(100 * torch.randn(image.z.shape), image.mask)
    torch.testing.assert_close(fusion(text.z, text, other).states, first)
    assert first.isfinite().all()


def test_cross_modal_fusion_without_an_image_is_the_residual_path_on_the_text() -> None:
    fusion = CrossModalFusion(WIDTH, heads=3, dropout=0.0)
    text, image = latents([4]), latents([0], width=2)
    block = fusion.text_reads_image
    hidden = block.attention_norm(text.z)
    assert torch.equal(fusion(text.z, text, image).states, block.feed_forward_norm(hidden + block.feed_forward(hidden)))


def test_regions_do_not_attend_to_padded_words() -> None:
    """Defect 2: image-to-text attention got no mask."""
    fusion = CrossModalFusion(WIDTH, heads=3, dropout=0.0)
    text, image = latents([5, 2]), latents([2, 2])
    text.z.requires_grad_()
    fusion(text.z, text, image).states[text.mask].square().sum().backward()
    assert text.z.grad is not None
    assert text.z.grad[1, 2:].abs().max() == 0
    assert text.z.grad[text.mask].abs().sum(dim=1).min() > 0


def test_cross_modal_fusion_is_two_attentions_in_the_papers_order() -> None:
    fusion = CrossModalFusion(WIDTH, heads=3, dropout=0.0)
    text, image = latents([5, 2]), latents([2, 1])
    grounded = fusion.image_reads_text(image.z, text.z, text.mask)
    expected = fusion.text_reads_image(text.z, grounded, image.mask)
    assert torch.equal(fusion(text.z, text, image).states, expected)
    swapped = fusion.text_reads_image(text.z, image.z, image.mask)
    assert not torch.allclose(expected, swapped)


def test_gradients_are_finite_without_any_image() -> None:
    for fusion in fusions():
        text, image = latents([4, 2]), latents([0, 0], width=1)
        text.z.requires_grad_()
        image.z.requires_grad_()
        fusion(text.z, text, image).states.square().sum().backward()
        assert text.z.grad is not None
        assert text.z.grad.isfinite().all()
        assert image.z.grad is None or not image.z.grad.any()


def test_weights_are_returned_on_request_and_have_no_effect(fusion: Fusion) -> None:
    text, image = latents([5, 3]), latents([2, 0], width=3)
    plain, asked = fusion(text.z, text, image), fusion(text.z, text, image, need_weights=True)
    assert plain.weights is None
    assert torch.equal(asked.states, plain.states)
    assert (asked.weights is None) == isinstance(fusion, LateFusion)


def test_weights_are_those_of_the_text_attending_to_the_regions(pad: Callable[[Latents, int], Latents]) -> None:
    fusion = CrossModalFusion(WIDTH, heads=3, dropout=0.0)
    text, image = latents([5, 2]), latents([3, 1])
    weights = fusion(text.z[:, :2], text, image, need_weights=True).weights
    grounded = fusion.image_reads_text(image.z, text.z, text.mask)
    torch.testing.assert_close(weights, fusion.text_reads_image.weights(text.z[:, :2], grounded, image.mask))
    padded = fusion(text.z[:, :2], pad(text, 4), pad(image, 3), need_weights=True).weights
    assert padded is not None
    torch.testing.assert_close(padded[:, :, :3], weights)
    assert not padded[:, :, 3:].any()


def test_each_query_is_fused_independently(fusion: Fusion) -> None:
    text, image = latents([5, 3]), latents([2, 1])
    asked, whole = fusion(text.z[:, [3, 0]], text, image), fusion(text.z, text, image)
    torch.testing.assert_close(asked.states, whole.states[:, [3, 0]])
