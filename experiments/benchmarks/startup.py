"""Start-up time of the command, for help and for errors of each kind, and the cost of its imports.

    python -m experiments.benchmarks.startup --repeats 5

Each case is a new process, started in turns, with the package files in the disk cache. Reports wall time, and CPU time
(user and system), which hardly depends on other load on the machine.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.measure import in_turns, machine, spread, table, to_standard_error

OWN = "import mmib.training.cli"
PACKAGES_SHOWN = 12


class Seconds(NamedTuple):
    """Duration of a process.

    Attributes:
        wall: wall time from start to end.
        processor: user and system time.
    """

    wall: float
    processor: float


class Case(NamedTuple):
    """A command and its expected result.

    Attributes:
        arguments: arguments of `mmib`.
        status: expected exit status.
        said: part of the expected output.
    """

    arguments: tuple[str, ...]
    status: int
    said: str


def cases(folder: Path) -> dict[str, Case]:
    """Return the cases by name, and write their files into the folder."""
    syntax, key, field = (folder / f"{name}.yaml" for name in ("syntax", "key", "field"))
    syntax.write_text("trainer: [1\n", encoding="utf-8")
    key.write_text("trainers: {}\n", encoding="utf-8")
    field.write_text("trainer:\n  max_epoch: 2\n", encoding="utf-8")
    fit = ("fit", "--config", "mre-demo")
    return {
        "`mmib --help`": Case(("--help",), 0, "usage: mmib COMMAND"),
        "`mmib fit --help`": Case(("fit", "--help"), 0, "--config"),
        "`mmib fit --config mre-demo --help`": Case((*fit, "--help"), 0, "--config"),
        "`mmib fit`": Case(("fit",), 2, "model"),
        "YAML syntax error": Case((*fit, "--config", str(syntax)), 2, "is not valid YAML"),
        "unknown top-level key": Case((*fit, "--config", str(key)), 2, "the top-level key 'trainers' is unknown"),
        "unknown experiment": Case(("fit", "--config", "mre-dmeo"), 2, "there is no configuration file"),
        "unknown key below": Case((*fit, "--config", str(field)), 2, "the configuration is not valid"),
        "misspelt option": Case((*fit, "--data.bach_size", "4"), 2, "did you mean batch_size?"),
        "value of a wrong type": Case((*fit, "--data.batch_size", "many"), 2, "the configuration is not valid"),
        "wrong choice": Case((*fit, "--wandb", "perhaps"), 2, "choose from 'auto', 'online', 'offline', 'off'"),
        "value that cannot work": Case((*fit, "--data.batch_size", "0"), 2, "a batch has at least one row"),
        "values that contradict each other": Case((*fit, "--data.max_tokens", "70"), 2, "max_tokens is 70"),
        "no data": Case(("fit", "--config", "mre-mnre-offline", "--data.root", "nowhere"), 2, "nowhere"),
    }


def run(case: Case, folder: Path) -> Seconds:
    """Run a case, and return its duration.

    Raises:
        RuntimeError: its result is not the expected one.
    """
    command = [sys.executable, "-m", "mmib", *case.arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != case.status or case.said not in done.stdout + done.stderr:
        raise RuntimeError(f"{case} ended with {done.returncode}: {done.stderr[-500:]}")
    return Seconds(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def import_times(statement: str) -> Counter[str]:
    """Seconds that importing the modules of each package takes, without nested imports, by name of the package."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    seconds: Counter[str] = Counter()
    for line in lines:
        self_time, _, name = line.removeprefix("import time:").partition("|")
        if self_time.strip().isdecimal():
            seconds[name.rpartition("|")[2].strip().partition(".")[0]] += int(self_time) / 1e6
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Run the cases, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", help="parts of the names of those to measure; all by default")
    parser.add_argument("--imports", default=OWN, help="statement whose imports are taken apart")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = {
            label: case
            for label, case in cases(folder).items()
            if chosen.cases is None or any(part in label for part in chosen.cases)
        }
        for case in wanted.values():  # fill the disk cache
            run(case, folder)
        processor: dict[str, list[float]] = {label: [] for label in wanted}

        def measure(label: str) -> float:
            seconds = run(wanted[label], folder)
            processor[label].append(seconds.processor)
            return seconds.wall

        found = in_turns({label: partial(measure, label) for label in wanted}, chosen.repeats, to_standard_error)
    print(f"{machine()}\n")
    head = ["median (range)", "seconds", "seconds of processors"]
    print(table(head, ([label, spread(wall), spread(processor[label])] for label, wall in found.items())))
    times = import_times(chosen.imports)
    shown = times.most_common(PACKAGES_SHOWN)
    rest = times.total() - sum(seconds for _, seconds in shown)
    rows = [*shown, ("all others", rest), ("together", times.total())]
    print(f"\n`{chosen.imports}`, once\n\n{table(['package', 's'], ([label, f'{cost:.2f}'] for label, cost in rows))}")


if __name__ == "__main__":
    main()
