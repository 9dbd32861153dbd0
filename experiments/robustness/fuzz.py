"""Feed damaged and hostile files to everything that reads files: each ends in a typed error or a right result.

    python -m experiments.robustness.fuzz --inputs 20000 --seed 0
    python -m experiments.robustness.fuzz --seed 0 --input 1234      # one of them again, with its traceback

An input follows from the seed and its own number alone. The readers run in a process with a bound to its memory, and
each input has a bound to its time; a process that dies or hangs is a failure like any other, and the next one goes on
behind it. Exit status 1 if there was any failure.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.robustness.fuzz_targets import targets
from experiments.robustness.target import Target
from mmib.datamodules.images import UnreadableImageError
from mmib.schema import MMIBError

ACCEPTED, REFUSED = "accepted", "refused"
# The typed errors: those for users, and the one that data modules count unreadable images by.
TYPED = (MMIBError, UnreadableImageError)
# Of processor time, so that a busy machine makes no hangs.
LONGEST_S = 10.0
# A hang in C or in sleep cannot be interrupted from within.
SILENT_S = 120.0
# Imports take their time on a busy machine.
START_S = 1200.0
MEMORY_MB = 2048


class HangError(BaseException):
    """An input took too long. No Exception, so that no reader takes it for an error of its own."""


def draw(name: str, target: Target, seed: int, number: int) -> bytes:
    """The input of a number: it follows from seed, target and number alone."""
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # whole numbers longer than Python reads belong to what is written
    try:
        return target.mutated(random.Random(f"{seed} {name} {number}"))
    finally:
        sys.set_int_max_str_digits(digits)


def try_input(target: Target, data: bytes, folder: Path) -> str:
    """`accepted` or `refused`; any other error of the reader comes through."""
    path = folder / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        target.read(folder)
    except TYPED as error:
        if not str(error).strip():
            raise AssertionError("a typed error without a text") from error
        return REFUSED
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ACCEPTED


def work(seed: int, start: int, end: int) -> None:
    """Try the inputs [start, end), and print a line of JSON before and after each."""
    signal.signal(signal.SIGPROF, hang)
    warnings.simplefilter("ignore")
    known = list(targets().items())
    _bound_memory(MEMORY_MB)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for number in range(start, end):
            name, target = known[number % len(known)]
            print(json.dumps({"number": number, "target": name}), flush=True)
            try:
                outcome, text = try_input(target, draw(name, target, seed, number), Path(place, name)), ""
            except (Exception, HangError) as error:
                outcome, text = _named(error), traceback.format_exc()
            print(json.dumps({"outcome": outcome, "traceback": text}), flush=True)


def hang(*_: Any) -> None:
    """Handles the alarm."""
    raise HangError(f"no answer after {LONGEST_S:.0f} s of processor time")


def _bound_memory(megabytes: int) -> None:
    """Let this process allocate so much more than it has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    bound = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _named(error: BaseException) -> str:
    """Its kind, and the place in this project that it came through last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    own = [frame for frame in frames if Path(frame.filename).parent.name != "robustness"]
    place = f" in {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{place}"


def worker_command(seed: int, start: int, end: int) -> list[str]:
    """What starts a process that tries the inputs [start, end)."""
    return [sys.executable, "-m", "experiments.robustness.fuzz", "--work", str(seed), str(start), str(end)]


def outcomes(seed: int, start: int, end: int) -> Iterator[tuple[int, str, str, str]]:
    """(number, target, outcome, traceback) of each input; processes that end early are replaced."""
    while start < end:
        begun: dict[str, Any] = {"number": start, "target": "start"}
        # A file, because a pipe that nobody reads is full after a while: image libraries complain at length.
        with tempfile.TemporaryFile("w+") as complaints:
            command = worker_command(seed, start, end)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process:
                for line in _lines(process):
                    message = json.loads(line)
                    if "number" in message:
                        begun = message
                    else:
                        start = begun["number"] + 1
                        yield begun["number"], begun["target"], message["outcome"], message["traceback"]
                process.kill()
            complaints.seek(0)
            said = complaints.read()[-2000:]
        if start < end:
            if begun["target"] == "start":
                raise RuntimeError(f"the readers cannot be started: {said}")
            start = begun["number"] + 1
            yield begun["number"], begun["target"], f"died with status {process.returncode}", said


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that a process prints, until it ends or says nothing for too long."""
    received: queue.Queue[str] = queue.Queue()

    def receive() -> None:
        for line in process.stdout or ():
            received.put(line)
        received.put("")

    threading.Thread(target=receive, daemon=True).start()
    patience = START_S
    while True:
        try:
            line = received.get(timeout=patience)
        except queue.Empty:
            return
        if not line:
            return
        yield line
        patience = SILENT_S


def main() -> int:
    """Print a tally by target, and each failure with what repeats it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=int, help="only this one")
    parser.add_argument("--work", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return 0
    first, last = (0, arguments.inputs) if arguments.input is None else (arguments.input, arguments.input + 1)
    tally: dict[str, Counter[str]] = {name: Counter() for name in targets()}
    failures: Counter[str] = Counter()
    began = time.monotonic()
    for number, name, outcome, text in outcomes(arguments.seed, first, last):
        tally[name][outcome if outcome in (ACCEPTED, REFUSED) else "failed"] += 1
        if outcome not in (ACCEPTED, REFUSED):
            failures[f"{name}: {outcome}"] += 1
            if failures[f"{name}: {outcome}"] == 1:
                again = f"python -m experiments.robustness.fuzz --seed {arguments.seed} --input {number}"
                print(f"{name}: {outcome}; again with: {again}\n{text}", flush=True)
        elif arguments.input is not None:
            print(f"{name}: {outcome}")
    _print_tally(tally, failures, arguments.seed, time.monotonic() - began)
    return int(bool(failures))


def _print_tally(tally: dict[str, Counter[str]], failures: Counter[str], seed: int, seconds: float) -> None:
    columns = (ACCEPTED, REFUSED, "failed")
    print("".join(["target".ljust(20), *(column.rjust(10) for column in columns)]))
    for name, counts in tally.items():
        print("".join([name.ljust(20), *(f"{counts[column]:10,}" for column in columns)]))
    total = sum(counts.total() for counts in tally.values())
    print(f"{total:,} inputs of seed {seed} in {seconds:.0f} s: {failures.total():,} failures of {len(failures)} kinds")
    for kind, count in failures.most_common():
        print(f"  {count:6,} {kind}")


if __name__ == "__main__":
    raise SystemExit(main())
