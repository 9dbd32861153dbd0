"""Confidence of predictions and temperature scaling: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mmib.analysis.calibration import (
    COVERAGES,
    Temperature,
    calibration,
    fitted_temperature,
    likeliest_temperature,
    risk_coverage,
    tempered,
)
from mmib.records import Judgement, log_odds, softmax

CLASSES = 23


def judgement(confidence: float, right: bool) -> Judgement:
    """A prediction that is right or wrong."""
    return Judgement((0.0, float(log_odds(np.array(confidence)))), 1, int(right))


def judgements(*predictions: tuple[float, bool]) -> list[Judgement]:
    return [judgement(confidence, right) for confidence, right in predictions]


def test_calibration_error_by_hand() -> None:
    found = calibration(judgements((0.95, True), (0.95, False), (0.55, True), (1.0, True)))
    assert found is not None
    assert [count for _, _, count in found.bins] == [1, 3]
    expected = [(0.55, 1.0), (pytest.approx(2.9 / 3), pytest.approx(2 / 3))]
    assert [(pytest.approx(mean), share) for mean, share, _ in found.bins] == expected
    assert found.error == pytest.approx((1 * 0.45 + 3 * 0.3) / 4)


def test_predictions_that_are_as_sure_as_right_have_no_error() -> None:
    found = calibration(judgements(*[(0.75, True)] * 3, (0.75, False)))
    assert found is not None
    assert found.error == pytest.approx(0)
    assert calibration([]) is None


@pytest.mark.parametrize("confidence", np.arange(1, 10) / 10)
def test_a_confidence_on_a_bin_edge_belongs_to_the_upper_bin(confidence: float) -> None:
    """This also holds without a round trip through logits, which may end slightly below the edge."""
    found = calibration(judgements((confidence, True), (confidence + 0.05, True)))
    assert found is not None
    assert [count for _, _, count in found.bins] == [2]


def test_confidence_is_the_softmax_probability_of_the_prediction() -> None:
    logits = np.linspace(-2, 900, CLASSES)
    found = calibration([Judgement(logits.tolist(), CLASSES - 1, 0)], temperature=400.0)
    assert found is not None
    assert found.bins == [(pytest.approx(softmax(logits / 400.0)[-1]), 0.0, 1)]


def test_risk_against_coverage_by_hand() -> None:
    found = risk_coverage(judgements((0.6, False), (0.9, True), (0.8, False), (0.7, True)))
    assert found is not None
    risks = [0, 1 / 2, 1 / 3, 2 / 4]
    assert [coverage for coverage, _ in found.curve] == [0.25, 0.5, 0.75, 1]
    assert [risk for _, risk in found.curve] == pytest.approx(risks)
    assert found.area == pytest.approx(np.mean(risks))
    assert risk_coverage([]) is None


def test_the_order_of_equally_confident_predictions_does_not_matter() -> None:
    tied = [(0.9, True), *[(0.7, True)] * 3, (0.7, False)]
    found, other = (risk_coverage(judgements(*order)) for order in (tied, tied[::-1]))
    assert found == other
    assert found is not None
    assert [risk for _, risk in found.curve] == pytest.approx([0, 1 / 8, 2 / 12, 3 / 16, 4 / 20])


def test_a_curve_has_few_points_and_ends_at_the_error_rate() -> None:
    random = np.random.default_rng(0)
    right = random.random(1000) < 0.8
    found = risk_coverage(judgements(*zip(random.uniform(0.5, 1, 1000).tolist(), right.tolist(), strict=True)))
    assert found is not None
    assert len(found.curve) == COVERAGES
    assert found.curve[-1] == (1.0, pytest.approx(1 - right.mean()))


def sure_of_classes(temperature: float, rows: int = 4000) -> list[Judgement]:
    """Rows whose gold classes are sampled from their logits, which are then multiplied by the temperature."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(rows, CLASSES))
    gold = [random.choice(CLASSES, p=shares) for shares in softmax(logits)]
    return [
        Judgement((temperature * row).tolist(), int(row.argmax()), int(label))
        for label, row in zip(gold, logits, strict=True)
    ]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_overconfident_classes_is_recovered(temperature: float) -> None:
    found = fitted_temperature(sure_of_classes(temperature))
    assert found.value == pytest.approx(temperature, rel=0.05)
    assert found.count == 4000
    assert found.error_after is not None
    assert found.error_after < 0.03


def test_temperature_scaling_of_binary_judgements_removes_overconfidence() -> None:
    random = np.random.default_rng(1)
    honest = random.uniform(0.5, 0.99, size=3000)
    sure = tempered(honest, 1 / 2.5)
    found = fitted_temperature(judgements(*zip(sure.tolist(), random.random(3000) < honest, strict=True)))
    assert found.value == pytest.approx(2.5, rel=0.1)
    assert found.error_before is not None
    assert found.error_after is not None
    assert found.error_after < 0.5 * found.error_before


def test_the_temperature_maximises_the_likelihood() -> None:
    random = np.random.default_rng(2)
    logits, gold = 4 * random.normal(size=(200, 5)), random.integers(0, 5, size=200)
    logits[np.arange(200), gold] += 3

    def surprise(temperature: float) -> float:
        return -float(np.log(softmax(logits / temperature)[np.arange(200), gold]).mean())

    best = minimize_scalar(surprise, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    assert likeliest_temperature(logits, gold) == pytest.approx(best.x, rel=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 900.0])
@pytest.mark.parametrize("right", [True, False])
def test_uniformly_right_or_wrong_predictions_have_no_temperature(right: bool, scale: float) -> None:
    logits = scale * np.random.default_rng(0).normal(size=(30, 4))
    gold = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    rows = zip(logits.tolist(), logits.argmax(axis=1).tolist(), gold.tolist(), strict=True)
    assert fitted_temperature([Judgement(row, predicted, label) for row, predicted, label in rows]) == Temperature()


@pytest.mark.parametrize("few", [[], sure_of_classes(3.0, rows=19)])
def test_few_predictions_have_no_temperature(few: list[Judgement]) -> None:
    assert fitted_temperature(few) == Temperature(1.0, 0)


def test_a_high_temperature_moves_probabilities_towards_one_half_and_keeps_their_order() -> None:
    probability = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    hot = tempered(probability, 4.0)
    assert (np.diff(hot) > 0).all()
    assert hot[2] == pytest.approx(0.5)
    assert (np.abs(hot - 0.5) <= np.abs(probability - 0.5)).all()
    np.testing.assert_array_equal(tempered(probability, 1.0), probability)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_scores_have_no_calibration(value: float) -> None:
    """The report of such a run failed when plotting the bins."""
    assert calibration([Judgement((value, 0.0), 0, 1), Judgement((1.0, 0.0), 0, 0)]) is None
