"""Start-up of the command: help, and errors of each kind, up to the message; then what its imports cost.

    python -m experiments.benchmarks.startup --repeats 5

Each is a process of its own, started in turns, with the files of the packages warm. Seconds are those on the
wall, and those of processors (user and system), which hardly depend on what else the machine does.
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
    """What a process took.

    Attributes:
        wall: from its start to its end.
        processor: user and system time.
    """

    wall: float
    processor: float


class Case(NamedTuple):
    """What is started, and what is to come of it.

    Attributes:
        arguments: of `mmib`.
        status: exit status.
        said: part of what it prints.
    """

    arguments: tuple[str, ...]
    status: int
    said: str


def cases(folder: Path) -> dict[str, Case]:
    """By name; their files are written into the folder."""
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
    """What a case takes that ends as it should.

    Raises:
        RuntimeError: it ended in another way.
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
    """Seconds that the modules of each package take by themselves, by name of the package."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    seconds: Counter[str] = Counter()
    for line in lines:
        own, _, name = line.removeprefix("import time:").partition("|")
        if own.strip().isdecimal():
            seconds[name.rpartition("|")[2].strip().partition(".")[0]] += int(own) / 1e6
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
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
        for case in wanted.values():  # warms the disk
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
    print(f"\n`{chosen.imports}`, once\n\n{table(['package', 's'], ([label, f'{own:.2f}'] for label, own in rows))}")


if __name__ == "__main__":
    main()
