"""Numbers out of predictions and latents: known answers, and agreement with what training logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix

from mmib.analysis.report.evidence import (
    MISSED,
    NOTHING,
    OTHER_SPAN,
    confusion,
    latent_space,
    read_latents,
)
from mmib.information import pair_sums, scalars
from mmib.nn.alignment import Latents
from mmib.schema import RELATIONS, RunError


def test_relations_are_counted_as_scikit_learn_counts_them() -> None:
    random = np.random.default_rng(0)
    pairs = [(RELATIONS[a], RELATIONS[b]) for a, b in random.integers(0, 6, size=(200, 2))]
    found = confusion("mre", [{"gold": gold, "predicted": predicted} for gold, predicted in pairs])
    expected = confusion_matrix([gold for gold, _ in pairs], [given for _, given in pairs], labels=found.rows)
    assert found.rows == found.columns == list(RELATIONS[:6])
    np.testing.assert_array_equal(found.counts, expected)


def test_entities_are_counted_by_what_became_of_them() -> None:
    record = {
        "gold": ["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "O", "B-PER", "O"],
        "predicted": ["B-PER", "O", "O", "B-ORG", "O", "O", "O", "B-PER", "B-MISC"],
    }
    found = confusion("mner", [record])
    counts = {
        (gold, given): int(found.counts[row, column])
        for row, gold in enumerate(found.rows)
        for column, given in enumerate(found.columns)
        if found.counts[row, column]
    }
    assert counts == {
        ("PER", OTHER_SPAN): 1,
        ("LOC", "ORG"): 1,
        ("ORG", MISSED): 1,
        ("PER", "PER"): 1,
        (NOTHING, "MISC"): 1,
    }


def test_gap_and_cosine_are_those_that_training_logs() -> None:
    random = np.random.default_rng(1)
    text, image = random.normal(size=(2, 30, 8)) + 0.3
    space = latent_space(text, image)
    seen = torch.ones(30, 1, dtype=torch.bool)
    sides = [Latents(torch.tensor(side)[:, None], seen) for side in (text, image)]
    nothing = torch.zeros(())
    others = ("loss", "task", "text/positions", "image/positions", "align/anchors")
    totals = {**dict.fromkeys(others, nothing), "posts": torch.tensor(30), **pair_sums(*sides, seen[:, 0])}
    logged = scalars(totals)
    assert space.gap == pytest.approx(float(logged["align/gap"]), rel=1e-5)
    assert space.cosine == pytest.approx(float(logged["align/cosine"]), rel=1e-5)


def test_the_plane_is_that_of_principal_components() -> None:
    random = np.random.default_rng(2)
    text, image = random.normal(size=(2, 25, 6)) * [3, 2, 1, 1, 1, 1] + 1
    space = latent_space(text, image)
    units = np.concatenate([side / np.linalg.norm(side, axis=1, keepdims=True) for side in (text, image)])
    reference = PCA(2).fit(units)
    np.testing.assert_allclose(
        np.abs(np.concatenate([space.text, space.image])), np.abs(reference.transform(units)), atol=1e-8
    )
    np.testing.assert_allclose(space.explained, reference.explained_variance_ratio_)


@pytest.mark.parametrize("posts", [1, 2])
def test_few_posts_and_posts_without_direction_have_a_plane(posts: int) -> None:
    space = latent_space(np.zeros((posts, 4)), np.ones((posts, 4)))
    assert space.text.shape == (posts, 2)
    assert np.isfinite(space.text).all()
    assert space.gap == pytest.approx(1)
    assert latent_space(np.ones((posts, 1)), np.ones((posts, 1))).cosine == pytest.approx(1)


def test_latents_are_read_as_they_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    assert read_latents(path) is None
    text = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float16)
    save_file({"text": text, "image": text, "rows": np.arange(5)}, path)
    space = read_latents(path)
    assert space is not None
    assert space.cosine == pytest.approx(1)
    save_file({"text": text[:0], "image": text[:0], "rows": np.arange(0)}, path)
    assert read_latents(path) is None


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_damaged_latents_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "selected.safetensors"
    if content is None:
        save_file({"text": np.zeros((2, 2), np.float16)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"selected\.safetensors holds no latents"):
        read_latents(path)
