"""Statistics of latents: known answers, and agreement with the values logged in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from mmib.analysis.report.evidence import LatentSpace, latent_space, read_latents
from mmib.geometry import PairedLatents
from mmib.information import MetricSums, pair_moments, scalars
from mmib.nn.alignment import Latents
from mmib.schema import RunError


def space_of(text: np.ndarray, image: np.ndarray) -> LatentSpace:
    return latent_space(PairedLatents(text, image))


def test_gap_and_cosine_match_those_logged_in_training() -> None:
    random = np.random.default_rng(1)
    text, image = random.normal(size=(2, 30, 8)) + 0.3
    space = space_of(text, image)
    seen = torch.ones(30, 1, dtype=torch.bool)
    sides = [Latents(torch.tensor(side)[:, None], seen) for side in (text, image)]
    pairs = pair_moments(*sides, seen[:, 0])
    logged = scalars(MetricSums(posts=torch.tensor(30), terms={}, scalars={}, moments={}, pairs=pairs))
    assert space.geometry.gap == pytest.approx(float(logged["align/gap"]), rel=1e-5)
    assert space.geometry.pair_cosine == pytest.approx(float(logged["align/cosine"]), rel=1e-5)


def test_the_plane_is_spanned_by_the_principal_components() -> None:
    random = np.random.default_rng(2)
    text, image = random.normal(size=(2, 25, 6)) * [3, 2, 1, 1, 1, 1] + 1
    space = space_of(text, image)
    units = np.concatenate([side / np.linalg.norm(side, axis=1, keepdims=True) for side in (text, image)])
    reference = PCA(2).fit(units)
    np.testing.assert_allclose(
        np.abs(np.concatenate([space.text, space.image])), np.abs(reference.transform(units)), atol=1e-8
    )
    np.testing.assert_allclose(space.explained, reference.explained_variance_ratio_)


@pytest.mark.parametrize("posts", [1, 2])
def test_few_or_degenerate_posts_have_a_plane(posts: int) -> None:
    space = space_of(np.zeros((posts, 4)), np.ones((posts, 4)))
    assert space.text.shape == (posts, 2)
    assert np.isfinite(space.text).all()
    assert space.geometry.gap == pytest.approx(1)
    assert space_of(np.ones((posts, 1)), np.ones((posts, 1))).geometry.pair_cosine == pytest.approx(1)


def test_stored_latents_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    assert read_latents(path, ()) is None
    text = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float16)
    save_file({"text": text, "image": text, "rows": np.arange(5)}, path)
    space = read_latents(path, ())
    assert space is not None
    assert space.geometry.pair_cosine == pytest.approx(1)
    assert space.geometry.candidates == 5, "a file of version 0.1 tells nothing of shared images"
    assert space.by_label == {}
    save_file({"text": text[:0], "image": text[:0], "rows": np.arange(0)}, path)
    assert read_latents(path, ()) is None


def test_labels_and_shared_images_match_the_file(tmp_path: Path) -> None:
    path = tmp_path / "selected.safetensors"
    text, image = np.random.default_rng(3).normal(size=(2, 6, 4)).astype(np.float32)
    labels = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    ids = np.array([3, 3, 5, 6, 7, 8])
    tensors = {"text": text, "image": image, "image_ids": ids, "rows": np.arange(6)}
    save_file({**tensors, "labels": labels}, path)
    space = read_latents(path, ("often", "once", "once too"))
    assert space is not None
    latents = PairedLatents(text, image, ids)
    assert space.geometry == latents.geometry()
    assert space.by_label == {"often": latents.geometry(labels[:, 0])}, "a single post has no geometry"
    for names, wrong in ((("often",), labels), (("a", "b", "c"), labels[:4])):
        save_file({**tensors, "labels": wrong}, path)
        with pytest.raises(RunError, match=r"selected\.safetensors holds no latents"):
            read_latents(path, names)


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_damaged_latents_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "selected.safetensors"
    if content is None:
        save_file({"text": np.zeros((2, 2), np.float16)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"selected\.safetensors holds no latents"):
        read_latents(path, ())
