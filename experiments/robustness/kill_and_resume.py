"""Kill a training run at random times, resume it each time, and compare it with an uninterrupted run.

    python -m experiments.robustness.kill_and_resume --kills 10 -- --config mre-demo --data.root /tmp/demo ...

Arguments after `--` are options of `mmib fit`. Exit status 1 if weights, metrics or logs differ in a single bit.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmib.runs.resumption import LAST, PREVIOUS
from mmib.training.cli import last_checkpoint

POLL_S = 0.02
STATE_KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")


def fit(options: Sequence[str], log: Path, stop: Callable[[float], bool] = lambda seconds: False) -> bool:
    """Run `mmib fit`; kill it with all its ranks when `stop(seconds since its start)` is true.

    Returns:
        Whether it finished.

    Raises:
        RuntimeError: it failed without being killed.
    """
    with log.open("ab") as output:
        command = [sys.executable, "-m", "mmib", "fit", *options]
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        started = time.monotonic()
        while process.poll() is None:
            if stop(time.monotonic() - started):
                subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
                process.wait()
                return False
            time.sleep(POLL_S)
    if process.returncode == -signal.SIGKILL:
        return False
    if process.returncode != 0:
        raise RuntimeError(f"mmib fit failed with status {process.returncode}: see {log}")
    return True


def only_run(runs: Path) -> Path:
    """Return the newest run below a folder."""
    return max(runs.glob("*/*"), key=lambda run: run.name)


def resumable(runs: Path) -> Path | None:
    """Return the newest run below a folder that has a checkpoint to resume from."""
    begun = [path.parents[1] for name in (LAST, PREVIOUS) for path in runs.glob(f"*/*/checkpoints/{name}")]
    return max(begun, key=lambda run: run.name, default=None)


def differences(one: Path, other: Path) -> list[str]:
    """List what differs between two finished runs."""
    found = []
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)]
    found += [f"last.ckpt: {key}" for key in STATE_KEYS if not same(states[0][key], states[1][key])]
    best = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"] for run in (one, other)]
    found += ["best.ckpt"] if not same(*best) else []
    summaries = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    found += [f"summary: {split}" for split in ("val", "test") if summaries[0][split] != summaries[1][split]]
    logs = [list(csv.DictReader((run / "metrics.csv").open(newline=""))) for run in (one, other)]
    found += ["metrics.csv"] if logs[0] != logs[1] else []
    return found


def same(one: Any, other: Any) -> bool:
    """Compare nested containers bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def main() -> int:
    """Print a line per kill, and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, default=Path("runs/kill-and-resume"), help="folder of the runs")
    parser.add_argument("options", nargs="+", help="behind --: options of mmib fit")
    arguments = parser.parse_args()
    work, rng = arguments.work, random.Random(arguments.seed)
    work.mkdir(parents=True, exist_ok=True)
    log = work / "output.log"
    for name in ("whole", "again"):
        started = time.monotonic()
        if not fit([*arguments.options, "--runs", str(work / name)], log):
            raise SystemExit(f"the {name!r} run was killed from outside, perhaps for lack of memory: {log}")
        duration = time.monotonic() - started
    whole = only_run(work / "whole")
    verdicts = [("a second run", differences(whole, only_run(work / "again")))]
    print(f"never killed: {duration:.0f} s; {describe(*verdicts[0])}", flush=True)
    kills = 0
    while kills < arguments.kills:
        runs, started = work / f"killed-{len(verdicts)}", time.monotonic()
        more = killed_run(arguments.options, runs, arguments.kills - kills, duration, rng, log)
        kills += more
        if not more:  # it finished before the kill: the machine is less busy than before
            duration = time.monotonic() - started
        verdicts.append((f"a run after {more} kills", differences(whole, only_run(runs))))
        print(describe(*verdicts[-1]), flush=True)
    return int(any(found for _, found in verdicts))


def killed_run(options: Sequence[str], runs: Path, kills: int, duration: float, rng: random.Random, log: Path) -> int:
    """Kill a run at random times, up to `kills` times, and resume it until it finishes; return the number of kills."""
    done = 0
    run: Path | None = None
    while True:
        moment = rng.uniform(0.1, 0.9) * duration if done < kills else float("inf")
        resumed = ["--run", str(run), "--ckpt_path", "last"] if run else []
        if fit(resumed or [*options, "--runs", str(runs)], log, lambda seconds, moment=moment: seconds > moment):
            return done
        done += 1
        run = resumable(runs)
        if run is None:
            # It was killed before its first checkpoint: start again, and remove this incomplete run.
            shutil.rmtree(runs, ignore_errors=True)
        step = torch.load(last_checkpoint(run), weights_only=True)["global_step"] if run else 0
        print(f"killed after {moment:.1f} s, checkpoint at step {step}", flush=True)


def describe(name: str, found: list[str]) -> str:
    """Format the verdict on a run."""
    return f"{name} differs: {', '.join(found)}" if found else f"{name} is the same bit for bit"


if __name__ == "__main__":
    raise SystemExit(main())
