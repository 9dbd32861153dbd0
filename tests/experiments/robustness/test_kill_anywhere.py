"""The script that kills processes while they write files: it detects losses, and reports none otherwise."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tqdm import tqdm

from experiments.robustness import kill_anywhere
from experiments.robustness.kill_and_resume import resumable
from experiments.robustness.kill_anywhere import (
    KILLED,
    LOST,
    OVER,
    Job,
    cache_job,
    shares,
    start,
    try_kills,
    unreadable,
)
from mmib.base.files import write_text
from mmib.encoders.image import ImageEncoder

PART_S = 0.2
BEGUN_S = 4.0


def contents(one: Path, other: Path) -> list[str]:
    texts = [(folder / "x.json").read_text() if (folder / "x.json").is_file() else "" for folder in (one, other)]
    return ["x.json"] if texts[0] != texts[1] else []


def careful(folder: Path) -> None:
    time.sleep(PART_S)
    write_text(folder / "x.json", "[1, 2]")
    time.sleep(PART_S)


def careless(folder: Path) -> None:
    begun = (folder / "x.json").exists()
    with (folder / "x.json").open("w") as file:
        file.write("[1, ")
        file.flush()
        wait_for_the_kill(folder, begun)
        file.write("2]")


def stubborn(folder: Path) -> None:
    """Does not resume from existing files."""
    if (folder / "begun").exists():
        raise RuntimeError("there is something already")
    (folder / "begun").touch()
    wait_for_the_kill(folder, begun=False)


def wait_for_the_kill(folder: Path, begun: bool) -> None:
    """Takes long, except in the uninterrupted run and in the one after the kill."""
    if not begun and not folder.name.endswith("-whole"):
        time.sleep(60)


class Moment(random.Random):
    """Gives a job enough time to start, even on a busy machine."""

    def uniform(self, a: float, b: float) -> float:
        return BEGUN_S


def test_atomically_written_files_are_never_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = try_kills("careful", Job(careful, contents), 2, tmp_path, random.Random(0))
    assert (tally[LOST], tally[KILLED] + tally[OVER]) == (0, 2)
    assert capsys.readouterr().out.count("every file whole, the next start came to the same end") == 2


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (careless, "after the kill: x.json (JSONDecodeError"),
        (stubborn, "a start: it failed by itself with status 1: RuntimeError: there is something already"),
    ],
)
def test_lost_files_are_named(run: Any, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = try_kills("job", Job(run, contents), 1, tmp_path, Moment())
    assert (tally[LOST], tally[KILLED]) == (1, 1)
    assert found in capsys.readouterr().out


def test_a_different_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(lambda folder: write_text(folder / "x.json", f'"{folder.name}"'), contents)
    assert try_kills("job", job, 1, tmp_path, random.Random(0))[LOST] == 1
    assert "after the next start: x.json" in capsys.readouterr().out


def test_a_job_that_fails_by_itself_reports_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def fail(folder: Path) -> None:
        raise OSError("no room")

    with pytest.raises(RuntimeError, match="status 1: OSError: no room"):
        start(fail, tmp_path / "a")


def test_a_killed_process_is_no_failure(tmp_path: Path) -> None:
    finished, seconds = start(lambda folder: time.sleep(60), tmp_path / "a", kill_after_s=0.1)
    assert not finished
    assert seconds < 30


def draw_a_bar(folder: Path, begun: bool) -> None:
    """Takes the lock of progress bars, and holds it in the killed run."""
    with tqdm.get_lock():
        wait_for_the_kill(folder, begun)


def test_a_kill_while_a_bar_is_drawn_releases_the_lock(tmp_path: Path) -> None:
    tqdm.get_lock()  # created here, it would be shared with the copies
    (tmp_path / "a").mkdir()
    assert not start(lambda folder: draw_a_bar(folder, begun=False), tmp_path / "a", kill_after_s=BEGUN_S)[0]
    assert start(lambda folder: draw_a_bar(folder, begun=True), tmp_path / "a", kill_after_s=60)[0]


def test_only_files_under_their_final_names_count(tmp_path: Path) -> None:
    (tmp_path / ".model.x").mkdir()
    for name in (".x.json.1", ".model.x/config.json", "good.json", "bad.json", "bad.ckpt", "bad.npz", "notes.txt"):
        (tmp_path / name).write_text("[1]" if name == "good.json" else "[")
    torch.save({"step": 3}, tmp_path / "good.ckpt")
    assert [text.split(" ")[0] for text in unreadable(tmp_path)] == ["bad.ckpt", "bad.json", "bad.npz"]


def test_a_cache_is_the_same_after_kills(tmp_path: Path, encoder_files: Any) -> None:
    images = [tmp_path / f"{colour}.png" for colour in ("red", "lime", "blue")]
    for image in images:
        Image.new("RGB", (20, 10), image.stem).save(image)
    job = cache_job(ImageEncoder("test_resnet", weights=encoder_files.image), images)
    assert try_kills("cache", job, 2, tmp_path / "work", random.Random(1))[LOST] == 0


@pytest.mark.parametrize(("kept", "found"), [("last.ckpt", "2"), ("previous.ckpt", "2"), ("best.ckpt", "1")])
def test_the_newest_run_with_a_checkpoint_is_resumed(tmp_path: Path, kept: str, found: str) -> None:
    assert resumable(tmp_path) is None
    for run, name in (("1", "last.ckpt"), ("2", kept)):
        path = tmp_path / "name" / run / "checkpoints" / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert resumable(tmp_path) == tmp_path / "name" / found


def test_kills_are_distributed() -> None:
    assert shares(50, 3) == [17, 17, 16]


def test_the_exit_status_reports_losses(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for run, status in ((careful, 0), (lambda folder: write_text(folder / "x.json", f'"{folder}"'), 1)):
        monkeypatch.setattr(kill_anywhere, "make_jobs", lambda *_, run=run: {"cache": Job(run, contents)})
        assert kill_anywhere.main(["--kills", "1", "--jobs", "cache", "--", "--wandb", "off"]) == status
        assert f"{status} lost something" in capsys.readouterr().out
