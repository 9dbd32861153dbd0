"""A corpus is written reproducibly, and completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import PIL
import pytest

from mmib.datamodules.demo import SPLITS, DemoSettings, read_levels, write_demo_corpus
from mmib.datamodules.demo import corpus as corpus_module
from mmib.datamodules.demo.pictures import draw_picture
from mmib.datamodules.demo.posts import LEVELS, draw_posts
from mmib.schema import DataError

TINY = DemoSettings(size="tiny")


def test_builds_are_byte_for_byte_reproducible(corpus: Any, tmp_path: Path) -> None:
    first, second = corpus.content(), corpus.again(tmp_path / "again").content()
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_posts_match_version_3(corpus: Any) -> None:
    """With noise from scenes alone, which is the default: words, labels, boxes and ground truth."""
    digest = hashlib.sha256()
    for name, content in sorted(corpus.content().items(), key=lambda entry: Path(entry[0])):
        if name.endswith((".txt", "boxes.json", "rows_test.jsonl")):
            digest.update(name.encode() + content)
    assert digest.hexdigest() == "f8a46d3123ecd0d90178189667b8ca833ec44bcef59f72ed4dace3d2ffee1cb2"


@pytest.mark.skipif(not PIL.__version__.startswith("13."), reason="other versions of Pillow may draw other pixels")
def test_images_match_version_3(corpus: Any) -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        posts = draw_posts(corpus.settings, split)
        for level in LEVELS:
            for post in [post for post in posts if post.level == level][:3]:
                digest.update(draw_picture(post, corpus.settings.seed).image.tobytes())
    assert digest.hexdigest() == "4d05779ec75e563fcf4d7b4c621f0032511cecb6a173a86a7039f8299b75af2b"


def test_workers_render_the_same_images(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_CHUNK", 8)
    monkeypatch.setattr(corpus_module, "allowed_cores", lambda: 2)
    assert corpus.again(tmp_path / "parallel").content() == corpus.content()


class BreakingPool:
    """A pool whose process is killed after three results, during the fourth."""

    def map(self, work: Callable[..., Any], *columns: Any) -> Iterator[Any]:
        for number, job in enumerate(zip(*columns, strict=True)):
            result = work(*job)
            if number == 3:
                raise BrokenProcessPool
            yield result


def test_images_lost_with_a_killed_worker_are_rendered_once(
    corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_CHUNK", 8)
    monkeypatch.setattr(corpus_module, "allowed_cores", lambda: 2)
    monkeypatch.setattr(corpus_module, "worker_pool", lambda workers: nullcontext(BreakingPool()))
    assert corpus.again(tmp_path / "again").content() == corpus.content()


def test_an_identical_corpus_is_not_rebuilt(corpus: Any) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*")}
    assert write_demo_corpus(corpus.root, corpus.settings) is False
    assert {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*")} == stamps


def test_a_different_corpus_is_not_overwritten(corpus: Any) -> None:
    with pytest.raises(
        DataError, match=r"another demo corpus \(seed 0, not 5, missing 0.1, not 0.05\); remove it or name"
    ):
        write_demo_corpus(corpus.root, DemoSettings(size="tiny", seed=5))


def test_a_corpus_of_another_version_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"version": 3, "settings": {"size": "tiny"}}')
    with pytest.raises(DataError, match=r"another demo corpus \(version 3, not 4\); remove it"):
        write_demo_corpus(tmp_path, TINY)


def test_a_nonempty_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no demo corpus"):
        write_demo_corpus(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"):
        write_demo_corpus(tmp_path / "thesis.txt", TINY)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_demo_corpus(tmp_path, TINY) is True
    assert read_levels(tmp_path, "train", "mner")


@pytest.mark.parametrize("step", ["write_mnre", "write_truth"])
@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(corpus_module, step, fail)
    with pytest.raises(type(error)):
        write_demo_corpus(tmp_path / "corpus", TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_error_names_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(corpus_module, "_draw_all", lambda *_: {})
    monkeypatch.setattr("mmib.datamodules.crops.atomic_file", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left on device; name another folder"):
        write_demo_corpus(tmp_path / "corpus", TINY)
    assert list(tmp_path.iterdir()) == []


def test_concurrent_builds_do_not_collide(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        built = pool.starmap(write_demo_corpus, [(root, TINY)] * 2)
    assert any(built)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert write_demo_corpus(root, TINY) is False


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, mmib.datamodules.demo; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
