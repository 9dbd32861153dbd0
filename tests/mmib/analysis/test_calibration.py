"""Confidence of predictions and the temperature that makes it mean what it says: known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from mmib.analysis.calibration import (
    Entity,
    Temperature,
    calibration,
    entities,
    entity_confidence,
    fitted_temperature,
    judged,
    likeliest_temperature,
    log_odds,
    relation_confidence,
    softmax,
    tempered,
)
from mmib.schema import RELATIONS


def test_a_stray_inside_tag_opens_an_entity() -> None:
    assert entities(["O", "I-LOC", "I-LOC", "B-PER"]) == [Entity("LOC", 1, 3), Entity("PER", 3, 4)]


def test_confidence_of_a_relation_is_its_softmax() -> None:
    scores = np.linspace(-2, 900, len(RELATIONS))
    record = {"scores": scores.tolist(), "predicted": RELATIONS[-2]}
    expected = torch.tensor(scores).softmax(dim=0)[-2]
    assert relation_confidence(record) == pytest.approx(float(expected))


def test_confidence_of_an_entity_is_that_of_its_least_sure_word() -> None:
    assert entity_confidence(Entity("PER", 1, 3), [0.1, 0.9, 0.6, 0.2]) == 0.6
    assert entity_confidence(Entity("PER", 0, 2), [None, 0.9]) == 0.0


def test_an_entity_of_another_type_or_span_is_judged_wrong() -> None:
    record: dict[str, Any] = {
        "gold": ["B-PER", "I-PER", "O", "B-LOC", "B-ORG"],
        "predicted": ["B-PER", "O", "O", "B-ORG", "B-ORG"],
        "confidence": [0.9, 0.8, 0.7, 0.6, 0.5],
    }
    assert judged("mner", [record]) == [(0.9, False), (0.6, False), (0.5, True)]


def test_calibration_error_by_hand() -> None:
    found = calibration([(0.95, True), (0.95, False), (0.55, True), (1.0, True)])
    assert found is not None
    assert found.bins == [(0.55, 1.0, 1), (pytest.approx(2.9 / 3), pytest.approx(2 / 3), 3)]
    assert found.error == pytest.approx((1 * 0.45 + 3 * 0.3) / 4)


def test_predictions_that_are_as_sure_as_right_have_no_error() -> None:
    found = calibration([(0.75, True)] * 3 + [(0.75, False)])
    assert found is not None
    assert found.error == pytest.approx(0)
    assert calibration([]) is None


def relation_records(temperature: float, rows: int = 4000) -> list[dict[str, Any]]:
    """Rows whose gold relations are drawn from their logits, which are then multiplied by the temperature."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(rows, len(RELATIONS)))
    gold = [random.choice(len(RELATIONS), p=shares) for shares in softmax(logits)]
    return [
        {
            "gold": RELATIONS[label],
            "predicted": RELATIONS[int(own.argmax())],
            "scores": (temperature * own).tolist(),
        }
        for label, own in zip(gold, logits, strict=True)
    ]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_relations_too_sure_is_found_again(temperature: float) -> None:
    found = fitted_temperature("mre", relation_records(temperature))
    assert found.value == pytest.approx(temperature, rel=0.05)
    assert found.count == 4000
    assert found.error_after is not None
    assert found.error_after < 0.03


def test_the_temperature_of_entities_cures_overconfidence() -> None:
    random = np.random.default_rng(1)
    honest = random.uniform(0.5, 0.99, size=3000)
    records = [
        {
            "gold": ["B-PER" if random.random() < chance else "O"],
            "predicted": ["B-PER"],
            "confidence": [float(tempered(np.array(chance), 1 / 2.5))],
        }
        for chance in honest
    ]
    found = fitted_temperature("mner", records)
    assert found.value == pytest.approx(2.5, rel=0.1)
    assert found.error_before is not None
    assert found.error_after is not None
    assert found.error_after < 0.5 * found.error_before


def test_the_temperature_is_the_maximum_of_the_likelihood() -> None:
    random = np.random.default_rng(2)
    logits, gold = 4 * random.normal(size=(200, 5)), random.integers(0, 5, size=200)
    logits[np.arange(200), gold] += 3

    def surprise(temperature: float) -> float:
        return -float(np.log(softmax(logits / temperature)[np.arange(200), gold]).mean())

    best = minimize_scalar(surprise, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    assert likeliest_temperature(logits, gold) == pytest.approx(best.x, rel=1e-4)


def test_predictions_that_are_always_right_stay_within_bounds() -> None:
    assert likeliest_temperature(np.array([[0.0, 1.0]] * 30), np.ones(30, dtype=int)) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("records", [[], relation_records(3.0, rows=19)])
def test_few_predictions_fit_no_temperature(records: list[dict[str, Any]]) -> None:
    assert fitted_temperature("mre", records) == Temperature(1.0, 0)


def test_a_temperature_moves_probabilities_towards_a_half_and_keeps_their_order() -> None:
    probability = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    hot = tempered(probability, 4.0)
    assert (np.diff(hot) > 0).all()
    assert hot[2] == pytest.approx(0.5)
    assert (np.abs(hot - 0.5) <= np.abs(probability - 0.5)).all()
    np.testing.assert_array_equal(tempered(probability, 1.0), probability)
    assert np.isfinite(log_odds(probability)).all()
