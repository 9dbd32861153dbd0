"""Generated sets have the requested number of posts, and measurements of a process are plausible."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import memory
from mmib.datamodules.demo import DemoSettings, write_demo_corpus


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "demo"
    write_demo_corpus(root, DemoSettings(size="tiny"))
    return root


@pytest.mark.skipif(not memory.PEAK_RESET.exists(), reason="Linux tells the peak of a process")
@pytest.mark.parametrize("task", ["mre", "mner"])
def test_a_set_has_the_requested_posts_and_can_be_measured(demo: Path, tmp_path: Path, task: str) -> None:
    root = tmp_path / "set"
    for posts in (90, 130):
        memory.write_posts(root, task, posts, demo)
        assert sum(1 for _ in memory.reader_of(root, task).posts("train")) == posts
    found = memory.measure(root, task, batch_size=8, image_encoder="test_resnet")
    assert list(found) == ["before", "read", "epoch"]
    assert all(100 < stage["private"] <= stage["peak"] for stage in found.values())


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_every_post_may_have_a_separate_image(demo: Path, tmp_path: Path, task: str) -> None:
    root = tmp_path / "set"
    for posts in (3, 5):
        memory.write_posts(root, task, posts, demo, own_images=True)
    rows = list(memory.reader_of(root, task).posts("train"))
    folder = root / "img_org" / "train" if task == "mre" else root / "twitter2017_images"
    contents = {(folder / row.image).read_bytes() for row in rows}
    assert (len(rows), len({row.image for row in rows}), len(contents)) == (5, 5, 5)
