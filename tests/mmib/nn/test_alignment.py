"""Alignment regularisers, compared with manual calculations and naive loops."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmib.nn import alignment as alignment_module
from mmib.nn.alignment import (
    Alignment,
    AlignmentOutput,
    Candidates,
    InfoNCEAlignment,
    JSDAlignment,
    Latents,
    candidate_mask,
    info_nce,
    late_similarity,
    masked_mean,
    post_similarity,
    retrieved,
    rivals,
    rolled_negatives,
)
from mmib.schema import ConfigError

WIDTH = 6
KINDS: dict[str, Callable[[], Alignment]] = {
    "post": lambda: InfoNCEAlignment(WIDTH, "post"),
    "late": lambda: InfoNCEAlignment(WIDTH, "late"),
    "jsd": lambda: JSDAlignment(WIDTH),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def latents(lengths: list[int], slots: int = 1) -> Latents:
    mask = torch.arange(max(slots, *lengths))[None, :] < torch.tensor(lengths)[:, None]
    return Latents(torch.randn(*mask.shape, WIDTH), mask)


def one_hot(columns: list[int]) -> Latents:
    """One position per row, a unit vector along the row's column."""
    z = F.one_hot(torch.tensor(columns), WIDTH).float()[:, None, :]
    return Latents(z, torch.ones(len(columns), 1, dtype=torch.bool))


def candidates(ids: list[int]) -> Candidates:
    """Candidates of a single rank."""
    return Candidates(candidate_mask(torch.tensor(ids)))


def identity(temperature: float) -> InfoNCEAlignment:
    """Post-level InfoNCE whose logits are plain cosines over the temperature."""
    module = InfoNCEAlignment(WIDTH, temperature=temperature)
    for projection in (module.project_text, module.project_image):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    return module


def test_candidates_are_the_positive_and_all_rows_with_another_image() -> None:
    ids = torch.tensor([7, 7, 3, -1, -1])
    assert candidate_mask(ids).int().tolist() == [
        [1, 0, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_info_nce_of_2x2_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.5, -1.0]])
    losses = info_nce(logits, Candidates(torch.ones(2, 2, dtype=torch.bool)))
    expected = [math.log(math.exp(2) + math.exp(1)) - 2, math.log(math.exp(0.5) + math.exp(-1)) + 1]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_info_nce_of_3x3_by_hand_with_two_rows_of_one_image() -> None:
    logits = torch.tensor([[1.0, 9.0, 0.5], [8.0, 2.0, -1.0], [0.0, 0.3, 0.2]])
    losses = info_nce(logits, candidates([4, 4, 9]))
    expected = [
        math.log(math.exp(1.0) + math.exp(0.5)) - 1.0,
        math.log(math.exp(2.0) + math.exp(-1.0)) - 2.0,
        math.log(math.exp(0.0) + math.exp(0.3) + math.exp(0.2)) - 0.2,
    ]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_info_nce_of_3x3_by_hand_with_a_row_without_an_image() -> None:
    logits = torch.tensor([[1.0, 9.0, 0.5], [8.0, 2.0, -1.0], [0.0, 7.0, 0.2]])
    losses = info_nce(logits, candidates([4, -1, 9]))
    expected = [math.log(math.exp(1.0) + math.exp(0.5)) - 1.0, 0.0, math.log(math.exp(0.0) + math.exp(0.2)) - 0.2]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_info_nce_is_stable_for_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    losses = info_nce(logits, Candidates(torch.ones(2, 2, dtype=torch.bool)))
    losses.sum().backward()
    assert losses.tolist() == [0.0, 2e4]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_symmetric_loss_bound_and_accuracies_by_hand() -> None:
    """Text 0 matches image 0; text 1 equals image 0 as well; image 1 is orthogonal to both."""
    output = identity(temperature=0.5)(one_hot([0, 0]), one_hot([0, 1]), torch.tensor([1, 2]))
    # Logits [[2, 0], [2, 0]].
    text_to_image = [math.log(math.exp(2) + 1) - 2, math.log(math.exp(2) + 1)]
    image_to_text = [math.log(2.0), math.log(2.0)]
    loss = (sum(text_to_image) + sum(image_to_text)) / 4
    assert output.loss.item() == pytest.approx(loss, rel=1e-6)
    assert output.scalars["mi_bound"].item() == pytest.approx(math.log(2) - loss, rel=1e-5)
    assert output.scalars["accuracy_t2i"].item() == 0.5
    assert output.scalars["temperature"].item() == pytest.approx(0.5)
    assert output.anchors.item() == 2


