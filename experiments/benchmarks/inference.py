"""Compare a published recipe with ours from files to predictions, with an empty and with a filled feature cache.

    python -m experiments.benchmarks.inference --sets mnre twitter2017

Each measurement begins with the data folder and ends with the predictions of all its rows: reading the text,
tokenization, reading the images, and running the model. The recipe is that of `experiments.benchmarks.recipe`; ours is
what `mmib predict` does, including evidence.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from experiments.benchmarks.corpus import DATA_ROOT, SETS, open_set, read_set, write_set
from experiments.benchmarks.measure import Clock, best_device, in_turns, machine, spread, table, to_standard_error
from experiments.benchmarks.recipe import ENCODERS, PUBLISHED, WORKERS, Setup, build_module, make_loader, running_as
from mmib.base.devices import has_bf16
from mmib.modules import ExtractionModule
from mmib.schema import PostBatch
from mmib.tasks.mner import MNERBatch

OURS = Setup(cached=True, padded=False, bucketed=True, per_row=False, packaged_crf=False, decoding=False)
PUBLISHED_BATCH, OUR_BATCH = 8, 64


class Way(NamedTuple):
    """A way to get from files to predictions.

    Attributes:
        setup: how the model is run.
        batch_size: rows per batch.
        filled: whether all images are cached in advance.
        bf16: mixed precision.
    """

    setup: Setup
    batch_size: int
    filled: bool = False
    bf16: bool = False


WAYS = {
    "published recipe": Way(PUBLISHED, PUBLISHED_BATCH),
    "ours, empty cache": Way(OURS, OUR_BATCH),
    "ours, filled cache": Way(OURS, OUR_BATCH, filled=True),
    "ours, filled cache, bf16": Way(OURS, OUR_BATCH, filled=True, bf16=True),
}


@torch.inference_mode()
def predict(module: ExtractionModule, batch: PostBatch, way: Way) -> Any:
    """Predict a batch."""
    with torch.autocast(batch.rows.device.type, torch.bfloat16, enabled=way.bf16):
        if not way.setup.per_row:
            return module.predict_step(batch, 0)
        # Published code only computes the best relation or path.
        scores = module.network.scores(module.backbone(batch).states)
        if isinstance(batch, MNERBatch):
            return cast(Any, module).crf.viterbi(scores, batch.word_mask)
        return scores.argmax(dim=-1)


def run(module: ExtractionModule, folder: Path, name: str, way: Way, filled: Path, workers: int) -> float:
    """Rows per second from the files in a folder to predictions.

    Args:
        module: the model.
        folder: root of the set.
        name: name of the set.
        way: how to predict.
        filled: a cache with the features of its images.
        workers: processes that decode images for the recipe.
    """
    with tempfile.TemporaryDirectory() as empty, running_as(module, way.setup) as running:
        running.eval()
        clock = Clock(module.device)
        clock.start()
        cache = (filled if way.filled else Path(empty)) if way.setup.cached else None
        data = open_set(folder, name, module, cache, batch_size=way.batch_size)
        read_set(data)
        rows = 0
        for batch in make_loader(data, way.setup, SETS[name], workers):
            predict(running, batch.to(module.device), way)
            rows += len(batch)
        return rows / clock.seconds()


def measure(name: str, arguments: argparse.Namespace) -> str:
    """Measure a set, and format its table."""
    posts, device = SETS[name], best_device()
    ways = {label: way for label, way in WAYS.items() if not way.bf16 or has_bf16(device)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_set(folder / "data", name, arguments.rows, arguments.data_root)
        (folder / "text").mkdir()
        module = build_module(posts.task, ENCODERS[arguments.encoders], folder / "text").to(device)
        filled = folder / "cache"
        read_set(open_set(folder / "data", name, module, filled))
        measures: dict[str, Callable[[], float]] = {
            label: partial(run, module, folder / "data", name, way, filled, arguments.workers)
            for label, way in ways.items()
        }
        measures["ours, filled cache"]()  # warm-up
        found = in_turns(measures, arguments.repeats, to_standard_error)
    first = spread(found["published recipe"]).median
    rows = [
        [label, way.batch_size, spread(found[label]), f"{spread(found[label]).median / first:.2f}"]
        for label, way in ways.items()
    ]
    return (
        f"### {name}\n\n{arguments.rows} rows: {source}; {posts.regions} images a row; "
        f"encoders `{arguments.encoders}`; {arguments.repeats} repeats\n\n"
        f"{table(['', 'batch', 'rows a second: median (range)', 'to the recipe'], rows)}\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoders", choices=list(ENCODERS), default="base", help="their shapes")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else drawn posts serve")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes that decode images for the recipe")
    chosen = parser.parse_args(arguments)
    print(f"{machine()}\n")
    for name in chosen.sets:
        torch.manual_seed(0)
        print(measure(name, chosen), flush=True)


if __name__ == "__main__":
    main()
