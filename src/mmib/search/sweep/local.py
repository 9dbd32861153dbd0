"""Runs a sweep on this machine, its points drawn by Optuna: several processes share it, and it can be gone on with."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import multiprocessing
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from mmib.analysis.report import make_page
from mmib.base.files import write_text
from mmib.schema import ConfigError, MMIBError
from mmib.search.sweep.command import command_line
from mmib.search.sweep.file import SweepFile
from mmib.search.sweep.parameters import Middle, combinations, nested
from mmib.search.sweep.records import SUMMARY, TABLE, Point, best_point, logged_metrics, metric_history, write_records
from mmib.search.trials import PointError, reason_of, run_point

JOURNAL = "journal.log"
# So many random points, before a bayes sweep looks at results.
RANDOM_POINTS = 5
STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}
RECORD = "record"


class LocalSweep:
    """A sweep below a folder of runs.

    Its folder is named after the sweep and what its file says, so that the same file finds it again. All decisions are
    made under a lock of the folder; a point is its process's own by a lock that the system takes back when that dies.

    Args:
        file: the sweep file.
        runs: folder of all runs.
        cap: most points, instead of the file's `run_cap`.

    Raises:
        ConfigError: nothing says how many points the sweep has, or the command does not take its parameters.
    """

    def __init__(self, file: SweepFile, runs: Path, cap: int | None) -> None:
        self.file = file
        self.total = file.points(cap)
        self.folder = runs / f"{file.name}-{file.digest[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the sweep's folder {self.folder} cannot be made: {error}") from error
        with self._decision():
            if not (self.folder / SUMMARY).is_file():
                self._check_parameters()
            optuna.logging.set_verbosity(logging.WARNING)
            _mend(self.folder / JOURNAL)
            self.study = optuna.create_study(
                study_name=file.name,
                storage=JournalStorage(JournalFileBackend(str(self.folder / JOURNAL))),
                direction=file.metric.goal,
                load_if_exists=True,
            )
            if file.method == "grid":
                for places in combinations(file.parameters)[len(self.study.trials) : self.total]:
                    self.study.enqueue_trial(places)
            self._record()

    def work(self) -> None:
        """Run points until none is left to start.

        Raises:
            ConfigError: a run that finished never logged the metric.
        """
        while self._work_on_one():
            pass

    def points(self) -> list[Point]:
        """All points that have been started."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            Point(**{"values": {}, **trial.user_attrs.get(RECORD, {}), "number": trial.number + 1, "state": state})
            for trial in trials
            if (state := STATES.get(trial.state))
        ]

    def command(self, point: Point) -> list[str]:
        """The command line of a point, to repeat it."""
        keys = {parameter.name: parameter.keys for parameter in self.file.parameters}
        return command_line(
            self.file.command, self.file.program, nested({keys[name]: value for name, value in point.values.items()})
        )

    def conclude(self) -> int:
        """Say how the sweep stands; status 1 where all points that were started failed."""
        points = self.points()
        running = [str(point.number) for point in points if point.state == "running"]
        best = best_point(self.file, points)
        if running:
            say(f"still running elsewhere: point {', '.join(running)}")
        if best is not None:
            say(f"best: point {best.number} with {self.file.metric.name} {best.metric:.4f}: {best}")
            say(f"  run: {best.run}\n  again: {shlex.join(self.command(best))}")
        say(f"table: {self.folder / TABLE}")
        if best is not None and not running:
            self._report([Path(point.run) for point in points if point.state == "finished" and point.run])
        return 0 if running or any(point.state != "failed" for point in points) else 1

    def _report(self, runs: list[Path]) -> None:
        """One page that compares the finished points; a sweep without one is still a sweep."""
        path = self.folder / "report.html"
        try:
            write_text(path, make_page(runs))
        except MMIBError as error:
            say(f"no report: {error}")
        else:
            say(f"report: {path}")

    def _work_on_one(self) -> bool:
        with contextlib.ExitStack() as held:
            with self._decision():
                trial = self._claim(held)
                if trial is None:
                    return False
                point = Point(trial.number + 1, "running", self._draw(trial))
                trial.set_user_attr(RECORD, {"values": point.values})
                self._record()
            ended, history = self._run(point)
            with self._decision():
                self._tell(trial, ended, history)
                self._record()
                self._say_progress(ended)
        if ended.run is not None and history is None:
            raise ConfigError(
                f"{self.file.path}: the metric {self.file.metric.name!r} was never logged by {ended.run}, which logged "
                f"{', '.join(logged_metrics(self._folder(ended))) or 'nothing'}: name one of these under 'metric'"
            )
        return True

    def _claim(self, held: contextlib.ExitStack) -> Trial | None:
        """A point whose process died, or else a new one; None where there is neither."""
        trials = self.study.get_trials(deepcopy=False)
        for begun in trials:
            if begun.state == TrialState.RUNNING and self._own(begun.number, held):
                return Trial(self.study, begun._trial_id)
        points = self.points()
        if any(point.metric is not None and self.file.metric.reached(point.metric) for point in points):
            return None
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        number = min(waiting, default=len(trials))
        if number >= self.total:
            return None
        # Drawn from its number: which process draws a point makes no difference.
        seed = int.from_bytes(hashlib.sha256(f"{self.file.digest} {number}".encode()).digest()[:4], "big")
        self.study.sampler = (
            optuna.samplers.TPESampler(n_startup_trials=RANDOM_POINTS, seed=seed, constant_liar=True)
            if self.file.method == "bayes"
            else optuna.samplers.RandomSampler(seed)
        )
        trial = self.study.ask()
        self._own(trial.number, held)
        return trial

    def _draw(self, trial: Trial) -> dict[str, Any]:
        return {p.name: p.distribution.draw(trial, p.name) for p in self.file.parameters}

    def _run(self, point: Point) -> tuple[Point, list[float] | None]:
        """The point as it ended, and the values of its metric."""
        folder, line, started = self._folder(point), self.command(point), time.monotonic()
        run, state, reason = None, "finished", None
        try:
            done = run_point((), folder, stop=self._stop(), command=lambda goal: [*line, *goal])
        except (PointError, OSError) as error:
            state, reason = "failed", str(error)
        else:
            state, run = ("stopped", None) if done is None else (state, str(done.folder))
        history = metric_history(folder, self.file.metric.name)
        if state == "finished" and not history:
            state, reason = "failed", f"it never logged a finite {self.file.metric.name}"
        metric = self.file.metric.best(history) if history else None
        seconds = round(time.monotonic() - started, 1)
        return Point(point.number, state, point.values, metric, seconds, run, reason), history

    def _stop(self) -> Callable[[Path], bool]:
        """What ends a running point: the rule of early termination, asked after each value that the point logs."""
        parent, hyperband, metric = multiprocessing.parent_process(), self.file.hyperband, self.file.metric
        seen = 0

        def stop(folder: Path) -> bool:
            nonlocal seen
            if parent is not None and not parent.is_alive():
                raise KeyboardInterrupt
            if hyperband is None:
                return False
            history = metric_history(folder, metric.name) or []
            if len(history) == seen:
                return False
            seen = len(history)
            others = [metric_history(other, metric.name) or [] for other in folder.parent.iterdir()]
            return hyperband.stops(metric.costs(history), [metric.costs(values) for values in others])

        return stop

    def _tell(self, trial: Trial, point: Point, history: list[float] | None) -> None:
        record = {key: value for key, value in vars(point).items() if key not in ("number", "state")}
        trial.set_user_attr(RECORD, record)
        if point.state == "stopped":
            for step, value in enumerate(history or []):
                trial.report(value, step)
            self.study.tell(trial, state=TrialState.PRUNED)
        elif point.state == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, point.metric)

    def _say_progress(self, point: Point) -> None:
        points = self.points()
        best = best_point(self.file, points)
        ended = [p.seconds for p in points if p.seconds is not None]
        running = sum(p.state == "running" for p in points)
        left = (self.total - len(ended)) * sum(ended) / len(ended) / (running + 1)
        result = point.reason or f"{self.file.metric.name} {point.metric:.4f}"
        so_far = "none finished" if best is None else f"best {best.metric:.4f} (point {best.number})"
        say(
            f"point {point.number} of {self.total}, {point}: {point.state}, {result}; "
            f"{so_far}; {_time(point.seconds or 0)}, about {_time(left)} left"
        )

    def _record(self) -> None:
        write_records(self.file, self.points(), self.total, self.folder)

    def _check_parameters(self) -> None:
        """Have the command compose its configuration, with parameters and without a run."""
        values = {p.name: p.distribution.draw(Middle(), p.name) for p in self.file.parameters}
        log = self.folder / "check.log"
        with log.open("wb") as output:
            line = [*self.command(Point(0, "running", values)), "--print_config"]
            try:
                status = subprocess.run(  # noqa: S603 - the command of the sweep file that its user runs
                    line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
                ).returncode
            except OSError as error:
                raise ConfigError(f"{self.file.path}: the command cannot be run: {error}") from error
        if status != 0:
            raise ConfigError(
                f"{self.file.path}: the command does not take the parameters: {reason_of(log, status)}; "
                f"it was: {shlex.join(line)}"
            )

    def _folder(self, point: Point) -> Path:
        return self._folder_of(point.number - 1)

    def _folder_of(self, trial: int) -> Path:
        return self.folder / "points" / f"{trial + 1:03}"

    def _own(self, trial: int, held: contextlib.ExitStack) -> bool:
        """Take a point for this process, until `held` is closed or the process dies; False where another has it."""
        folder = self._folder_of(trial)
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".owner").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        held.enter_context(file)
        return True

    @contextlib.contextmanager
    def _decision(self) -> Iterator[None]:
        """One process at a time decides."""
        file: IO[str]
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _mend(journal: Path) -> None:
    """Leave out a last line that a process could not finish, so that the next one starts a line of its own."""
    content = journal.read_bytes() if journal.is_file() else b""
    whole, ending, rest = content.rpartition(b"\n")
    if rest:
        write_text(journal, (whole + ending).decode())


def say(text: str) -> None:
    """Print a line at once, as output may go into a file that someone watches."""
    print(text, flush=True)  # noqa: T201


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