def test_perfectly_aligned_pairs_reach_the_bound_of_log_n() -> None:
    output = identity(temperature=0.02)(one_hot([0, 1, 2, 3]), one_hot([0, 1, 2, 3]), torch.arange(4))
    assert output.loss.item() == pytest.approx(0.0, abs=1e-6)
    assert output.scalars["mi_bound"].item() == pytest.approx(math.log(4), rel=1e-5)
    assert output.scalars["accuracy_t2i"].item() == output.scalars["accuracy_i2t"].item() == 1.0


def test_bound_counts_each_anchors_own_candidates() -> None:
    """Rows 0 and 1 share an image and have two candidates each, row 2 has three, row 3 has no image."""
    output = identity(temperature=1.0)(one_hot([0, 0, 0, 5]), one_hot([0, 0, 0, 5]), torch.tensor([8, 8, 2, -1]))
    # All cosines are equal, so each loss is the log of its number of candidates and the bound is exactly zero.
    assert output.loss.item() == pytest.approx((2 * math.log(2) + math.log(3)) / 3, rel=1e-6)
    assert output.scalars["mi_bound"].item() == pytest.approx(0.0, abs=1e-6)
    assert output.anchors.item() == 3


def test_accuracies_of_the_two_directions_differ() -> None:
    """Both texts are nearest to image 1, yet each image has its own text nearest."""
    text = Latents(torch.tensor([[[1.0, 0.2, 0, 0, 0, 0]], [[1.0, 0, 0, 0, 0, 0]]]), torch.ones(2, 1).bool())
    image = Latents(torch.tensor([[[0, 1.0, 0, 0, 0, 0]], [[1.0, 0, 0, 0, 0, 0]]]), torch.ones(2, 1).bool())
    output = identity(temperature=1.0)(text, image, torch.tensor([1, 2]))
    assert output.scalars["accuracy_t2i"].item() == 0.5
    assert output.scalars["accuracy_i2t"].item() == 1.0


def test_post_similarity_is_the_cosine_of_masked_means() -> None:
    text, image = latents([3, 1]), latents([2, 4])
    similarity = post_similarity(text, image)
    for i, length in enumerate([3, 1]):
        for j, regions in enumerate([2, 4]):
            expected = F.cosine_similarity(text.z[i, :length].mean(dim=0), image.z[j, :regions].mean(dim=0), dim=0)
            torch.testing.assert_close(similarity[i, j], expected)


def test_late_similarity_matches_a_naive_loop() -> None:
    lengths, regions = [4, 1, 3], [2, 5, 1]
    text, image = latents(lengths), latents(regions)
    similarity = late_similarity(text, image)
    for i in range(3):
        for j in range(3):
            cosines = torch.tensor(
                [
                    [F.cosine_similarity(text.z[i, at], image.z[j, region], dim=0) for region in range(regions[j])]
                    for at in range(lengths[i])
                ]
            )
            expected = 0.5 * (cosines.max(dim=1).values.mean() + cosines.max(dim=0).values.mean())
            torch.testing.assert_close(similarity[i, j], expected)


@pytest.mark.parametrize("granularity", ["post", "late"])
def test_the_module_is_info_nce_of_its_projected_similarities(granularity: str) -> None:
    module = InfoNCEAlignment(WIDTH, granularity, temperature=0.2)  # type: ignore[arg-type]
    text, image, ids = latents([4, 1, 3]), latents([2, 0, 1]), torch.tensor([5, -1, 6])
    projected = (
        Latents(module.project_text(text.z), text.mask),
        Latents(module.project_image(image.z), image.mask),
    )
    logits = (post_similarity if granularity == "post" else late_similarity)(*projected) / 0.2
    a, b, c, d = logits[0, 0], logits[0, 2], logits[2, 0], logits[2, 2]
    losses = [F.softplus(b - a), F.softplus(c - d), F.softplus(c - a), F.softplus(b - d)]
    output = module(text, image, ids)
    torch.testing.assert_close(output.loss, sum(losses) / 4)
    assert output.anchors.item() == 2


