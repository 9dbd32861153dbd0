"""One trial of a study or sweep: run once, resumed, and failures with their reason."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmib.search.trials import TrialError, end_process, fit_command, run_trial, share_cores, unfinished_run

Command = Callable[[Sequence[str]], list[str]]

FINISHES = """
    import json, pathlib, sys
    options = sys.argv[1:]
    if "--run" in options:
        folder = pathlib.Path(options[options.index("--run") + 1])
    else:
        folder = pathlib.Path(options[options.index("--runs") + 1]) / "toy" / "1"
        folder.mkdir(parents=True)
    summary = {"task": "mre", "experiment": "toy", "seed": 1, "val": None, "test": {"f1": 0.5}, "options": options}
    (folder / "summary.json").write_text(json.dumps(summary))
"""


def script(text: str) -> Command:
    return lambda options: [sys.executable, "-c", textwrap.dedent(text), *options]


def begin(folder: Path, checkpoint: str = "last.ckpt") -> Path:
    """A run that was stopped after saving a checkpoint."""
    run = folder / "toy" / "1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / checkpoint).touch()
    return run


def test_the_command_uses_this_interpreter() -> None:
    finished = subprocess.run([*fit_command(["--config", "nothing"])], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr.split(":")[0]) == (2, "mmib")
    assert "no configuration file 'nothing'" in finished.stderr


def test_a_trial_is_run_once(tmp_path: Path) -> None:
    first = run_trial(["--model.gamma", "0"], tmp_path / "p", command=script(FINISHES))
    assert first is not None
    assert first.summary["options"] == ["--model.gamma", "0", "--runs", str(tmp_path / "p")]
    assert run_trial([], tmp_path / "p", command=script("raise SystemExit(1)")) == first


@pytest.mark.parametrize("checkpoint", ["last.ckpt", "previous.ckpt"])
def test_an_interrupted_trial_is_resumed(tmp_path: Path, checkpoint: str) -> None:
    """A run killed while its last checkpoint is being replaced has only the previous one."""
    run = begin(tmp_path / "p", checkpoint)
    done = run_trial(["--model.gamma", "0"], tmp_path / "p", command=script(FINISHES))
    assert done is not None
    assert done.folder == run
    assert done.summary["options"] == ["--run", str(run), "--ckpt_path", "last"]
    assert not list((run / "checkpoints").iterdir()), "nobody resumes a finished run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('one'); print('mmib: the batch is too large'); raise SystemExit(2)", "the batch is too large"),
        ("raise MemoryError('17 GB')", "MemoryError: 17 GB"),
        ("raise SystemExit(3)", "3"),
        ("print('all is well')", "output"),
    ],
)
def test_a_failed_trial_names_the_reason_and_its_output(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrialError, match=message) as error:
        run_trial([], tmp_path / "p", command=script(text))
    assert str(tmp_path / "p" / "output.log") in str(error.value)


def test_a_stopped_trial_can_be_resumed(tmp_path: Path) -> None:
    begin(tmp_path / "p")
    asked: list[Path] = []

    def stop(folder: Path) -> bool:
        asked.append(folder)
        return True

    started = time.monotonic()
    assert run_trial([], tmp_path / "p", stop, command=script("import time; time.sleep(60)")) is None
    assert time.monotonic() - started < 30
    assert asked == [tmp_path / "p"]
    assert unfinished_run(tmp_path / "p") is not None


def test_a_trial_that_exceeds_its_time_limit_fails(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="longer than"):
        run_trial([], tmp_path / "p", command=script("import time; time.sleep(60)"), timeout_s=0.1)


def test_two_processes_with_the_same_trial_make_one_run(tmp_path: Path) -> None:
    """For example if a study was killed and restarted while its run continued."""
    slow = script("import time; time.sleep(1)\n" + textwrap.dedent(FINISHES))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(run_trial([], tmp_path / "p", command=slow))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_stopped_trial_has_time_to_complete_a_validation_and_save() -> None:
    class Validating:
        """A process that exits after 100 s."""

        poll = kill = staticmethod(lambda: None)
        terminate = staticmethod(lambda: None)

        def wait(self, timeout: float) -> None:
            if timeout < 100:
                raise subprocess.TimeoutExpired("fit", timeout)

    process: Any = Validating()
    process.kill = lambda: pytest.fail("it is killed")
    end_process(process)


@pytest.mark.parametrize(
    ("given_", "parallel", "expected"), [(None, 1, "8"), (None, 3, "2"), (None, 20, "1"), ("5", 2, "5")]
)
def test_parallel_runs_share_the_cores_unless_configured_otherwise(
    monkeypatch: pytest.MonkeyPatch, given_: str | None, parallel: int, expected: str
) -> None:
    monkeypatch.setattr("mmib.base.cores.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given_ or "")
    if given_ is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    share_cores(parallel)
    assert os.environ["OMP_NUM_THREADS"] == expected
