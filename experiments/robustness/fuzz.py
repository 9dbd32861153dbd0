"""Fuzz everything that reads files: each input must end in a typed error or a valid result.

    python -m experiments.robustness.fuzz --inputs 50000 --seed 0
    python -m experiments.robustness.fuzz --seed 0 --target images --input 1234    # repeat one, with its traceback

An input depends only on the seed, its target and its number. The inputs are divided equally among the targets, and each
target continues until 2,000 consecutive inputs have reached no new line of this project. The readers run in a process
with limited memory, and each input has a time limit; a process that dies or hangs is a failure like any other, and the
next process continues after that input. Exit status 1 if there was any failure.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverage import Coverage

from experiments.robustness.fuzz_targets import targets
from experiments.robustness.target import Target
from mmib.datamodules.images import UnreadableImageError
from mmib.schema import MMIBError

ACCEPTED, REFUSED = "accepted", "refused"
# The typed errors: those for users, and the one that data modules count as an unreadable image.
TYPED = (MMIBError, UnreadableImageError)
# CPU time, so that a busy machine causes no false hangs.
LONGEST_S = 10.0
# A hang in C code or in sleep cannot be interrupted from within.
SILENT_S = 120.0
# Imports take long on a busy machine.
START_S = 1200.0
MEMORY_MB = 2048
# Inputs between two measurements of coverage, each of which costs as much as several inputs.
LOOK = 25


class HangError(BaseException):
    """An input took too long. Not an Exception, so that no reader catches it."""


def draw(name: str, target: Target, seed: int, number: int) -> bytes:
    """Generate the input of this number; it depends only on seed, target and number."""
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # inputs include integers that are longer than Python reads
    try:
        return target.mutated(random.Random(f"{seed} {name} {number}"))
    finally:
        sys.set_int_max_str_digits(digits)


def try_input(target: Target, data: bytes, folder: Path) -> str:
    """Return `accepted` or `refused`; any other error of the reader is raised."""
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


def work(seed: int, name: str, start: int, end: int) -> None:
    """Try the inputs [start, end) of a target, and print a line of JSON before and after each."""
    signal.signal(signal.SIGPROF, hang)
    warnings.simplefilter("ignore")
    target = targets()[name]
    _bound_memory(MEMORY_MB)
    coverage = Coverage(data_file=None, source_pkgs=["mmib"], config_file=False)
    known: set[str] = set()
    with tempfile.TemporaryDirectory() as place, coverage.collect():
        answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # native libraries print to standard output too
        os.chdir(place)
        for number in range(start, end):
            print(json.dumps({"number": number}), file=answers, flush=True)
            try:
                outcome, text = try_input(target, draw(name, target, seed, number), Path(place, "input")), ""
            except (Exception, HangError) as error:
                outcome, text = _named(error), traceback.format_exc()
            lines = _lines_reached(coverage) - known if number % LOOK == 0 or number == end - 1 else set()
            known |= lines
            print(json.dumps({"outcome": outcome, "traceback": text, "lines": sorted(lines)}), file=answers, flush=True)


def _lines_reached(coverage: Coverage) -> set[str]:
    """Lines of this project that have been executed so far, as `file:line`."""
    data = coverage.get_data()
    return {f"{file}:{line}" for file in data.measured_files() for line in data.lines(file) or ()}


def hang(*_: Any) -> None:
    """Handle the alarm."""
    raise HangError(f"no answer after {LONGEST_S:.0f} s of processor time")


def _bound_memory(megabytes: int) -> None:
    """Limit this process to this much memory beyond its current size."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    bound = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _named(error: BaseException) -> str:
    """Name an error by its type and the innermost line of this project in its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    reader_frames = [frame for frame in frames if Path(frame.filename).parent.name != "robustness"]
    place = f" in {Path(reader_frames[-1].filename).name}:{reader_frames[-1].lineno}" if reader_frames else ""
    return f"{type(error).__name__}{place}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an input.

    Attributes:
        number: number of the input.
        outcome: `accepted`, `refused`, or the name of the error.
        traceback: traceback of an error, or else empty.
        lines: lines of this project that no earlier input of this process reached; updated every 25th input.
    """

    number: int
    outcome: str
    traceback: str = ""
    lines: frozenset[str] = frozenset()

    @property
    def failed(self) -> bool:
        """True if it was neither accepted nor refused."""
        return self.outcome not in (ACCEPTED, REFUSED)


def worker_command(seed: int, name: str, start: int, end: int) -> list[str]:
    """Command of a process that tries the inputs [start, end) of a target."""
    return [sys.executable, "-m", "experiments.robustness.fuzz", "--work", str(seed), name, str(start), str(end)]