@every_kind
@pytest.mark.parametrize(("pieces", "regions"), [(1, 0), (0, 1), (5, 3), (40, 12)])
def test_padding_changes_nothing(pad: Callable[[Latents, int], Latents], kind: str, pieces: int, regions: int) -> None:
    """Defects 1 and 24."""
    module = KINDS[kind]()
    text, image, ids = latents([4, 2, 3, 5]), latents([2, 0, 3, 1]), torch.tensor([5, -1, 6, 7])
    plain, padded = module(text, image, ids), module(pad(text, pieces), pad(image, regions), ids)
    torch.testing.assert_close(padded.loss, plain.loss)
    for name, value in plain.scalars.items():
        torch.testing.assert_close(padded.scalars[name], value)


@every_kind
def test_rows_without_an_image_are_excluded(kind: str) -> None:
    module = KINDS[kind]()
    text, image = latents([4, 2, 3]), latents([2, 0, 3])
    output = module(text, image, torch.tensor([5, -1, 6]))
    other = Latents(text.z.clone(), text.mask)
    other.z[1] = 50.0
    torch.testing.assert_close(module(other, image, torch.tensor([5, -1, 6])).loss, output.loss)
    kept = [0, 2]
    alone = module(
        Latents(text.z[kept], text.mask[kept]), Latents(image.z[kept], image.mask[kept]), torch.tensor([5, 6])
    )
    torch.testing.assert_close(alone.loss, output.loss)


@every_kind
@pytest.mark.parametrize("ids", [[-1, -1, -1], [-1]])
def test_a_batch_without_images_has_zero_loss_and_zero_gradients(kind: str, ids: list[int]) -> None:
    module = KINDS[kind]()
    text, image = latents([4, 2, 3][: len(ids)]), latents([0] * len(ids))
    text.z.requires_grad_()
    image.z.requires_grad_()
    output = module(text, image, torch.tensor(ids))
    output.loss.backward()
    assert output.loss.item() == 0.0
    assert output.anchors.item() == 0
    assert all(value.isfinite() for value in output.scalars.values())
    for parameter in (*module.parameters(), text.z, image.z):
        assert parameter.grad is None or not parameter.grad.any()


@every_kind
@pytest.mark.parametrize("ids", [[3], [3, 3], [3, -1]])
def test_a_post_without_negatives_has_no_gradient(kind: str, ids: list[int]) -> None:
    """Defect 14: in a final batch of one the negative was the positive, and rows of one image were negatives."""
    module = KINDS[kind]()
    text, image = latents([4, 2][: len(ids)]), latents([2, 2][: len(ids)])
    text.z.requires_grad_()
    output = module(text, image, torch.tensor(ids))
    output.loss.backward()
    assert output.loss.item() == pytest.approx(0.0, abs=1e-6)
    assert text.z.grad is None or text.z.grad.abs().max() < 1e-6


@every_kind
def test_gradients_are_finite_with_zero_vectors_and_mixed_rows(kind: str) -> None:
    module = KINDS[kind]()
    text, image = latents([4, 2, 3]), latents([2, 0, 3])
    text.z.data[0] = 0.0
    image.z.data[2] = 0.0
    text.z.requires_grad_()
    image.z.requires_grad_()
    module(text, image, torch.tensor([5, -1, 6])).loss.backward()
    for tensor in (text.z, image.z):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@every_kind
def test_loss_falls_when_the_pairs_become_predictable(kind: str) -> None:
    module = KINDS[kind]()
    text = latents([1] * 8)
    image, ids = Latents(text.z.clone() @ torch.randn(WIDTH, WIDTH), text.mask), torch.arange(8)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    first = module(text, image, ids).loss.item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = module(text, image, ids).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first


