"""Run one trial of a study or a sweep: one run of `mmib fit` in a separate process and folder."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mmib.base.cores import allowed_cores
from mmib.runs.reader import FinishedRun, read_run
from mmib.runs.resumption import resumable
from mmib.schema import RunError

LOG = "output.log"
POLL_S = 0.5
# Time for a run to end: it completes its optimiser step, and a validation that is due, and saves.
END_S = 120
REASON_LINES = 3
MESSAGE_LINES = 8


class TrialError(RunError):
    """A trial whose run failed; the message includes the end of its output."""


def share_cores(parallel: int) -> None:
    """Give each parallel run its share of the cores: with too many threads, each waits for the others."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, allowed_cores() // parallel)))


def end_on_signals() -> None:
    """SIGTERM and Ctrl-C end a study or sweep: the running trials are saved and can be resumed.

    Later signals are ignored. `timeout` and batch systems often send two, and the second would end the command before
    it has ended its trials, which would continue without it.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)


def fit_command(options: Sequence[str]) -> list[str]:
    """Return the command line of `mmib fit` with options, for this Python interpreter."""
    return [sys.executable, "-m", "mmib", "fit", *options]


def run_trial(
    options: Sequence[str],
    folder: Path,
    stop: Callable[[Path], bool] | None = None,
    command: Callable[[Sequence[str]], list[str]] = fit_command,
    timeout_s: float | None = None,
) -> FinishedRun | None:
    """Return the finished run of a trial; resume an interrupted run or start a new one if necessary.

    Args:
        options: options of `mmib fit`, without `--runs`.
        folder: folder for this trial only; its runs are two levels below it, its output is in `output.log`.
        stop: called about twice a second with `folder`; True ends the run.
        command: builds the command line from options.
        timeout_s: seconds after which the trial fails.

    Returns:
        The run, without the checkpoints to resume from; None if `stop` ended it.

    Raises:
        TrialError: the run failed; its checkpoints are kept.
    """
    with _locked(folder) as lock:
        return finished_run(folder) or _run(options, folder, stop, command, timeout_s, lock)


def _run(
    options: Sequence[str],
    folder: Path,
    stop: Callable[[Path], bool] | None,
    command: Callable[[Sequence[str]], list[str]],
    timeout_s: float | None,
    lock: int,
) -> FinishedRun | None:
    interrupted = unfinished_run(folder)
    resume = ["--run", str(interrupted), "--ckpt_path", "last"]
    arguments = resume if interrupted else [*options, "--runs", str(folder)]
    started = time.monotonic()
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
        try:
            while process.poll() is None:
                if stop is not None and stop(folder):
                    return None
                if timeout_s is not None and time.monotonic() - started > timeout_s:
                    raise TrialError(f"took longer than {timeout_s:.0f} s; its output: {folder / LOG}")
                time.sleep(POLL_S)
        finally:
            end_process(process)
    finished = finished_run(folder)
    if process.returncode != 0 or finished is None:
        raise TrialError(f"{reason_of(folder / LOG, process.returncode)} (output: {folder / LOG})")
    # They take hundreds of megabytes, and a finished run does not need them.
    for path in resumable(finished.folder):
        path.unlink(missing_ok=True)
    return finished


def finished_run(folder: Path) -> FinishedRun | None:
    """Return the finished run of a trial; None without one."""
    summaries = sorted(folder.glob("*/*/summary.json"))
    return read_run(summaries[-1].parent) if summaries else None


def unfinished_run(folder: Path) -> Path | None:
    """Return the interrupted run of a trial that can be resumed; None without one."""
    begun = [path.parent for path in sorted(folder.glob("*/*/checkpoints")) if resumable(path.parent)]
    return begun[-1] if begun else None


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Lock a trial for one process.

    The run inherits the lock: if the process that started it is killed, the next process waits until the run ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process, and kill it if it does not end within `END_S`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def reason_of(log: Path, status: int) -> str:
    """Return why a run failed: its exit status, with mmib's last message or else the last lines of its output."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    messages = [number for number, line in enumerate(lines) if line.startswith("mmib: ")]
    reason = lines[messages[-1] :][:MESSAGE_LINES] if messages else lines[-REASON_LINES:]
    return f"status {status}: {' | '.join(reason) or 'it printed nothing'}"
