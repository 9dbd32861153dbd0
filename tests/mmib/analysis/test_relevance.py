"""AUC of a model's relevance signals, against scikit-learn and by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mmib.analysis.relevance import ALL, BEST, SIGNALS, auc, concentration, detections, image_nats, mean_auc
from mmib.runs.reader import FinishedRun
from mmib.schema import RunError

# Few distinct values, so that ties are common.
scores = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]) | st.floats(-2, 2), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(scores, scores)
def test_auc_matches_scikit_learn(positive: list[float], negative: list[float]) -> None:
    labels = [1] * len(positive) + [0] * len(negative)
    expected = roc_auc_score(labels, positive + negative)
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)


def test_auc_by_hand() -> None:
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == (2 + 1 + 0.5) / 4
    assert auc(np.array([1.0]), np.array([1.0, 1.0])) == 0.5


def test_nats_of_an_image_are_the_mean_of_its_regions() -> None:
    assert image_nats({"kl_image": [1.0, None, 4.0]}) == 2.5
    assert image_nats({"kl_image": []}) is image_nats({"kl_image": [None]}) is None


def test_attention_concentration_lies_between_one_region_and_all() -> None:
    def of(*rows: list[float] | None) -> float | None:
        return concentration({"attention": list(rows)})

    assert of([0.25] * 4) == pytest.approx(0.0)
    assert of([0.0, 1.0, 0.0]) == pytest.approx(1.0)
    assert of([0.5, 0.5, 0.0, 0.0], None, [1.0, 0.0, 0.0, 0.0]) == pytest.approx((0.5 + 1.0) / 2)
    assert of([1.0]) is of(None) is concentration({}) is None


def record(noise: str | None, nats: float, **more: Any) -> dict[str, Any]:
    p = 0.9 if noise is None else 0.3 if noise == "scene" else 0.0
    return {"id": 0, "predicted": "", "kl_image": [nats], "noise": noise, "relevance_posterior": p, **more}


RECORDS = [
    *(record(None, nats, similarity=0.5) for nats in (5.0, 6.0, 7.0)),
    *(record("scene", nats, similarity=0.5) for nats in (4.0, 6.5)),
    *(record("meme", nats, similarity=0.1) for nats in (1.0, 2.0)),
    {**record(None, 0.0), "relevance_posterior": None},  # chatter
    {"id": 0, "predicted": "", "kl_image": []},  # a post without an image
]


def test_each_kind_of_irrelevant_image_is_distinguished_from_relevant_ones() -> None:
    everything, meme, scene = detections(RECORDS)
    assert [each.noise for each in (everything, meme, scene)] == [ALL, "meme", "scene"]
    assert [(each.relevant, each.irrelevant) for each in (everything, meme, scene)] == [(3, 4), (3, 2), (3, 2)]
    expected = {"KL of the image": 4 / 6, "similarity": 0.5, "attention": None, BEST: 1.0}
    assert scene.auc == pytest.approx(expected)
    assert meme.auc == pytest.approx({"KL of the image": 1.0, "similarity": 1.0, "attention": None, BEST: 1.0})
    assert everything.auc["KL of the image"] == pytest.approx((4 + 6) / 12)
    assert [each.noise for each in detections([r for r in RECORDS if r.get("noise") != "meme"])] == [ALL]


@pytest.mark.parametrize("records", [[], RECORDS[:3], RECORDS[3:], RECORDS[7:]], ids=["none", "clean", "noise", "rest"])
def test_auc_is_undefined_without_both_classes(records: list[dict[str, Any]]) -> None:
    assert detections(records) == []


@pytest.mark.parametrize("change", [{"kl_image": None}, {"similarity": "high"}, {"attention": [[0.5, 0.5], [1.0]]}])
def test_damaged_predictions_are_refused_and_their_file_named(change: dict[str, Any]) -> None:
    run = FinishedRun(Path("run"), {})
    with pytest.raises(RunError, match=r"test\.jsonl is damaged.*score the run again"), run.interpreting("test"):
        detections([{**RECORDS[0], **change}, *RECORDS[1:]])


def test_runs_of_several_seeds_are_averaged() -> None:
    found = mean_auc([detections(records) for records in (RECORDS, RECORDS[:1] + RECORDS[3:])])
    assert found.keys() == SIGNALS.keys()
    assert found["KL of the image"] == pytest.approx((10 / 12 + 3 / 4) / 2)
    assert found["attention"] is None
    assert math.isfinite(found["similarity"] or math.nan)
    assert mean_auc([detections(RECORDS), detections(RECORDS[:1])]) == {}
