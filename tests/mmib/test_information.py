"""Sums over batches, and the scalars that follow from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from mmib.information import Totals, add, alignment_sums, information_plane, pair_sums, posterior_sums, scalars
from mmib.nn.alignment import AlignmentOutput, InfoNCEAlignment, JSDAlignment, Latents
from mmib.nn.gaussian import Posterior
from mmib.schema import RELATIONS

Build = Callable[..., Any]
B, T, D = 9, 5, 6
NAMES = {
    *("loss", "task", "align/loss", "align/gap", "align/cosine"),
    *(f"ib/{name}_{modality}" for name in ("kl", "kl_std", "active", "std", "beta") for modality in ("text", "image")),
}
INFO_NCE = {"align/temperature", "align/mi_bound", "align/accuracy_t2i", "align/accuracy_i2t"}


@pytest.fixture
def draw() -> tuple[Posterior, Posterior]:
    """Posteriors of text and image; some posts have no image, and some latent dimensions hardly vary."""
    spread = torch.tensor([1.0, 0.5, 0.2, 0.05, 0.01, 0.0])
    posteriors = []
    for mask in (torch.rand(B, T) < 0.7, (torch.rand(B, T) < 0.6) & (torch.arange(B) % 3 > 0)[:, None]):
        mask[0, 0] = mask[1, 0] = True
        mean = torch.randn(B, T, D) * spread + torch.tensor([0.0, 3.0, 0.0, 3.0, 3.0, 3.0])
        posteriors.append(Posterior(mean, torch.randn(B, T, D) - 2, mask))
    return posteriors[0], posteriors[1]


def totals_of(text: Posterior, image: Posterior, counted: torch.Tensor, losses: torch.Tensor) -> Totals:
    """As the objective sums them, without its alignment: that depends on the batch."""
    latents = [Latents(posterior.mean, posterior.mask) for posterior in (text, image)]
    posts = counted.sum()
    own = {
        "posts": posts,
        "task": losses[counted].sum(),
        "loss": losses[counted].sum() * 2,
        **posterior_sums("text", text, text.kl(), counted),
        **posterior_sums("image", image, image.kl(), counted),
        **pair_sums(latents[0], latents[1], counted),
        **alignment_sums(AlignmentOutput(torch.tensor(0.0), torch.tensor(0), {})),
        "text/beta": 0.1 * posts,
        "image/beta": 0.2 * posts,
    }
    return {name: value.double() for name, value in own.items()}


def rows(posterior: Posterior, taken: slice) -> Posterior:
    return Posterior(*(tensor[taken] for tensor in posterior))


def test_scalars_of_added_totals_are_those_of_all_rows(draw: tuple[Posterior, Posterior]) -> None:
    losses, everything = torch.rand(B), torch.ones(B, dtype=torch.bool)
    whole = scalars(totals_of(*draw, everything, losses))
    parts = [
        totals_of(rows(draw[0], part), rows(draw[1], part), everything[part], losses[part])
        for part in (slice(0, 1), slice(1, 6), slice(6, 9))
    ]
    added = scalars(reduce(add, parts, {}))
    assert added.keys() == whole.keys() == NAMES - {"align/loss"}
    for name, value in whole.items():
        assert float(added[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-7), name


def test_fillers_change_no_sum(draw: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    counted = torch.tensor([True] * 6 + [False] * 3)
    text, image = (rows(posterior, slice(0, 6)) for posterior in draw)
    plain = totals_of(text, image, counted[:6], losses[:6])
    text_garbage, image_garbage = (
        posterior._replace(mean=posterior.mean.masked_fill(~counted[:, None, None], math.nan)) for posterior in draw
    )
    for filled in (draw, (text_garbage, image_garbage)):
        found = totals_of(*filled, counted, losses)
        assert found.keys() == plain.keys()
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_means_and_spread_by_hand(draw: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    found = scalars(totals_of(*draw, torch.ones(B, dtype=torch.bool), losses))
    assert float(found["task"]) == pytest.approx(losses.double().mean().item())
    assert float(found["ib/beta_text"]) == pytest.approx(0.1)
    assert float(found["ib/beta_image"]) == pytest.approx(0.2)
    for modality, posterior in zip(("text", "image"), draw, strict=True):
        mask = posterior.mask.numpy()
        mean, log_var = (tensor.double().numpy()[mask] for tensor in (posterior.mean, posterior.log_var))
        kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
        assert float(found[f"ib/kl_{modality}"]) == pytest.approx(kl.mean(), rel=1e-6)
        assert float(found[f"ib/kl_std_{modality}"]) == pytest.approx(kl.std(), rel=1e-5)
        assert float(found[f"ib/std_{modality}"]) == pytest.approx(np.exp(log_var / 2).mean(), rel=1e-6)


def test_active_dimensions_are_those_whose_mean_varies_over_the_data(draw: tuple[Posterior, Posterior]) -> None:
    """Burda et al. (2016), section 5.2: Cov_x(E[z|x]) > 0.01; how far from 0 the mean lies does not count."""
    found = scalars(totals_of(*draw, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    for modality, posterior in zip(("text", "image"), draw, strict=True):
        variance = posterior.mean.double().numpy()[posterior.mask.numpy()].var(axis=0)
        assert int(found[f"ib/active_{modality}"]) == int((variance > 0.01).sum()) == 3
        assert (np.abs(variance - 0.01) > 0.001).all()


def test_gap_and_cosine_by_hand(draw: tuple[Posterior, Posterior]) -> None:
    """Liang et al. (2022), section 2.1: the distance of both centres on the unit sphere, over posts with an image."""
    found = scalars(totals_of(*draw, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    masks = [posterior.mask.numpy() for posterior in draw]
    units: list[list[np.ndarray]] = [[], []]
    for post in range(B):
        if all(mask[post].any() for mask in masks):
            for own, posterior, mask in zip(units, draw, masks, strict=True):
                mean = posterior.mean.double().numpy()[post][mask[post]].mean(axis=0)
                own.append(mean / np.linalg.norm(mean))
    assert 3 < len(units[0]) < B
    text, image = (np.stack(own) for own in units)
    assert float(found["align/gap"]) == pytest.approx(np.linalg.norm(text.mean(axis=0) - image.mean(axis=0)), rel=1e-5)
    assert float(found["align/cosine"]) == pytest.approx((text * image).sum(axis=1).mean(), rel=1e-5)


def test_gap_and_cosine_of_sides_that_are_equal_opposite_or_at_right_angles() -> None:
    x, y = torch.eye(2)
    mask = torch.ones(2, 1, dtype=torch.bool)
    counted = torch.ones(2, dtype=torch.bool)
    text = Latents(torch.stack([x, x])[:, None], mask)
    for side, gap, cosine in ((3 * x, 0.0, 1.0), (-x, 2.0, -1.0), (0.1 * y, math.sqrt(2), 0.0)):
        sums = pair_sums(text, Latents(torch.stack([side, side])[:, None], mask), counted)
        zero = dict.fromkeys(("loss", "task", "text/positions", "image/positions", "align/anchors"), torch.tensor(0.0))
        found = scalars({**zero, "posts": torch.tensor(2.0), **sums})
        assert float(found["align/gap"]) == pytest.approx(gap, abs=1e-6)
        assert float(found["align/cosine"]) == pytest.approx(cosine, abs=1e-6)


def test_spread_of_equal_positions_is_zero_and_no_nan() -> None:
    """It is the difference of two sums; where they are equal, rounding decides the sign."""
    posterior = Posterior(torch.full((7, 3, 768), 1.1), torch.full((7, 3, 768), -3.0), torch.ones(7, 3).bool())
    losses = torch.ones(7)
    found = scalars(totals_of(posterior, posterior, losses.bool(), losses))
    assert float(found["ib/kl_text"]) == pytest.approx(768 * 0.5 * (1.21 + math.exp(-3) - 1 + 3), rel=1e-5)
    assert float(found["ib/kl_std_text"]) == pytest.approx(0.0, abs=1e-3)


def test_what_nothing_was_summed_for_is_left_out(draw: tuple[Posterior, Posterior]) -> None:
    text, image = draw
    absent = image._replace(mask=torch.zeros_like(image.mask))
    found = scalars(totals_of(text, absent, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    assert found.keys() == {name for name in NAMES if name in ("loss", "task") or name.endswith("_text")}


def test_sums_are_added_by_name_and_nothing_is_changed_in_place() -> None:
    first, second = ({"a": torch.tensor(n), "b": torch.tensor([n, 1.0])} for n in (1.0, 2.0))
    assert add({}, first) == first
    added = add(first, second)
    assert float(added["a"]) == 3.0
    assert added["b"].tolist() == [3.0, 2.0]
    assert float(first["a"]) == 1.0


def test_a_mean_over_batches_counts_the_anchors_of_each() -> None:
    outputs = [(5.0, 0), (3.0, 4), (6.0, 2)]
    sums = [
        alignment_sums(AlignmentOutput(torch.tensor(loss), torch.tensor(anchors), {"bound": torch.tensor(2 * loss)}))
        for loss, anchors in outputs
    ]
    total: Totals = reduce(add, sums, {})
    assert float(total["align/loss"] / total["align/anchors"]) == pytest.approx(4.0)
    assert float(total["align/bound"] / total["align/anchors"]) == pytest.approx(8.0)


def test_an_output_that_ranks_share_counts_once() -> None:
    """Each of the ranks adds its part of it."""
    own = AlignmentOutput(torch.tensor(3.0), torch.tensor(8), {"bound": torch.tensor(5.0)}, ranks=4)
    total: Totals = reduce(add, [alignment_sums(own)] * 4, {})
    assert {name: float(value) for name, value in total.items()} == {
        "align/anchors": 8.0,
        "align/loss": 24.0,
        "align/bound": 40.0,
    }


def test_only_what_is_trained_has_a_graph(draw: tuple[Posterior, Posterior]) -> None:
    text = Posterior(draw[0].mean.requires_grad_(), draw[0].log_var.requires_grad_(), draw[0].mask)
    counted = torch.ones(B, dtype=torch.bool)
    latents = Latents(text.mean, text.mask)
    sums = {**posterior_sums("text", text, text.kl(), counted), **pair_sums(latents, latents, counted)}
    assert {name for name, value in sums.items() if value.requires_grad} == {"text/kl"}
    assert sums["text/kl"].shape == (D,)


def test_the_information_plane_is_in_nats_a_post(draw: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    plane = information_plane(totals_of(*draw, torch.ones(B, dtype=torch.bool), losses))
    assert plane == pytest.approx(
        {
            "rate_text": draw[0].kl().double().sum().item() / B,
            "rate_image": draw[1].kl().double().sum().item() / B,
            "distortion": losses.double().mean().item(),
        },
        rel=1e-6,
    )


def test_the_information_plane_has_the_entropy_of_the_labels_minus_the_distortion(
    draw: tuple[Posterior, Posterior],
) -> None:
    counted, losses = torch.ones(B, dtype=torch.bool), torch.rand(B)
    labels = [6, 0, 2, 1]  # of nine posts
    totals = totals_of(*draw, counted, losses) | {"labels": torch.tensor(labels, dtype=torch.float64)}
    plane = information_plane(totals)
    assert plane["information"] == pytest.approx(entropy(labels) - losses.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_posts_of_relation_extraction_have_a_label_each(make_module: Build, make_batch: Build, task: str) -> None:
    batch = make_batch(lengths=(9, 12, 8), regions=(3, 1, 0))
    totals = make_module().eval().objective(batch).totals
    if task == "mner":
        assert "labels" not in totals
    else:
        assert totals["labels"].tolist() == np.bincount(batch.relations, minlength=len(RELATIONS)).tolist()


@pytest.mark.parametrize("task", ["mre", "mner"])
@pytest.mark.parametrize("alignment", [InfoNCEAlignment, JSDAlignment])
def test_scalars_of_a_modules_added_totals_are_those_of_the_whole_batch(
    make_module: Build, make_batch: Build, alignment: type
) -> None:
    module = make_module({"alignment": alignment}, beta_text=0.3, beta_image=0.2, gamma=0.0).eval()
    whole = make_batch(lengths=(9, 12, 8, 10, 11), regions=(3, 1, 0, 2, 2))
    parts = []
    for taken in ([0, 1, 2], [3, 4]):
        fields = {f.name: getattr(whole, f.name) for f in dataclasses.fields(whole)}
        own = {name: value[taken] for name, value in fields.items() if isinstance(value, torch.Tensor)}
        parts.append(module.objective(dataclasses.replace(whole, **own)).totals)
    added, expected = scalars(reduce(add, parts, {})), scalars(module.objective(whole).totals)
    own_names = INFO_NCE if alignment is InfoNCEAlignment else {"align/jsd_bound"}
    assert added.keys() == expected.keys() == NAMES | own_names
    # The loss of each part weighs its own means: see the windows of accumulated gradients.
    for name in expected.keys() - own_names - {"loss", "align/loss"}:
        assert float(added[name]) == pytest.approx(float(expected[name]), rel=1e-5, abs=1e-4), name