def test_the_temperature_is_fixed_by_default_and_optionally_learnt() -> None:
    fixed, learnt = InfoNCEAlignment(WIDTH), InfoNCEAlignment(WIDTH, learn_temperature=True)
    assert fixed.temperature.item() == pytest.approx(0.07)
    assert "log_temperature" not in dict(fixed.named_parameters())
    assert "log_temperature" in fixed.state_dict()
    learnt(latents([3, 2]), latents([2, 2]), torch.tensor([1, 2])).loss.backward()
    gradient = dict(learnt.named_parameters())["log_temperature"].grad
    assert gradient is not None
    assert gradient.abs() > 0


@pytest.mark.parametrize(("log_temperature", "expected"), [(-50.0, 0.01), (50.0, 1.0)])
def test_a_learnt_temperature_is_clamped(log_temperature: float, expected: float) -> None:
    module = InfoNCEAlignment(WIDTH, learn_temperature=True)
    torch.nn.init.constant_(module.log_temperature, log_temperature)
    output = module(latents([3, 2]), latents([2, 2]), torch.tensor([1, 2]))
    assert module.temperature.item() == pytest.approx(expected)
    assert output.scalars["temperature"].item() == pytest.approx(expected)
    assert output.loss.isfinite()


@pytest.mark.parametrize(("bound", "outward", "inward"), [(0.01, [0, 1], [1, 0]), (1.0, [1, 0], [0, 1])])
@pytest.mark.parametrize("beyond", [0.0, 0.001])
def test_a_learnt_temperature_can_leave_its_bounds(
    bound: float, outward: list[int], inward: list[int], beyond: float
) -> None:
    """Matching pairs favour a lower temperature, mismatched pairs a higher one."""
    module = InfoNCEAlignment(WIDTH, temperature=bound, learn_temperature=True)
    with torch.no_grad():
        module.log_temperature.add_(math.copysign(beyond, math.log(bound) + 1))
    optimizer = torch.optim.SGD([module.log_temperature], lr=0.1)

    def step(images: list[int]) -> None:
        text = one_hot([0, 1])
        # Nearly the same cosines, so that the loss has a gradient at any temperature.
        image = Latents(0.2 * text.z[images] + 1.0, text.mask)
        optimizer.zero_grad()
        module(text, image, torch.tensor([1, 2])).loss.backward()
        optimizer.step()

    for _ in range(3):
        step(outward)
    assert module.temperature.item() == pytest.approx(bound)
    step(inward)
    assert module.temperature.item() != pytest.approx(bound)
    assert 0.01 < module.temperature.item() < 1


@pytest.mark.parametrize("temperature", [0.001, 2.0, 0.0])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"outside \[0.01, 1.0\]"):
        InfoNCEAlignment(WIDTH, temperature=temperature)


def test_unknown_granularity_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'word' is unknown.*post.*late"):
        InfoNCEAlignment(WIDTH, granularity="word")  # type: ignore[arg-type]


@pytest.mark.parametrize("granularity", ["post", "late"])
def test_logits_are_computed_in_float32_under_autocast(granularity: str) -> None:
    module = InfoNCEAlignment(WIDTH, granularity, temperature=0.01)  # type: ignore[arg-type]
    text, image, ids = latents([7, 9, 8, 6]), latents([3, 2, 4, 1]), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(text, image, ids)
        lowered = [module.project_text(text.z), module.project_image(image.z)]
    assert output.loss.dtype == torch.float32
    # Only the projections are in half precision: after them the result matches float64 up to float32 precision.
    assert lowered[0].dtype == torch.bfloat16
    double = [Latents(z.double(), mask) for z, mask in zip(lowered, (text.mask, image.mask), strict=True)]
    similarity = (post_similarity if granularity == "post" else late_similarity)(*double) / 0.01
    compared = Candidates(candidate_mask(ids))
    expected = 0.5 * (info_nce(similarity, compared) + info_nce(similarity.T, compared)).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@every_kind
def test_works_in_float64(kind: str) -> None:
    module = KINDS[kind]().double()
    text, image = latents([4, 2, 3]), latents([2, 1, 3])
    output = module(Latents(text.z.double(), text.mask), Latents(image.z.double(), image.mask), torch.arange(3))
    assert output.loss.dtype == torch.float64


