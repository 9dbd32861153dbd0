"""Sums over batches, and scalars computed from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from mmib.information import (
    LossTerm,
    Mean,
    MetricSums,
    alignment_term,
    flatten,
    information_plane,
    kl_term,
    latent_moments,
    over_ranks,
    pair_moments,
    post_means,
    scalars,
)
from mmib.nn.alignment import AlignmentOutput, InfoNCEAlignment, JSDAlignment, Latents
from mmib.nn.gaussian import Posterior
from mmib.schema import Window

Build = Callable[..., Any]
B, T, D = 9, 5, 6
NAMES = {
    *("loss", "task", "align/loss", "align/gap", "align/cosine"),
    *(
        f"ib/{name}_{modality}"
        for name in ("kl", "kl_std", "active", "std", "beta", "beta_vib", "rate", "share")
        for modality in ("text", "image")
    ),
}
INFO_NCE = {"align/temperature", "align/mi_bound", "align/accuracy_t2i", "align/accuracy_i2t"}


@pytest.fixture
def sample() -> tuple[Posterior, Posterior]:
    """Posteriors of text and image; some posts have no image, and some latent dimensions hardly vary."""
    spread = torch.tensor([1.0, 0.5, 0.2, 0.05, 0.01, 0.0])
    posteriors = []
    for mask in (torch.rand(B, T) < 0.7, (torch.rand(B, T) < 0.6) & (torch.arange(B) % 3 > 0)[:, None]):
        mask[0, 0] = mask[1, 0] = True
        mean = torch.randn(B, T, D) * spread + torch.tensor([0.0, 3.0, 0.0, 3.0, 3.0, 3.0])
        posteriors.append(Posterior(mean, torch.randn(B, T, D) - 2, mask))
    return posteriors[0], posteriors[1]


def sums_of(text: Posterior, image: Posterior, valid: torch.Tensor, losses: torch.Tensor) -> MetricSums:
    """Sums over all ranks as computed by the objective, without its alignment, which depends on the batch."""
    return over_ranks(local_sums(text, image, valid, losses))


def local_sums(text: Posterior, image: Posterior, valid: torch.Tensor, losses: torch.Tensor) -> MetricSums:
    """Sums of one rank."""
    latents = [Latents(posterior.mean, posterior.mask) for posterior in (text, image)]
    sides = {"text": text, "image": image}
    terms = [
        LossTerm(name="task", sum=losses[valid].sum(), count=valid.sum(), logged_as="task"),
        *(kl_term(name, side.kl(), side.mask, valid) for name, side in sides.items()),
        alignment_term(AlignmentOutput(torch.tensor(0.0), torch.tensor(0), {})),
    ]
    moments = {name: latent_moments(side, side.kl(), valid) for name, side in sides.items()}
    posts = {name: valid.sum() * (moment.positions > 0) for name, moment in moments.items()}
    betas = {f"ib/beta_{name}": Mean(beta * posts[name], posts[name]) for name, beta in (("text", 0.1), ("image", 0.2))}
    return MetricSums(
        posts=valid.sum(),
        terms={term.name: Mean(term.sum, term.count) for term in terms},
        scalars={"loss": Mean(2 * losses[valid].sum(), valid.sum()), **betas},
        moments=moments,
        pairs=pair_moments(latents[0], latents[1], valid),
        logged_as={term.name: term.log_name for term in terms},
    )


def rows(posterior: Posterior, taken: slice) -> Posterior:
    return Posterior(*(tensor[taken] for tensor in posterior))


def test_scalars_of_added_sums_match_those_of_all_rows(sample: tuple[Posterior, Posterior]) -> None:
    losses, everything = torch.rand(B), torch.ones(B, dtype=torch.bool)
    whole = scalars(sums_of(*sample, everything, losses))
    parts = [
        sums_of(rows(sample[0], part), rows(sample[1], part), everything[part], losses[part])
        for part in (slice(0, 1), slice(1, 6), slice(6, 9))
    ]
    added = scalars(reduce(add, parts))
    assert added.keys() == whole.keys() == NAMES - {"align/loss"}
    for name, value in whole.items():
        assert float(added[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-7), name


def test_padding_rows_do_not_change_any_sum(sample: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    valid = torch.tensor([True] * 6 + [False] * 3)
    text, image = (rows(posterior, slice(0, 6)) for posterior in sample)
    plain = flatten(sums_of(text, image, valid[:6], losses[:6]))
    text_garbage, image_garbage = (
        posterior._replace(mean=posterior.mean.masked_fill(~valid[:, None, None], math.nan)) for posterior in sample
    )
    for padded in (sample, (text_garbage, image_garbage)):
        torch.testing.assert_close(flatten(sums_of(*padded, valid, losses)), plain, rtol=1e-6, atol=1e-6)


def test_means_and_standard_deviations_by_hand(sample: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    found = scalars(sums_of(*sample, torch.ones(B, dtype=torch.bool), losses))
    assert float(found["task"]) == pytest.approx(losses.double().mean().item())
    assert float(found["ib/beta_text"]) == pytest.approx(0.1)
    assert float(found["ib/beta_image"]) == pytest.approx(0.2)
    for modality, posterior in zip(("text", "image"), sample, strict=True):
        mask = posterior.mask.numpy()
        mean, log_var = (tensor.double().numpy()[mask] for tensor in (posterior.mean, posterior.log_var))
        kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
        assert float(found[f"ib/kl_{modality}"]) == pytest.approx(kl.mean(), rel=1e-6)
        assert float(found[f"ib/kl_std_{modality}"]) == pytest.approx(kl.std(), rel=1e-5)
        assert float(found[f"ib/std_{modality}"]) == pytest.approx(np.exp(log_var / 2).mean(), rel=1e-6)


def test_active_dimensions_have_means_that_vary_over_the_data(sample: tuple[Posterior, Posterior]) -> None:
    """Burda et al. (2016), section 5.2: Cov_x(E[z|x]) > 0.01; the distance of the mean from 0 does not count."""
    found = scalars(sums_of(*sample, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    for modality, posterior in zip(("text", "image"), sample, strict=True):
        variance = posterior.mean.double().numpy()[posterior.mask.numpy()].var(axis=0)
        assert int(found[f"ib/active_{modality}"]) == int((variance > 0.01).sum()) == 3
        assert (np.abs(variance - 0.01) > 0.001).all()


def test_gap_and_cosine_by_hand(sample: tuple[Posterior, Posterior]) -> None:
    """Liang et al. (2022), section 2.1: the distance of both centres on the unit sphere, over posts with an image."""
    found = scalars(sums_of(*sample, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    masks = [posterior.mask.numpy() for posterior in sample]
    units: list[list[np.ndarray]] = [[], []]
    for post in range(B):
        if all(mask[post].any() for mask in masks):
            for vectors, posterior, mask in zip(units, sample, masks, strict=True):
                mean = posterior.mean.double().numpy()[post][mask[post]].mean(axis=0)
                vectors.append(mean / np.linalg.norm(mean))
    assert 3 < len(units[0]) < B
    text, image = (np.stack(vectors) for vectors in units)
    assert float(found["align/gap"]) == pytest.approx(np.linalg.norm(text.mean(axis=0) - image.mean(axis=0)), rel=1e-5)
    assert float(found["align/cosine"]) == pytest.approx((text * image).sum(axis=1).mean(), rel=1e-5)


def test_gap_and_cosine_of_equal_opposite_and_orthogonal_modalities() -> None:
    x, y = torch.eye(2)
    mask = torch.ones(2, 1, dtype=torch.bool)
    valid = torch.ones(2, dtype=torch.bool)
    text = Latents(torch.stack([x, x])[:, None], mask)
    for side, gap, cosine in ((3 * x, 0.0, 1.0), (-x, 2.0, -1.0), (0.1 * y, math.sqrt(2), 0.0)):
        pairs = pair_moments(text, Latents(torch.stack([side, side])[:, None], mask), valid)
        found = scalars(MetricSums(posts=torch.tensor(2.0), terms={}, scalars={}, moments={}, pairs=pairs))
        assert found.keys() == {"align/gap", "align/cosine"}
        assert float(found["align/gap"]) == pytest.approx(gap, abs=1e-6)
        assert float(found["align/cosine"]) == pytest.approx(cosine, abs=1e-6)


def test_the_standard_deviation_of_equal_positions_is_zero_and_not_nan() -> None:
    """It is the difference of two sums; if they are equal, rounding decides the sign."""
    posterior = Posterior(torch.full((7, 3, 768), 1.1), torch.full((7, 3, 768), -3.0), torch.ones(7, 3).bool())
    losses = torch.ones(7)
    found = scalars(sums_of(posterior, posterior, losses.bool(), losses))
    assert float(found["ib/kl_text"]) == pytest.approx(768 * 0.5 * (1.21 + math.exp(-3) - 1 + 3), rel=1e-5)
    assert float(found["ib/kl_std_text"]) == pytest.approx(0.0, abs=1e-3)


def test_scalars_without_any_sum_are_omitted(sample: tuple[Posterior, Posterior]) -> None:
    text, image = sample
    absent = image._replace(mask=torch.zeros_like(image.mask))
    found = scalars(sums_of(text, absent, torch.ones(B, dtype=torch.bool), torch.rand(B)))
    assert found.keys() == {name for name in NAMES if name in ("loss", "task") or name.endswith("_text")}


def test_sums_are_added_part_by_part_without_in_place_changes(sample: tuple[Posterior, Posterior]) -> None:
    first, second = (sums_of(*sample, torch.arange(B) < count, torch.rand(B)) for count in (3, 7))
    before = {name: value.clone() for name, value in flatten(first).items()}
    added = first + second
    assert isinstance(added, MetricSums)
    for name, value in flatten(added).items():
        torch.testing.assert_close(value, before[name] + flatten(second)[name], msg=name)
    torch.testing.assert_close(flatten(first), before, rtol=0, atol=0)
    assert flatten(added).keys() == before.keys()


def aligned(loss: float, anchors: int, bound: float) -> MetricSums:
    """The sums of a batch that consists only of its alignment."""
    output = AlignmentOutput(torch.tensor(loss), torch.tensor(anchors), {"bound": torch.tensor(bound)})
    term = alignment_term(output)
    mask = torch.zeros(1, 1, dtype=torch.bool)
    nothing = Latents(torch.zeros(1, 1, 2), mask)
    return MetricSums(
        posts=torch.tensor(1.0),
        terms={term.name: Mean(term.sum, term.count)},
        scalars=dict(term.scalars),
        moments={},
        pairs=pair_moments(nothing, nothing, mask[0]),
        logged_as={term.name: term.log_name},
    )


def test_a_mean_over_batches_is_weighted_by_their_anchors() -> None:
    found = scalars(reduce(add, [aligned(loss, anchors, 2 * loss) for loss, anchors in ((5.0, 0), (3.0, 4), (6.0, 2))]))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"align/loss": 4.0, "align/bound": 8.0}
    )


def test_only_trained_terms_have_a_graph(sample: tuple[Posterior, Posterior]) -> None:
    text = Posterior(sample[0].mean.requires_grad_(), sample[0].log_var.requires_grad_(), sample[0].mask)
    sums = local_sums(text, sample[1], torch.ones(B, dtype=torch.bool), torch.rand(B))
    assert {name for name, value in flatten(sums).items() if value.requires_grad} == {".terms.kl_text.total"}
    assert sums.terms["kl_text"].total.shape == (D,)
    detached = sums.detached()
    assert not [name for name, value in flatten(detached).items() if value.requires_grad]
    torch.testing.assert_close(flatten(detached), flatten(sums))


def test_sums_round_trip_as_a_dictionary_of_plain_values(sample: tuple[Posterior, Posterior], tmp_path: Any) -> None:
    sums = dataclasses.replace(
        sums_of(*sample, torch.ones(B, dtype=torch.bool), torch.rand(B)), labels=torch.tensor([3.0, 1.0])
    )
    torch.save(sums.to_dict(), tmp_path / "sums.pt")
    again = MetricSums.from_dict(torch.load(tmp_path / "sums.pt", weights_only=True))
    torch.testing.assert_close(flatten(again), flatten(sums), rtol=0, atol=0)
    torch.testing.assert_close(flatten(again + sums), flatten(sums + sums), rtol=0, atol=0)
    torch.testing.assert_close(scalars(again), scalars(sums), rtol=0, atol=0)
    assert MetricSums.from_dict(dataclasses.replace(sums, labels=None).to_dict()).labels is None


# Loss terms


def test_a_term_is_a_weighted_mean_in_its_unit() -> None:
    term = LossTerm(name="own", sum=torch.tensor(6.0), count=torch.tensor(4), weight=0.5, unit="tokens")
    window = Window(posts=10.0, tokens=2.0, regions=100.0, images=1000.0)
    assert float(term.value(Mean(torch.tensor(6.0), torch.tensor(4)), window)) == pytest.approx(0.5 * 2.0 * 6 / 4)
    assert float(term.value(Mean(torch.tensor(0.0), torch.tensor(0)), window)) == 0.0, "of nothing"
    assert (term.log_name, dataclasses.replace(term, logged_as="x/y").log_name) == ("loss/own", "x/y")


def test_an_optimised_rate_is_the_sum_over_dimensions_above_their_free_bits(
    sample: tuple[Posterior, Posterior],
) -> None:
    text, valid = sample[0], torch.ones(B, dtype=torch.bool)
    rate = text.kl().sum(dim=(0, 1)).double() / text.mask.sum()
    for free_bits in (0.0, float(rate.median())):
        term = kl_term("text", text.kl(), text.mask, valid, free_bits)
        value = term.value(Mean(term.sum, term.count), Window(tokens=3.0))
        assert float(value) == pytest.approx(3 * float(rate.clamp(min=free_bits).sum()), rel=1e-6)
    assert int(term.count) == int(text.mask.sum())


def test_values_of_posts_are_averaged_over_the_valid_rows() -> None:
    mean = post_means(torch.tensor([1.0, math.nan, 5.0]), torch.tensor([True, False, True]))
    assert (float(mean.total), int(mean.count), float(mean.value)) == (6.0, 2, 3.0)
    assert float(post_means(torch.ones(2), torch.zeros(2, dtype=torch.bool)).value) == 0.0


def test_the_information_plane_is_in_nats_per_post(sample: tuple[Posterior, Posterior]) -> None:
    losses = torch.rand(B)
    plane = information_plane(sums_of(*sample, torch.ones(B, dtype=torch.bool), losses))
    assert plane == pytest.approx(
        {
            "rate_text": sample[0].kl().double().sum().item() / B,
            "rate_image": sample[1].kl().double().sum().item() / B,
            "distortion": losses.double().mean().item(),
        },
        rel=1e-6,
    )


def test_the_information_plane_has_the_entropy_of_the_labels_minus_the_distortion(
    sample: tuple[Posterior, Posterior],
) -> None:
    valid, losses = torch.ones(B, dtype=torch.bool), torch.rand(B)
    labels = [6, 0, 2, 1]  # of nine posts
    sums = sums_of(*sample, valid, losses)
    plane = information_plane(dataclasses.replace(sums, labels=torch.tensor(labels, dtype=torch.float64)))
    assert plane["information"] == pytest.approx(entropy(labels) - losses.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_posts_of_relation_extraction_have_one_label_each(make_module: Build, make_batch: Build, task: str) -> None:
    batch = make_batch(lengths=(9, 12, 8), regions=(3, 1, 0))
    module = make_module().eval()
    counts = module.objective(batch).sums.labels
    if task == "mner":
        assert counts is None
    else:
        assert counts.tolist() == np.bincount(batch.label_ids, minlength=len(module.labels)).tolist()


@pytest.mark.parametrize("task", ["mre", "mner"])
@pytest.mark.parametrize("alignment", [InfoNCEAlignment, JSDAlignment])
def test_scalars_of_a_modules_added_sums_match_those_of_the_whole_batch(
    make_module: Build, make_batch: Build, alignment: type
) -> None:
    module = make_module({"alignment": alignment}, beta_text=0.3, beta_image=0.2, gamma=0.0).eval()
    whole = make_batch(lengths=(9, 12, 8, 10, 11), regions=(3, 1, 0, 2, 2))
    parts = []
    for taken in ([0, 1, 2], [3, 4]):
        fields = {f.name: getattr(whole, f.name) for f in dataclasses.fields(whole)}
        part = {name: value[taken] for name, value in fields.items() if isinstance(value, torch.Tensor)}
        parts.append(module.objective(dataclasses.replace(whole, **part)).sums)
    added, expected = scalars(reduce(add, parts)), scalars(module.objective(whole).sums)
    own_names = INFO_NCE if alignment is InfoNCEAlignment else {"align/jsd_bound"}
    assert added.keys() == expected.keys() == NAMES | own_names
    # The loss of each part weights its own means: see the windows of accumulated gradients.
    for name in expected.keys() - own_names - {"loss", "align/loss"}:
        assert float(added[name]) == pytest.approx(float(expected[name]), rel=1e-5, abs=1e-4), name
