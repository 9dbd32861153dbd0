"""`make demo`: train the demo models unless they have been trained, export them, and open the page.

python -m experiments.demo --port 8000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from mmib.runs.reader import FinishedRun, newest_first, trained_runs
from mmib.schema import MMIBError

EXPERIMENTS = ("mre-demo", "mner-demo")


def newest_run(runs: Path, experiment: str) -> FinishedRun | None:
    """Return the run of an experiment that finished last; None without any.

    It may have been trained with other options: check its report page and its `config.yaml`.
    """
    found = newest_first(trained_runs(runs / experiment))
    matching = (run for run in found if run.name == experiment and (run.folder / "checkpoints" / "best.ckpt").is_file())
    return next(matching, None)


def mmib(*arguments: str) -> None:
    """Run the mmib command; exit this process if it fails."""
    done = subprocess.run([sys.executable, "-m", "mmib", *arguments], check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)


def main(arguments: list[str] | None = None) -> None:
    """Train missing models, export them, and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs lie (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("exports"), help="the export (default: %(default)s)")
    parser.add_argument("--no-page", action="store_true", help="end when the models are exported")
    chosen, options = parser.parse_known_args(arguments)
    folders = []
    for experiment in EXPERIMENTS:
        run = newest_run(chosen.runs, experiment)
        if run is None:
            print(f"there is no finished run of {experiment}: training one", flush=True)
            mmib("fit", "--config", experiment, "--runs", str(chosen.runs))
            run = newest_run(chosen.runs, experiment)
        if run is None:
            raise SystemExit(f"the training of {experiment} left no run below {chosen.runs / experiment}")
        print(f"{experiment}: {run.folder}, validation F1 {run.summary['val']['f1']:.3f}", flush=True)
        folders.append(str(run.folder))
    mmib("export", *folders, "-o", str(chosen.output))
    if not chosen.no_page:
        mmib("serve", "--model", str(chosen.output), "--runtime", "onnx", "--open", *options)


if __name__ == "__main__":
    try:
        main()
    except MMIBError as error:
        raise SystemExit(f"demo: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
