"""Kill programs that write files at random times: building a feature cache, training, and export.

    python -m experiments.robustness.kill_anywhere --kills 50 -- --wandb off

After each kill, every file with its final name must be complete, a previous export must still exist or be replaced by
the new one, and a restart in the same folder must have the same result as an undisturbed run, bit for bit. Prints a
line per kill and a tally; exit status 1 if anything was lost. Arguments after `--` are further options of `mmib fit`.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from experiments.robustness.kill_and_resume import differences, only_run, resumable
from mmib.base.files import parse_json, read_yaml
from mmib.cli import main as mmib
from mmib.datamodules.cache import ImageFeatureCache
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.encoders.image import ImageEncoder
from mmib.export.folder import read_export
from mmib.schema import ExportError

CONFIG = Path(__file__).with_name("resume.yaml")
KILLED = "killed"
OVER = "over before it was killed"
LOST = "lost something"
SHOWN = 5


@dataclass(frozen=True)
class Job:
    """A program to kill.

    Attributes:
        run: runs the program in a folder, and resumes what a killed one has left there.
        differences: lists what differs between two folders in which the program has finished.
        prepare: fills a new folder with the initial files, from a folder in which the program has finished.
        broken: lists what is damaged in a folder, besides unreadable files.
    """

    run: Callable[[Path], None]
    differences: Callable[[Path, Path], list[str]]
    prepare: Callable[[Path, Path], None] = lambda done, folder: None
    broken: Callable[[Path], list[str]] = lambda folder: []


def cache_job(encoder: ImageEncoder, images: Sequence[Path]) -> Job:
    """Encode images into a feature cache."""

    def run(folder: Path) -> None:
        ImageFeatureCache(folder, encoder).build(images)

    def compare(one: Path, other: Path) -> list[str]:
        caches = [ImageFeatureCache(folder, encoder) for folder in (one, other)]
        for cache in caches:
            cache.build(images)  # only reads existing features
        return [
            f"features of {image.name}"
            for image in images
            if not np.array_equal(*(cache.features(image) for cache in caches))
        ]

    return Job(run, compare)


def training_job(options: Sequence[str]) -> Job:
    """Train, select, score and write predictions; resume from the last checkpoint."""

    def run(folder: Path) -> None:
        if any(folder.glob("*/*/summary.json")):
            return
        begun = resumable(folder)
        resumed = ["--run", str(begun), "--ckpt_path", "last"]
        _succeed(["fit", *(resumed if begun else [*options, "--runs", str(folder)])])

    def compare(one: Path, other: Path) -> list[str]:
        runs = [only_run(folder) for folder in (one, other)]
        files = ("predictions/val.jsonl", "predictions/test.jsonl")
        unlike = [name for name in files if len({(run / name).read_bytes() for run in runs}) > 1]
        return differences(*runs) + unlike

    return Job(run, compare)


def export_job(run: Path) -> Job:
    """Export a finished run, replacing an existing export."""

    def export(folder: Path) -> None:
        _succeed(["export", str(run), "-o", str(folder / "model")])

    def compare(one: Path, other: Path) -> list[str]:
        contents = [
            {path.relative_to(folder): path.read_bytes() for path in (folder / "model").rglob("*") if path.is_file()}
            for folder in (one, other)
        ]
        names = sorted(contents[0].keys() | contents[1].keys())
        return [str(name) for name in names if contents[0].get(name) != contents[1].get(name)]

    def prepare(done: Path, folder: Path) -> None:
        # Hard links are safe: an export writes new files and never modifies old ones.
        shutil.copytree(done / "model", folder / "model", copy_function=os.link)

    def broken(folder: Path) -> list[str]:
        try:
            read_export(folder / "model")
        except ExportError as error:
            return [str(error)]
        return []

    return Job(export, compare, prepare, broken)


def _succeed(arguments: list[str]) -> None:
    if mmib(arguments):
        raise RuntimeError(f"mmib {arguments[0]} failed")


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: parse_json(path.read_text(encoding="utf-8")),
    ".jsonl": lambda path: [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()],
    ".yaml": read_yaml,
    ".csv": lambda path: list(csv.reader(path.open(newline="", encoding="utf-8"), strict=True)),
    ".ckpt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".safetensors": load_file,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
}


def unreadable(folder: Path) -> list[str]:
    """List the unreadable files with a final name below a folder, with the reason."""
    found = []
    for path in sorted(folder.rglob("*")):
        is_temporary = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not is_temporary and path.suffix in READERS:
            try:
                READERS[path.suffix](path)
            except Exception as error:  # readers of damaged files raise many types of errors
                found.append(f"{path.relative_to(folder)} ({type(error).__name__}: {error})")
    return found


def start(run: Callable[[Path], None], folder: Path, kill_after_s: float = math.inf) -> tuple[bool, float]:
    """Run a program in a fork of this process, which has already imported everything, and kill it after a time.

    Returns:
        Whether it finished, and its duration in seconds.

    Raises:
        RuntimeError: it failed without being killed.
    """
    output = folder.parent / "output.log"

    def work() -> None:
        log = output.open("a", buffering=1)  # never closed, so that the error message at exit is written
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        # Creates torch's thread pool again, which a fork requires, before several threads try to at once.
        torch.set_num_threads(1)
        # Forks share the lock of progress bars: a kill would leave it locked for ever.
        tqdm.set_lock(threading.RLock())
        run(folder)

    process = multiprocessing.get_context("fork").Process(target=work)
    started = time.monotonic()
    process.start()
    process.join(None if kill_after_s == math.inf else kill_after_s)
    killed = process.exitcode is None
    if killed:
        process.kill()
        process.join()
    if process.exitcode and not killed:
        raise RuntimeError(f"it failed by itself with status {process.exitcode}: {_last_words(output)}")
    return not killed, time.monotonic() - started


def _last_words(log: Path) -> str:
    """Return the last message of mmib itself, and the last line of the log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed nothing"]
    return " / ".join([line for line in lines[:-1] if line.startswith("mmib: ")][-1:] + lines[-1:])


