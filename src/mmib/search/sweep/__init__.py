"""The command `mmib sweep`: run W&B sweep files with W&B's agents or, without W&B, on this machine."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.base.wandb_mode import wandb_mode
from mmib.base.workers import end_if_importing_main
from mmib.schema import ConfigError, MMIBError
from mmib.search.sweep.file import SweepFile, read_sweep
from mmib.search.trials import end_on_signals, share_cores

INTERRUPTED = 130


def run(arguments: list[str]) -> int:
    """Run a sweep; return status 1 if all of its trials failed.

    Raises:
        ConfigError: the sweep file or its command is invalid.
    """
    parser = CommandParser(
        prog="mmib sweep",
        description="Run a hyperparameter search from a W&B sweep file. With a W&B key, the sweep is registered there "
        "and run by agents. Without one, Optuna samples the trials on this machine, in a folder in --runs that "
        "several processes may share. The same command resumes an interrupted sweep.",
    )
    parser.add_argument("file", type=Path, help="sweep file, such as experiments/sweeps/mre.yaml")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument(
        "--trials", type=int, help="maximum number of trials of the sweep (default: run_cap of the file)"
    )
    parser.add_argument(
        "--parallel", type=int, default=1, help="number of trials or agents at a time (default: %(default)s)"
    )
    parser.add_argument("--local", action="store_true", help="run on this machine even if a W&B key is set")
    chosen = parser.parse_args(arguments)
    for name in ("trials", "parallel"):
        if getattr(chosen, name) is not None and getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    file = read_sweep(chosen.file)
    end_on_signals()
    share_cores(chosen.parallel)
    if not chosen.local and wandb_mode() == "online":
        from mmib.search.sweep.online import run_online  # noqa: PLC0415 - W&B's client takes seconds to import

        return run_online(file, chosen.trials, chosen.parallel)
    return _run_local(file, chosen.runs, chosen.trials, chosen.parallel)


def _run_local(file: SweepFile, runs: Path, cap: int | None, parallel: int) -> int:
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("a sweep without W&B needs Optuna: pip install 'mmib[sweeps]'")
    from mmib.search.sweep.local import LocalSweep, report  # noqa: PLC0415 - Optuna is an extra

    sweep = LocalSweep(file, runs, cap)
    done = sum(trial.state != "running" for trial in sweep.trials())
    report(f"sweep {file.name}: {sweep.total} trials by {file.method}, {done} done before; folder {sweep.folder}")
    try:
        if parallel == 1:
            sweep.work()
        else:
            _share(file.path, runs, cap, parallel)
    except KeyboardInterrupt:
        report("the same command resumes the sweep")
        raise
    return sweep.conclude()


def _share(path: Path, runs: Path, cap: int | None, parallel: int) -> None:
    """Run one sweep in several processes.

    Raises:
        ConfigError: a process ended with an error.
    """
    end_if_importing_main()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(path, runs, cap)) for _ in range(parallel)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
    statuses = [worker.exitcode for worker in workers if worker.exitcode]
    if statuses:
        raise ConfigError(f"{len(statuses)} of {parallel} processes of the sweep failed: see above")


def _work(path: Path, runs: Path, cap: int | None) -> None:
    """Run trials in a worker process."""
    from mmib.search.sweep.local import LocalSweep  # noqa: PLC0415 - Optuna is an extra

    end_on_signals()
    try:
        LocalSweep(read_sweep(path), runs, cap).work()
    except MMIBError as error:
        print(f"mmib: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
