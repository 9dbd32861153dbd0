"""Cost of IBMonitor: training steps with and without it, in turns.

    python -m experiments.benchmarks.monitor --steps 60 --rounds 3 -- --config mre-demo

Arguments after `--` are options of `mmib fit`; its data and features should be available. Prints the median step of
both and their ratio. The sums that the monitor reads are computed in either case, as they normalise the loss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mmib.cli import main as mmib

SKIPPED_STEPS = 10


class Stopwatch(pl.Callback):
    """Writes the times between the starts of consecutive batches, in seconds, to a file.

    Args:
        path: the file; JSON.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """See `pytorch_lightning.Callback`."""
        self.starts.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:
        """See `pytorch_lightning.Callback`."""
        steps = [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]
        self.path.write_text(json.dumps(steps[SKIPPED_STEPS:]))


def time_steps(options: list[str], monitors: list[str], steps: int) -> list[float]:
    """Seconds of each training step of a short run with these additional callbacks."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/steps.json"
        stopwatch = {"class_path": "experiments.benchmarks.monitor.Stopwatch", "init_args": {"path": path}}
        callbacks = [stopwatch, *({"class_path": monitor} for monitor in monitors)]
        short = {
            "trainer.callbacks": json.dumps(callbacks),
            "trainer.max_steps": steps + SKIPPED_STEPS,
            "trainer.limit_val_batches": 0,
            "evaluate": "false",
            "wandb": "off",
            "runs": folder,
        }
        if mmib(["fit", *options, *(f"--{name}={value}" for name, value in short.items())]) != 0:
            raise SystemExit(1)
        return [float(seconds) for seconds in json.loads(Path(path).read_text())]


def main() -> None:
    """Run the measurements, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="+", help="behind --: options of mmib fit")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(arguments.rounds):
        for name, monitors in (("without", []), ("with", ["mmib.callbacks.IBMonitor"])):
            times[name] += time_steps(arguments.options, monitors, arguments.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        low, _, high = (1e3 * quartile for quartile in statistics.quantiles(values, n=4))
        print(f"{name:7} IBMonitor: median {1e3 * medians[name]:.1f} ms a step, quartiles {low:.1f} and {high:.1f}")
    print(f"ratio with / without: {medians['with'] / medians['without']:.3f}")


if __name__ == "__main__":
    main()
