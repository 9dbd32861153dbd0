"""The demo uses existing runs, and trains only missing ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from experiments import demo, screenshots
from mmib.schema import RunError


def write_run(folder: Path, age: int = 0, **changes: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    summary = {"task": "mre", "experiment": folder.parent.name, "seed": 1, "corpus": "demo-default"}
    found = {**summary, "selected": {}, "val": {"f1": 0.5}, "test": None, **changes}
    (folder / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    os.utime(folder / "summary.json", (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; a training creates a run."""
    found: list[list[str]] = []

    def note(*arguments: str) -> None:
        found.append(list(arguments))
        if arguments[0] == "fit":
            write_run(Path(arguments[4]) / arguments[2] / "trained")

    monkeypatch.setattr(demo, "mmib", note)
    return found


def test_existing_runs_are_used_and_missing_ones_trained(tmp_path: Path, commands: list[list[str]]) -> None:
    write_run(tmp_path / "mre-demo" / "old", age=100)
    newest = write_run(tmp_path / "mre-demo" / "new", age=50)
    write_run(tmp_path / "mre-demo" / "evaluation", selected=None)
    write_run(tmp_path / "mre-demo" / "other", experiment="mre-demo-late-fusion")
    (write_run(tmp_path / "mre-demo" / "bare") / "checkpoints" / "best.ckpt").unlink()
    demo.main(["--runs", str(tmp_path), "--output", "out", "--port", "0"])
    trained = str(tmp_path / "mner-demo" / "trained")
    assert commands == [
        ["fit", "--config", "mner-demo", "--runs", str(tmp_path)],
        ["export", str(newest), trained, "-o", "out"],
        ["serve", "--model", "out", "--runtime", "onnx", "--open", "--port", "0"],
    ]
    commands.clear()
    demo.main(["--runs", str(tmp_path), "--no-page"])
    assert commands == [["export", str(newest), trained, "-o", "exports"]]


def test_a_training_without_a_run_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "mmib", lambda *arguments: None)
    with pytest.raises(SystemExit, match="left no run"):
        demo.main(["--runs", str(tmp_path)])


def test_no_screenshot_shows_a_run_on_real_data(tmp_path: Path) -> None:
    drawn = write_run(tmp_path / "mre-demo" / "drawn")
    assert screenshots.drawn_run(None, tmp_path).folder == drawn
    real = write_run(tmp_path / "mre-mnre" / "real", corpus="mnre")
    with pytest.raises(RunError, match="may not be shown"):
        screenshots.drawn_run(real, tmp_path)
    with pytest.raises(RunError, match="there is no demo run"):
        screenshots.drawn_run(None, tmp_path / "elsewhere")