def outcomes(seed: int, name: str, start: int, end: int) -> Iterator[Outcome]:
    """Yield the outcome of each input; processes that end early are replaced."""
    while start < end:
        begun = None
        # A file, because image libraries print a lot and would fill an unread pipe.
        with tempfile.TemporaryFile("w+") as complaints:
            command = worker_command(seed, name, start, end)
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=Path(__file__).parents[2]
            ) as process:
                try:
                    for line in _lines(process):
                        message = json.loads(line)
                        if "number" in message:
                            begun = message["number"]
                        else:
                            start = begun + 1
                            lines = frozenset(message["lines"])
                            yield Outcome(begun, message["outcome"], message["traceback"], lines)
                finally:
                    process.kill()
            complaints.seek(0)
            complaint = complaints.read()[-2000:]
        if start < end:
            if begun is None:
                raise RuntimeError(f"the readers of {name} cannot be started: {complaint}")
            start = begun + 1
            yield Outcome(begun, f"died with status {process.returncode}", complaint)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the lines that a process prints, until it ends or is silent for too long."""
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


@dataclass
class Tally:
    """Outcomes of a target's inputs, and the lines of this project that they reached."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    lines: set[str] = field(default_factory=set)
    last_new: int = 0  # number of inputs when a new line was last reached

    def add(self, outcome: Outcome) -> None:
        """Add an outcome."""
        self.counts["failed" if outcome.failed else outcome.outcome] += 1
        if outcome.failed:
            self.failures[outcome.outcome] += 1
        if not outcome.lines <= self.lines:
            self.lines |= outcome.lines
            self.last_new = self.counts.total()

    def enough(self, least: int, quiet: int) -> bool:
        """True after `least` inputs of which the last `quiet` have reached nothing new."""
        total = self.counts.total()
        return total >= least and total - self.last_new >= quiet


def fuzz(name: str, seed: int, least: int, quiet: int) -> Tally:
    """Fuzz a target until it has had enough inputs; print each new failure with the command that repeats it."""
    tally = Tally()
    for outcome in outcomes(seed, name, 0, sys.maxsize):
        tally.add(outcome)
        if outcome.failed and tally.failures[outcome.outcome] == 1:
            again = f"python -m experiments.robustness.fuzz --seed {seed} --target '{name}' --input {outcome.number}"
            print(f"{name}: {outcome.outcome}; again with: {again}\n{outcome.traceback}", flush=True)
        if tally.enough(least, quiet):
            break
    return tally


def main() -> int:
    """Print the counts of each target, and each failure with the command that repeats it."""
    known = list(targets())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50_000, help="the least number (default: %(default)s)")
    parser.add_argument(
        "--quiet",
        type=int,
        default=2_000,
        help="inputs of a target without a new line that end it (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=known, metavar="NAME", help=f"only this one of: {', '.join(known)}")
    parser.add_argument("--input", type=int, help="only this one of the target's inputs")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        seed, name, start, end = arguments.work
        work(int(seed), name, int(start), int(end))
        return 0
    if arguments.input is not None:
        if arguments.target is None:
            parser.error("--input needs --target, the reader whose input it is")
        (outcome,) = outcomes(arguments.seed, arguments.target, arguments.input, arguments.input + 1)
        print(f"{arguments.target}: {outcome.outcome}\n{outcome.traceback}".strip())
        return int(outcome.failed)
    chosen = [arguments.target] if arguments.target else known
    least = -(-arguments.inputs // len(chosen))
    began = time.monotonic()
    print(
        "target".ljust(24) + "".join(column.rjust(10) for column in (ACCEPTED, REFUSED, "failed", "lines", "last new"))
    )
    tallies = []
    for name in chosen:
        tally = fuzz(name, arguments.seed, least, arguments.quiet)
        tallies.append(tally)
        figures = [
            *(tally.counts[column] for column in (ACCEPTED, REFUSED, "failed")),
            len(tally.lines),
            tally.last_new,
        ]
        print(name.ljust(24) + "".join(f"{figure:10,}" for figure in figures), flush=True)
    total = sum(tally.counts.total() for tally in tallies)
    failed = sum(tally.failures.total() for tally in tallies)
    lines = set().union(*(tally.lines for tally in tallies))
    seconds = time.monotonic() - began
    print(
        f"{total:,} inputs of seed {arguments.seed} in {seconds:.0f} s reached {len(lines):,} lines, {failed:,} failed"
    )
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
