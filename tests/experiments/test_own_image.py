"""Ranks of posts' own images: by level, of posts with relevant images, and of the rows that a run stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import own_image
from mmib.datamodules.demo.posts import draw_posts
from mmib.datamodules.demo.settings import DemoSettings
from mmib.schema import RunError

SETTINGS = DemoSettings(size="tiny", noise=0.2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that stored for each validation post a text latent equal to its image latent."""
    posts = draw_posts(SETTINGS, "val")
    rows = np.array([row for row, post in enumerate(posts) if not post.missing])
    vectors = np.eye(len(rows), dtype=np.float32)
    (tmp_path / "latents").mkdir()
    save_file(
        {"rows": rows, "image_ids": np.arange(len(rows)), "text": vectors, "image": vectors},
        tmp_path / "latents" / "selected.safetensors",
    )
    summary = {"task": "mner", "experiment": "r", "seed": 1, "val": {}, "test": {}}
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return tmp_path


def test_a_run_that_identifies_every_image_ranks_it_first(run: Path) -> None:
    reached = own_image.reached_shares(run, SETTINGS)
    posts = draw_posts(SETTINGS, "val")
    fitting = [post for post in posts if not post.missing and post.clauses and post.noise is None]
    candidates = sum(not post.missing for post in posts)
    assert reached["all"].tolist() == [1 / candidates] * len(fitting)
    assert {name: len(found) for name, found in reached.items() if name != "all"} == {
        level: sum(post.level == level for post in fitting) for level in {post.level for post in fitting}
    }
    assert {name: len(found) for name, found in own_image.best_shares(SETTINGS).items()} == {
        name: len(found) for name, found in reached.items()
    }


def test_a_run_without_latents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="kept no latents"):
        own_image.reached_shares(tmp_path, SETTINGS)