@pytest.mark.parametrize(
    ("ids", "negatives", "found"),
    [
        ([1, 2, 3], [1, 2, 0], [True, True, True]),
        ([1, 1, 2], [2, 2, 0], [True, True, True]),
        ([1, 2, 1, 1], [1, 2, 1, 1], [True, True, True, True]),
        ([1, -1, 2, -1], [2, 1, 0, 3], [True, False, True, False]),
        ([5], [0], [False]),
        ([5, 5], [0, 1], [False, False]),
        ([-1, -1], [0, 1], [False, False]),
    ],
)
def test_negative_is_the_next_row_in_cyclic_order_with_another_image(
    ids: list[int], negatives: list[int], found: list[bool]
) -> None:
    """Defect 14: `roll` paired a final batch of one with itself, and rows of one image with each other."""
    rows, valid = rolled_negatives(candidates(ids))
    assert rows.tolist() == negatives
    assert valid.tolist() == found


def jsd_with_scores(positive: float, negative: float) -> AlignmentOutput:
    """JSD on four pairs whose true pairs score `positive`, mismatched ones `negative`."""
    module = JSDAlignment(WIDTH)

    def score(text_mean: torch.Tensor, image_mean: torch.Tensor) -> torch.Tensor:
        return torch.where((text_mean == image_mean).all(dim=1), positive, negative)

    module._score = score  # type: ignore[method-assign]
    return module(one_hot([0, 1, 2, 3]), one_hot([0, 1, 2, 3]), torch.arange(4))


@pytest.mark.parametrize(("positive", "negative"), [(0.0, 0.0), (2.0, -1.0), (-3.0, 0.5)])
def test_jsd_loss_is_the_sum_of_two_cross_entropies_by_hand(positive: float, negative: float) -> None:
    output = jsd_with_scores(positive, negative)
    sigmoid_positive, sigmoid_negative = 1 / (1 + math.exp(-positive)), 1 / (1 + math.exp(-negative))
    loss = -math.log(sigmoid_positive) - math.log(1 - sigmoid_negative)
    assert output.loss.item() == pytest.approx(loss, rel=1e-5)
    assert output.scalars["jsd_bound"].item() == pytest.approx(2 * math.log(2) - loss, abs=1e-5)


def test_jsd_bound_is_zero_for_a_constant_discriminator_and_at_most_two_log_two() -> None:
    assert jsd_with_scores(0.0, 0.0).scalars["jsd_bound"].item() == pytest.approx(0.0, abs=1e-6)
    assert jsd_with_scores(50.0, -50.0).scalars["jsd_bound"].item() == pytest.approx(2 * math.log(2), rel=1e-6)


def test_jsd_is_stable_where_the_sigmoid_saturates() -> None:
    """Defect 15: a sigmoid followed by cross-entropy gives infinity, or a clamp without gradient."""
    assert jsd_with_scores(-500.0, 500.0).loss.item() == pytest.approx(1000.0)


def test_the_jsd_discriminator_has_one_score_per_pair() -> None:
    """Defect 13: 768 outputs were averaged."""
    module = JSDAlignment(WIDTH)
    assert module.discriminator(torch.randn(5, 2 * WIDTH)).shape == (5, 1)


