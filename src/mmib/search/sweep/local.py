"""Run a sweep on this machine with Optuna. Several processes can share it, and it can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import multiprocessing
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.trial import Trial, TrialState

from mmib.analysis.report import make_page
from mmib.analysis.report.history import shown_command
from mmib.base.files import write_text
from mmib.schema import ConfigError, MMIBError
from mmib.search.sweep.command import command_line
from mmib.search.sweep.file import SweepFile
from mmib.search.sweep.journal import open_study, reading
from mmib.search.sweep.parameters import combinations, nested
from mmib.search.sweep.records import (
    PAGE,
    SUMMARY,
    TABLE,
    TrialRecord,
    best_trial,
    logged_metrics,
    metric_history,
    trial_table,
    write_records,
)
from mmib.search.trials import TrialError, reason_of, run_trial

JOURNAL = "journal.log"
# Number of random trials before a bayes sweep uses results.
RANDOM_TRIALS = 5
STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}
RECORD = "record"
# Unit of beta in a journal. Version 0.1 had another unit, so its trials are not comparable with current ones.
BETA_UNIT = ("beta_unit", "nats of a position's rate")
# Folder of the runs of a sweep. Version 0.1 named it so, and its sweeps can be resumed.
TRIALS = "points"


class LocalSweep:
    """A sweep below a folder of runs.

    Its folder is named after the sweep and a hash of its file, so that the same file finds it again. All decisions are
    made under a lock of the folder. A process holds the lock of its trial, which the system releases when it dies.

    Args:
        file: the sweep file.
        runs: folder of all runs.
        cap: maximum number of trials, instead of the file's `run_cap`.

    Raises:
        ConfigError: the number of trials is unlimited, the command does not accept the parameters, or the folder holds
            trials of version 0.1.
    """

    def __init__(self, file: SweepFile, runs: Path, cap: int | None) -> None:
        self.file = file
        self.total = file.trials(cap)
        self.folder = runs / f"{file.name}-{file.digest[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the sweep's folder {self.folder} cannot be made: {error}") from error
        optuna.logging.set_verbosity(logging.WARNING)
        with self._decision():
            if not (self.folder / SUMMARY).is_file():
                self._check_parameters()
            with reading(self.folder / JOURNAL):
                self.study = open_study(self.folder / JOURNAL, file.name, file.metric.goal)
                self._check_unit()
                self.trials()
            if file.method == "grid":
                for indices in combinations(file.parameters)[len(self.study.trials) : self.total]:
                    self.study.enqueue_trial(indices)
            self._record()

    def _check_unit(self) -> None:
        name, unit = BETA_UNIT
        if not self.study.trials:
            self.study.set_user_attr(name, unit)
        elif self.study.user_attrs.get(name) != unit:
            raise ConfigError(
                f"the sweep {self.folder} was begun by version 0.1, whose betas weighed the KL averaged over latent "
                "dimensions and not its sum: move the folder away, divide the betas of the sweep file by the latent "
                "width, and start anew"
            )

    def work(self) -> None:
        """Run trials until none is left to start.

        Raises:
            ConfigError: a finished run never logged the metric.
        """
        while self._work_on_one():
            pass

    def trials(self) -> list[TrialRecord]:
        """Return all trials that have been started."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            TrialRecord(
                **{"values": {}, **trial.user_attrs.get(RECORD, {}), "number": trial.number + 1, "state": state}
            )
            for trial in trials
            if (state := STATES.get(trial.state))
        ]

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """Return the command line of a trial with these parameter values."""
        keys = {parameter.name: parameter.keys for parameter in self.file.parameters}
        return command_line(
            self.file.command, self.file.program, nested({keys[name]: value for name, value in values.items()})
        )

    def conclude(self) -> int:
        """Report the results so far; return status 1 if all started trials failed."""
        trials = self.trials()
        running = [str(trial.number) for trial in trials if trial.state == "running"]
        best = best_trial(self.file, trials)
        if running:
            report(f"still running elsewhere: trial {', '.join(running)}")
        if best is not None:
            report(f"best: trial {best.number} with {self.file.metric.name} {best.metric:.4f}: {best}")
            report(f"  run: {best.run}\n  again: {shlex.join(self.command(best.values))}")
        report(f"trials: {self.folder / TABLE}")
        if best is not None and not running:
            self._write_pages(trials, [Path(trial.run) for trial in trials if trial.state == "finished" and trial.run])
        return 0 if running or any(trial.state != "failed" for trial in trials) else 1

    def _write_pages(self, trials: list[TrialRecord], runs: list[Path]) -> None:
        """Write a table and a report that compare the finished trials; an error is only reported."""
        command = shown_command(shlex.join(["mmib", "sweep", str(self.file.path)]))
        pages: dict[str, Callable[[], str]] = {
            PAGE: lambda: trial_table(self.file, trials, command),
            "report.html": lambda: make_page(runs),
        }
        for name, page in pages.items():
            path = self.folder / name
            try:
                write_text(path, page())
            except MMIBError as error:
                report(f"no {name}: {error}")
            else:
                report(f"{path.stem}: {path}")

    def _work_on_one(self) -> bool:
        with contextlib.ExitStack() as held:
            with self._decision():
                trial = self._claim(held)
                if trial is None:
                    return False
                values = self.file.sample(trial)
                trial.set_user_attr(RECORD, {"values": values})
                self._record()
            ended, history = self._run(trial.number + 1, values)
            with self._decision():
                self._complete(trial, ended, history)
                self._record()
                self._report_progress(ended)
        if ended.run is not None and history is None:
            logged = ", ".join(logged_metrics(self._folder_of(ended.number))) or "nothing"
            raise ConfigError(
                f"{self.file.path}: the metric {self.file.metric.name!r} was never logged by {ended.run}, which logged "
                f"{logged}: name one of these under 'metric'"
            )
        return True

    def _claim(self, held: contextlib.ExitStack) -> Trial | None:
        """Return a trial whose process died, or else a new one; None if there is neither."""
        trials = self.study.get_trials(deepcopy=False)
        for started in trials:
            if started.state == TrialState.RUNNING and self._lock(started.number + 1, held):
                return Trial(self.study, started._trial_id)
        if any(trial.metric is not None and self.file.metric.reached(trial.metric) for trial in self.trials()):
            return None
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        number = min(waiting, default=len(trials))
        if number >= self.total:
            return None
        # The seed depends on the trial's number, so that it does not matter which process samples the trial.
        seed = int.from_bytes(hashlib.sha256(f"{self.file.digest} {number}".encode()).digest()[:4], "big")
        self.study.sampler = (
            optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed, constant_liar=True)
            if self.file.method == "bayes"
            else optuna.samplers.RandomSampler(seed)
        )
        trial = self.study.ask()
        self._lock(trial.number + 1, held)
        return trial

    def _run(self, number: int, values: dict[str, Any]) -> tuple[TrialRecord, list[float] | None]:
        """Run a trial, and return its record and the values of its metric."""
        folder, line, started = self._folder_of(number), self.command(values), time.monotonic()
        run, state, reason = None, "finished", None
        try:
            finished = run_trial((), folder, stop=self._stop(), command=lambda options: [*line, *options])
        except (TrialError, OSError) as error:
            state, reason = "failed", str(error)
        else:
            state, run = ("stopped", None) if finished is None else (state, str(finished.folder))
        history = metric_history(folder, self.file.metric.name)
        if state == "finished" and not history:
            state, reason = "failed", f"it never logged a finite {self.file.metric.name}"
        metric = self.file.metric.best(history) if history else None
        seconds = round(time.monotonic() - started, 1)
        return TrialRecord(number, state, values, metric, seconds, run, reason), history

    def _stop(self) -> Callable[[Path], bool]:
        """Return the function that applies the rule for early termination after each value that a trial logs."""
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

    def _complete(self, trial: Trial, ended: TrialRecord, history: list[float] | None) -> None:
        """Report the result of a trial to Optuna."""
        record = {key: value for key, value in vars(ended).items() if key not in ("number", "state")}
        trial.set_user_attr(RECORD, record)
        if ended.state == "stopped":
            for step, value in enumerate(history or []):
                trial.report(value, step)
            self.study.tell(trial, state=TrialState.PRUNED)
        elif ended.state == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, ended.metric)

    def _report_progress(self, ended: TrialRecord) -> None:
        trials = self.trials()
        best = best_trial(self.file, trials)
        seconds = [trial.seconds for trial in trials if trial.seconds is not None]
        running = sum(trial.state == "running" for trial in trials)
        left = (self.total - len(seconds)) * sum(seconds) / len(seconds) / (running + 1)
        result = ended.reason or f"{self.file.metric.name} {ended.metric:.4f}"
        so_far = "none finished" if best is None else f"best {best.metric:.4f} (trial {best.number})"
        report(
            f"trial {ended.number} of {self.total}, {ended}: {ended.state}, {result}; "
            f"{so_far}; {_time(ended.seconds or 0)}, about {_time(left)} left"
        )

    def _record(self) -> None:
        write_records(self.file, self.trials(), self.total, self.folder)

    def _check_parameters(self) -> None:
        """Check the command by letting it print the configuration of a random trial, without training."""
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        values = self.file.sample(trial)
        log = self.folder / "check.log"
        with log.open("wb") as output:
            line = [*self.command(values), "--print_config"]
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

    def _folder_of(self, number: int) -> Path:
        return self.folder / TRIALS / f"{number:03}"

    def _lock(self, number: int, held: contextlib.ExitStack) -> bool:
        """Lock a trial until `held` is closed or this process dies; return False if another process has locked it."""
        folder = self._folder_of(number)
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
        """Lock the sweep for a decision, which only one process makes at a time."""
        file: IO[str]
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def report(text: str) -> None:
    """Print a line and flush it, because output may go to a file that is being watched."""
    print(text, flush=True)  # noqa: T201


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
