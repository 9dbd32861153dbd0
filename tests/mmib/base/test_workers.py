"""Worker processes end when their work is no longer needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmib.base.workers import worker_pool

# Two workers that print their numbers, then do nothing for a minute.
PARENT = """
import os, signal, sys, time
from mmib.base.workers import worker_pool

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands in the background of a shell ignore it
    with worker_pool(2) as pool:
        list(pool.map(work, [60, 60]))
"""


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # Without a parent that waits for it, an ended process stays a zombie.
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def has_ended(process: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        assert all(map(has_ended, workers))
        assert parent.wait(20) != 0


def test_workers_stop_with_a_hint_if_a_script_has_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert 'below `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Traceback") == 1  # printed by the script itself
    assert "BrokenProcessPool" in done.stderr


def _mark() -> None:
    os.environ["MMIB_MARK"] = "set"


def test_an_error_does_not_wait_for_running_tasks() -> None:
    with pytest.raises(KeyError), worker_pool(1, _mark) as pool:  # noqa: PT012 - the process is started in the block
        worker = pool.submit(os.getpid).result()
        assert pool.submit(os.getenv, "MMIB_MARK").result() == "set"
        pool.submit(time.sleep, 60)
        raise KeyError
    assert has_ended(worker)
    assert "MMIB_MARK" not in os.environ