def test_jsd_runs_under_autocast_with_its_cross_entropies_in_float32() -> None:
    """Defect 15: cross-entropy of probabilities is forbidden there."""
    module = JSDAlignment(WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(latents([3, 2, 1]), latents([2, 2, 1]), torch.arange(3))
    output.loss.backward()
    assert output.loss.dtype == torch.float32


def test_post_mean_of_a_post_without_valid_positions_is_zero() -> None:
    assert not latents([0, 0], slots=3).post_mean().any()


def test_masked_mean_divides_by_the_number_of_valid_positions() -> None:
    values = torch.tensor([1.0, 5.0, 100.0])
    assert masked_mean(values, torch.tensor([True, True, False])).item() == 3.0
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


# Ranks: threads here, which share one graph; other tests use real processes.

RANKS = 2


def share(all_rows: Latents, rank: int) -> Latents:
    """The half of the rows that a rank of two has."""
    part = slice(0, 3) if rank == 0 else slice(3, 6)
    return Latents(all_rows.z[part], all_rows.mask[part])


@pytest.fixture
def on_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], AlignmentOutput]], list[AlignmentOutput]]:
    """Calls a function with each rank in parallel; `global_rows` exchanges the threads' values."""
    threads = threading.local()
    barrier = threading.Barrier(RANKS, timeout=20)
    sent: list[torch.Tensor] = [torch.empty(0)] * RANKS

    def global_rows(rows: torch.Tensor) -> torch.Tensor:
        sent[threads.rank] = rows
        barrier.wait()
        gathered = torch.cat(sent)
        barrier.wait()
        return gathered

    monkeypatch.setattr(alignment_module, "global_rows", global_rows)
    monkeypatch.setattr(alignment_module, "rank", lambda: threads.rank)

    def call(function: Callable[[int], AlignmentOutput]) -> list[AlignmentOutput]:
        def begin(rank: int) -> AlignmentOutput:
            threads.rank = rank
            return function(rank)

        with ThreadPoolExecutor(RANKS) as pool:
            return list(pool.map(begin, range(RANKS)))

    return call


