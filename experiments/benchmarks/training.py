"""Training steps: from a published recipe to ours, one change at a time.

    python -m experiments.benchmarks.training --sets mnre --batch-sizes 8 16 --rows 48 --compile
    python -m experiments.benchmarks.training --rows 8 --repeats 1 --encoders tiny

Each line of a table makes one change to the line before it, on the same weights, rows and machine (see
`experiments.benchmarks.recipe`). A measurement is a pass over all rows, including loading; the lines take turns.
PyTorch counts the floating-point operations in the warm-up pass.

The first epoch also builds the feature cache. Here every row has its own images, while rows of a real set share images:
the last line combines the measured parts for the whole set, with the number of rows and distinct whole images of its
text; each row is assumed to have its own crops.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.corpus import DATA_ROOT, SETS, open_set, read_posts_of, read_set, write_set
from experiments.benchmarks.measure import Clock, best_device, in_turns, machine, spread, table, to_standard_error
from experiments.benchmarks.recipe import (
    ENCODERS,
    PUBLISHED,
    WORKERS,
    Setup,
    build_module,
    make_loader,
    make_optimizer,
    running_as,
    training_step,
)
from mmib.base.devices import has_bf16
from mmib.callbacks.monitor import IBMonitor
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.batching import GlobalBatchSampler
from mmib.modules import ExtractionModule

FIRST_EPOCH = "first epoch, cache build included"


def waterfall(task: str, compiled: bool = False, bf16: bool = True) -> dict[str, Setup]:
    """Setups from the recipe to ours; each differs from the one before it as its name says.

    Args:
        task: `mner` or `mre`.
        compiled: include torch.compile.
        bf16: include mixed precision, which is too slow to measure where it is emulated.
    """
    changes: dict[str, dict[str, bool]] = {
        "cached image features": {"cached": True},
        "padded to the longest of the batch": {"padded": False},
        "posts of similar length together": {"bucketed": True},
        "only what the head reads is fused, gathered at once": {"per_row": False},
        "no Viterbi in training": {"decoding": False},
        "our CRF for pytorch-crf": {"packaged_crf": False},
        "fused AdamW": {"fused": True},
        "bf16": {"bf16": True},
        "torch.compile": {"compiled": True},
        "Lightning with the monitor": {"lightning": True},
    }
    if not compiled:
        del changes["torch.compile"]
    if not bf16:
        del changes["bf16"]
    if task == "mre":
        del changes["no Viterbi in training"], changes["our CRF for pytorch-crf"]
    setups = {"published recipe": PUBLISHED}
    for name, change in changes.items():
        setups[f"+ {name}"] = replace(list(setups.values())[-1], **change)
    return setups


@dataclass
class Bench:
    """A model with the objects that its setups need.

    Attributes:
        module: the model, on its device.
        optimizers: optimisers by whether they are fused.
        loaders: loaders by setup.
        rows: rows per pass.
        from_request: start the clock when the first batch is requested, so that the workers' time for it counts. A pass
            must have at least as many batches as there are workers.
    """

    module: ExtractionModule
    optimizers: dict[bool, torch.optim.Optimizer]
    loaders: dict[Setup, DataLoader[Any]]
    rows: int
    from_request: bool = False

    def run(self, setup: Setup) -> float:
        """Rows per second over one pass."""
        loader = self.loaders[setup]
        if setup.lightning:
            with running_as(self.module, setup) as module:
                return self.rows / fit_epoch(module, loader, setup)
        device = self.module.device
        with running_as(self.module, setup) as module:
            module.train()
            for batch in started(loader, clock := Clock(device), self.from_request):
                training_step(module, self.optimizers[setup.fused], batch.to(device), setup)
        return self.rows / clock.seconds()

    def flops(self, setup: Setup) -> float:
        """Floating-point operations per row, forward and backward, including the image encoder if it runs."""
        with FlopCounterMode(display=False) as counter:
            self.run(setup)
        return counter.get_total_flops() / self.rows


def started(loader: DataLoader[Any], clock: Clock, from_request: bool = False) -> Iterator[Any]:
    """Yield the batches of a loader; the clock starts when the first batch is available, or when it is requested.

    If it starts when the first batch is available, the workers' time before that is not charged to the recipe.
    """
    if from_request:
        clock.start()
    batches = iter(loader)
    first = next(batches)
    if not from_request:
        clock.start()
    yield from itertools.chain([first], batches)


class EpochClock(pl.Callback):
    """Measures the duration of the last training epoch in seconds."""

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock(device)
        self.seconds = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """See `pytorch_lightning.Callback`."""
        self.clock.start()

    def on_train_epoch_end(self, *_: Any) -> None:
        """See `pytorch_lightning.Callback`."""
        self.seconds = self.clock.seconds()


def fit_epoch(
    module: ExtractionModule, loader: DataLoader[Any], setup: Setup, monitors: Sequence[pl.Callback] | None = None
) -> float:
    """Seconds of the second epoch of `Trainer.fit`; the first one creates the optimiser's state.

    Args:
        module: the module, on its device, where it stays.
        loader: loader of its batches.
        setup: setup, which determines the precision.
        monitors: callbacks; by default the monitor of `mmib fit`.
    """
    device = module.device
    timer = EpochClock(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            precision="bf16-mixed" if setup.bf16 else "32-true",
            max_epochs=2,
            callbacks=[*([IBMonitor()] if monitors is None else monitors), timer],
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    module.to(device)  # Lightning moves it to the CPU
    return timer.seconds


def build_cache(open_data: Callable[..., Any]) -> float:
    """Seconds for reading a set and building its feature cache."""
    with tempfile.TemporaryDirectory() as cache:
        data = open_data(cache=Path(cache))
        began = time.perf_counter()
        read_set(data)
        return time.perf_counter() - began


def measure(name: str, batch_size: int, arguments: argparse.Namespace) -> str:
    """Measure a set at a batch size, and format its table with notes."""
    posts, device = SETS[name], best_device()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_set(folder / "data", name, arguments.rows, arguments.data_root)
        (folder / "text").mkdir()
        encoders = ENCODERS[arguments.encoders]
        module = build_module(posts.task, encoders, folder / "text", arguments.compile).to(device)
        open_data = partial(open_set, folder / "data", name, module, batch_size=batch_size)
        cached, decoded = open_data(cache=folder / "cache"), open_data(cache=None)
        read_set(cached)
        read_set(decoded)
        setups = waterfall(posts.task, arguments.compile, has_bf16(device))
        bench = Bench(
            module,
            {fused: make_optimizer(module, fused) for fused in (False, True)},
            {s: make_loader(cached if s.cached else decoded, s, posts, arguments.workers) for s in setups.values()},
            arguments.rows,
        )
        # Lightning and compiled code have as many operations as the line before them.
        plain = {label: setup for label, setup in setups.items() if not (setup.lightning or setup.compiled)}
        flops = {label: bench.flops(setup) for label, setup in plain.items()}
        warm_up = {
            label: arguments.rows / bench.run(s) for label, s in setups.items() if s.compiled and not s.lightning
        }
        measures: dict[str, Callable[[], float]] = {label: partial(bench.run, setup) for label, setup in setups.items()}
        measures[FIRST_EPOCH] = partial(build_cache, open_data)
        found = in_turns(measures, arguments.repeats, to_standard_error)
    ours = list(setups)[-1]
    builds = found.pop(FIRST_EPOCH)
    found[FIRST_EPOCH] = [
        arguments.rows / (build + arguments.rows / rate) for build, rate in zip(builds, found[ours], strict=True)
    ]
    lengths = row_lengths(cached)
    head = (
        f"### {name}, batch {batch_size}\n\n"
        f"{arguments.rows} rows: {source}, {spread(lengths)} word pieces, padded to {posts.max_length}; "
        f"{posts.regions} images a row; encoders `{arguments.encoders}`; {arguments.repeats} repeats\n"
    )
    notes = []
    for label, seconds in warm_up.items():
        more = seconds - arguments.rows / spread(found[label]).median
        notes.append(
            f"{label}: its first pass took {seconds:.0f} s, {more:.0f} s of which are its warm-up, once a run\n"
        )
    image = spread(builds).median / (arguments.rows * posts.regions)
    notes.append(first_epoch(name, arguments.data_root, image, found["published recipe"], found[ours]))
    return "\n".join([head, _table(found, flops), "", *notes])


def first_epoch(name: str, data_root: Path, image: float, recipe: list[float], ours: list[float]) -> str:
    """Estimate the first epoch of a whole set from the measured parts.

    Args:
        name: name of the set.
        data_root: folder of its text.
        image: seconds per image for building the cache.
        recipe: rows per second of the recipe.
        ours: rows per second of ours.
    """
    _, rows = read_posts_of(name, data_root)
    images = len({row.image for row in rows}) + SETS[name].crops * len(rows)
    theirs, trained, built = len(rows) / spread(recipe).median, len(rows) / spread(ours).median, images * image
    return (
        f"The first epoch of all {len(rows):,} rows, with {images:,} distinct images, by these rates: the recipe's "
        f"{theirs:,.0f} s; ours {built:,.0f} s for the cache and {trained:,.0f} s of training, "
        f"{theirs / (built + trained):.2f} times as fast\n"
    )


def row_lengths(data: PostDataModule) -> list[int]:
    """Word pieces of each training row."""
    sampler = cast(GlobalBatchSampler, data.train_dataloader().batch_sampler)
    return sampler.sizes[:, 0].tolist()


def _table(rates: dict[str, list[float]], flops: dict[str, float]) -> str:
    medians = {label: spread(values).median for label, values in rates.items()}
    first, *_ = medians
    rows = []
    for label, before in zip(medians, [first, *medians], strict=False):
        counted = [f"{flops[label] / 1e9:.3g}", f"{flops[first] / flops[label]:.1f}"] if label in flops else ["", ""]
        step = "" if label == FIRST_EPOCH else f"{medians[label] / medians[before]:.2f}"
        rows.append([label, spread(rates[label]), step, f"{medians[label] / medians[first]:.2f}", *counted])
    return table(
        [
            "",
            "rows a second: median (range)",
            "to the line before",
            "to the recipe",
            "GFLOP a row",
            "recipe's to these",
        ],
        rows,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8])
    parser.add_argument("--rows", type=int, default=16, help="of a pass; a multiple of the batch sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoders", choices=list(ENCODERS), default="base", help="their shapes")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else drawn posts serve")
    parser.add_argument("--compile", action="store_true", help="a line with torch.compile too; needs a C++ compiler")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes that decode images for the recipe")
    chosen = parser.parse_args(arguments)
    quiet_lightning()
    print(f"{machine()}\n")
    for name in chosen.sets:
        for batch_size in chosen.batch_sizes:
            torch.manual_seed(0)
            print(measure(name, batch_size, chosen), flush=True)


def quiet_lightning() -> None:
    """Silence Lightning, so that only the tables are printed."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


if __name__ == "__main__":
    main()