def try_kills(name: str, job: Job, kills: int, work: Path, rng: random.Random) -> Counter[str]:
    """Kill a program at random times, each time in a new folder, and restart it once; count the outcomes."""
    whole = work / f"{name}-whole"
    whole.mkdir(parents=True)
    _, duration = start(job.run, whole)
    tally: Counter[str] = Counter()
    for number in range(1, kills + 1):
        folder = work / f"{name}-{number}"
        folder.mkdir()
        job.prepare(whole, folder)
        outcome, seconds, lost = _killed_once(job, whole, folder, rng.uniform(0, duration))
        if outcome == OVER:  # the machine is less busy than before
            duration = seconds
        tally[outcome] += 1
        tally[LOST] += bool(lost)
        details = "; ".join(lost[:SHOWN]) or "every file whole, the next start came to the same end"
        print(f"{name} {number}: {outcome}, {seconds:.1f} of {duration:.1f} s: {details}", flush=True)
        shutil.rmtree(folder)
    return tally


def _killed_once(job: Job, whole: Path, folder: Path, moment: float) -> tuple[str, float, list[str]]:
    """Return the outcome of a kill, the seconds until it, and what was lost."""
    finished, seconds, lost = False, moment, []
    try:
        finished, seconds = start(job.run, folder, moment)
        lost += [f"after the kill: {what}" for what in (*unreadable(folder), *job.broken(folder))]
        start(job.run, folder)
        lost += [f"after the next start: {what}" for what in (*unreadable(folder), *job.differences(whole, folder))]
    except (RuntimeError, OSError) as error:
        lost.append(f"a start: {error}")
    return OVER if finished else KILLED, seconds, lost


def shares(kills: int, jobs: int) -> list[int]:
    """Divide the kills among the programs as evenly as possible."""
    return [kills // jobs + (number < kills % jobs) for number in range(jobs)]


def make_jobs(names: Sequence[str], options: Sequence[str], work: Path) -> dict[str, Job]:
    """Create the requested programs, on a tiny demo corpus in the folder."""
    corpus = work / "demo"
    write_demo_corpus(corpus, DemoSettings(size="tiny"))
    places = ["--data.root", str(corpus), "--data.cache_dir", str(work / "features")]
    training = training_job(["--config", str(CONFIG), *places, "--trainer.max_epochs", "1", *options])
    jobs = {"train": training}
    if "cache" in names:
        jobs["cache"] = cache_job(ImageEncoder(regions="grid"), sorted(corpus.glob("img_org/train/*")))
    if "export" in names:
        (work / "exported").mkdir()
        start(training.run, work / "exported")
        jobs["export"] = export_job(only_run(work / "exported"))
    return {name: jobs[name] for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per kill, and the tally."""
    names = ("cache", "train", "export")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, shared out over the jobs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--jobs", nargs="+", choices=names, default=names, help="what is killed (default: all)")
    parser.add_argument("options", nargs="*", help="behind --: further options of mmib fit")
    chosen = parser.parse_args(arguments)
    rng = random.Random(chosen.seed)
    started = time.monotonic()
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_jobs(chosen.jobs, chosen.options, Path(folder))
        for (name, job), share in zip(jobs.items(), shares(chosen.kills, len(jobs)), strict=True):
            tally += try_kills(name, job, share, Path(folder), rng)
    counted = ", ".join(f"{tally[what]} {what}" for what in (KILLED, OVER, LOST))
    print(f"{chosen.kills} kills, seed {chosen.seed}, {time.monotonic() - started:.0f} s: {counted}")
    return int(tally[LOST] > 0)


if __name__ == "__main__":
    sys.exit(main())