@every_kind
def test_global_negatives_match_a_single_process_with_the_rows_of_all_ranks(
    on_ranks: Callable[..., list[AlignmentOutput]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    module = KINDS[kind]()
    text, image = latents([3, 4, 1, 2, 4, 1]), latents([2, 0, 1, 3, 1, 2])
    ids = torch.tensor([4, -1, 2, 4, 7, 2])
    sides = text.z.requires_grad_(), image.z.requires_grad_()
    with monkeypatch.context() as alone_here:
        alone_here.setattr(alignment_module, "global_rows", lambda rows: rows)
        alone_here.setattr(alignment_module, "rank", lambda: 0)
        alone = module(text, image, ids)
    shared = on_ranks(lambda rank: module(share(text, rank), share(image, rank), ids[3 * rank :][:3]))
    anchors = [int(output.anchors) for output in shared]
    assert anchors == [2, 3]
    assert int(alone.anchors) == 5

    def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return sum(value * weight for value, weight in zip(values, anchors, strict=True)) / sum(anchors)  # type: ignore[return-value]

    loss = mean([output.loss for output in shared])
    torch.testing.assert_close(loss, alone.loss)
    for name, value in alone.scalars.items():
        torch.testing.assert_close(mean([output.scalars[name] for output in shared]).to(value), value)
    for found, expected in zip(torch.autograd.grad(loss, sides), torch.autograd.grad(alone.loss, sides), strict=True):
        torch.testing.assert_close(found, expected)


def test_each_of_eight_ranks_computes_an_eighth_of_the_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    """It receives the other ranks' images, but not their texts."""
    rows, ranks = 4, 8
    sent: list[tuple[int, ...]] = []

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tuple(tensor.shape))
        return tensor.repeat(ranks, *[1] * (tensor.ndim - 1))

    monkeypatch.setattr(alignment_module, "rank", lambda: 3)
    monkeypatch.setattr(alignment_module, "global_rows", repeated)
    text, image = latents([5] * rows, slots=5), latents([2] * rows, slots=2)
    module = InfoNCEAlignment(WIDTH, "late")
    # Without the projections, which each rank computes for its own rows.
    module.project_text = module.project_image = torch.nn.Identity()  # type: ignore[assignment]
    with FlopCounterMode(display=False) as shared:
        module(text, image, torch.arange(rows))
    assert [shape for shape in sent if len(shape) == 3 and shape[-1] == WIDTH] == [(rows, 2, WIDTH)]
    many = [Latents(side.z.repeat(ranks, 1, 1), side.mask.repeat(ranks, 1)) for side in (text, image)]
    monkeypatch.setattr(alignment_module, "rank", lambda: 0)
    monkeypatch.setattr(alignment_module, "global_rows", lambda tensor: tensor)
    with FlopCounterMode(display=False) as whole:
        module(*many, torch.arange(rows * ranks))
    assert shared.get_total_flops() * ranks == whole.get_total_flops() > 0


@pytest.mark.parametrize("pairs", [1, 40])
def test_chunked_late_similarity_has_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    text, image = latents([3, 4, 0, 2, 4]), latents([2, 0, 1, 3, 1])
    sides = text.z.requires_grad_(), image.z.requires_grad_()
    weights = torch.randn(5, 5)
    whole = late_similarity(text, image)
    monkeypatch.setattr(alignment_module, "MOST_PAIRS", pairs)
    parts = late_similarity(text, image)
    torch.testing.assert_close(parts, whole)
    expected, found = (torch.autograd.grad((similarity * weights).sum(), sides) for similarity in (whole, parts))
    torch.testing.assert_close(found, expected)


@every_kind
def test_local_negatives_are_those_of_the_own_rank(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    module = KINDS[kind]()
    text, image, ids = latents([3, 4, 1]), latents([2, 0, 1]), torch.tensor([4, -1, 2])
    expected = module(text, image, ids)
    monkeypatch.setattr(alignment_module, "rank", lambda: 1)
    monkeypatch.setattr(alignment_module, "global_rows", lambda _: pytest.fail("gathered"))
    module.negatives = "local"
    found = module(text, image, ids)
    torch.testing.assert_close(found.loss, expected.loss)
    assert int(found.anchors) == 2


@pytest.mark.parametrize("kind", [InfoNCEAlignment, JSDAlignment])
def test_unknown_negatives_are_refused_with_the_choices(kind: Callable[..., Alignment]) -> None:
    with pytest.raises(ConfigError, match=r"negatives 'all' are unknown: choose from \['global', 'local'\]"):
        kind(WIDTH, negatives="all")
    assert kind(WIDTH).negatives == "global"
    assert kind(WIDTH, negatives="local").negatives == "local"


@pytest.mark.parametrize("kind", ["post", "jsd"])
def test_only_means_are_gathered_if_means_are_compared(kind: str) -> None:
    text, image = KINDS[kind]().represent(latents([3, 4, 0]), latents([2, 0, 1]))
    assert text.z.shape == image.z.shape == (3, 1, WIDTH)
    assert text.mask.tolist() == [[True], [True], [False]]
    assert image.mask.tolist() == [[True], [False], [True]]


def test_retrieval_counts_tied_candidates_fractionally_despite_rounding() -> None:
    none = -math.inf
    logits = torch.tensor([[3.0, 3.0, 3.0], [2.0, 1.0, none], [1.0, none, 4.0]], dtype=torch.float64)
    for seed in range(5):
        rounding = 1e-9 * torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        torch.testing.assert_close(first_of_rows(logits + rounding), torch.tensor([1 / 3, 0.0, 1.0]))


def first_of_rows(logits: torch.Tensor) -> torch.Tensor:
    return retrieved(*(found.sum(dim=1) for found in rivals(logits, logits.diagonal()[:, None])))


def test_a_row_that_is_no_anchor_has_no_effect_on_retrieval() -> None:
    assert first_of_rows(torch.full((2, 2), -math.inf)).tolist() == [0.0, 0.0]


def test_two_files_with_the_same_image_are_retrieved_half_of_the_time() -> None:
    image = Latents(torch.eye(4)[[0, 0, 1, 2]][:, None, :], torch.ones(4, 1, dtype=torch.bool))
    scalars = InfoNCEAlignment(4)(image, image, torch.arange(4)).scalars
    assert scalars["accuracy_t2i"].item() == scalars["accuracy_i2t"].item() == pytest.approx(0.75)


def test_similarity_is_the_cosine_of_the_text_and_image_of_a_row() -> None:
    text, image = one_hot([0, 1, 2]), one_hot([0, 2, 2])
    assert identity(0.07).similarity(text, image).tolist() == pytest.approx([1.0, 0.0, 1.0])


@every_kind
def test_similarity_is_nan_without_an_image_and_independent_of_other_rows(kind: str) -> None:
    module, text, image = KINDS[kind](), latents([3, 2, 4]), latents([2, 0, 3])
    similarity = module.similarity(text, image)
    assert similarity.isnan().tolist() == [False, True, False]
    alone = module.similarity(*(Latents(side.z[2:], side.mask[2:]) for side in (text, image)))
    torch.testing.assert_close(alone, similarity[2:])
