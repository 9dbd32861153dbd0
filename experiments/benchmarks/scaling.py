"""How the cost of training grows with the rows of a batch, the word pieces and regions of a post, and the set's size.

    python -m experiments.benchmarks.scaling --encoders base --repeats 3

One size varies at a time, in turns, on the same weights; the others are given by `--batch-size`, `--pieces` and
`--regions`. Image features are given, as from the cache. "Grows as" is the slope between the first and the last line on
logarithmic axes: 1 is proportional, 0 is constant. The size of the set does not affect a step, only the work before the
first batch of an epoch, and the sampling of batches.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.measure import Clock, best_device, in_turns, machine, spread, table, to_standard_error
from experiments.benchmarks.recipe import ENCODERS, Setup, build_module, make_optimizer, running_as, training_step
from mmib.datamodules.batching import GlobalBatchSampler
from mmib.modules import ExtractionModule
from mmib.schema import PostBatch, task_named
from mmib.tasks.mner import MNERBatch
from mmib.tasks.mre import MREBatch

OURS = Setup(cached=True, padded=False, bucketed=True, per_row=False, packaged_crf=False, decoding=False, fused=True)
# Every fourth piece continues a word.
PIECES_OF_WORDS = 0.75


def random_batch(module: ExtractionModule, rows: int, pieces: int, regions: int) -> PostBatch:
    """Generate rows of the same size, without padding, on the module's device."""
    draw = partial(torch.randint, 1000, 2000)
    words = max(2, int(pieces * PIECES_OF_WORDS))
    fields = {
        "rows": torch.arange(rows),
        "input_ids": draw((rows, pieces)),
        "text_mask": torch.ones(rows, pieces, dtype=torch.bool),
        "word_ids": (torch.arange(pieces) * words // pieces).expand(rows, pieces),
        "mentions": torch.zeros(rows, pieces, dtype=torch.long),
        "image_ids": torch.arange(rows),
        "features": torch.randn(rows, regions, module.image_encoder.dim),
        "pixels": None,
        "region_mask": torch.ones(rows, regions, dtype=torch.bool),
        "boxes": torch.rand(rows, regions, 4),
    }
    classes = len(task_named(module.task).outputs(module.labels))
    if module.task == "mre":
        relations = torch.randint(classes, (rows,))
        batch: PostBatch = MREBatch(**fields, positions=torch.tensor([[1, 2]]).expand(rows, 2), label_ids=relations)
    else:
        tags = torch.randint(classes, (rows, words))
        seen = torch.ones(rows, words, dtype=torch.bool)
        places = torch.arange(words).expand(rows, words)
        batch = MNERBatch(**fields, positions=places, word_mask=seen, tags=tags, gold=tags)
    return batch.to(module.device)


class Steps:
    """Training steps of a module.

    Args:
        module: the module, on its device.
        setup: how it is run.
        steps: steps per measurement, after one warm-up step.
    """

    def __init__(self, module: ExtractionModule, setup: Setup, steps: int) -> None:
        self.module = module
        self.setup = setup
        self.steps = steps
        self.optimizer = make_optimizer(module, setup.fused)

    def time(self, rows: int, pieces: int, regions: int) -> float:
        """Milliseconds per step."""
        batch = random_batch(self.module, rows, pieces, regions)
        clock = Clock(self.module.device)
        with running_as(self.module, self.setup) as module:
            module.train()
            training_step(module, self.optimizer, batch, self.setup)
            clock.start()
            for _ in range(self.steps):
                training_step(module, self.optimizer, batch, self.setup)
        return 1e3 * clock.seconds() / self.steps


def draw_epoch(posts: int, batch_size: int) -> dict[str, float]:
    """Seconds until the first batch of an epoch is sampled, and milliseconds for each further one."""
    sizes = np.random.default_rng(0).integers((8, 0), (60, 5), (posts, 2))
    started = time.perf_counter()
    shares = iter(GlobalBatchSampler(sizes, batch_size, shuffle=True, seed=0))
    next(shares)
    first = time.perf_counter()
    count = sum(1 for _ in shares)
    return {"first": first - started, "further": 1e3 * (time.perf_counter() - first) / max(1, count)}


def growth(sizes: Sequence[int], costs: Sequence[float]) -> str:
    """Slope between both ends on logarithmic axes."""
    if len(sizes) < 2:
        return ""
    return f"{math.log(costs[-1] / costs[0]) / math.log(sizes[-1] / sizes[0]):.2f}"


def grown(name: str, sizes: Sequence[int], measure: Callable[[int], float], repeats: int) -> str:
    """Measure the cost of a step as a function of one size, and format the table."""
    found = in_turns({f"{size} {name}": partial(measure, size) for size in sizes}, repeats, to_standard_error)
    costs = [spread(values) for values in found.values()]
    medians = [cost.median for cost in costs]
    rows = [[size, cost, f"{cost.median / medians[0]:.2f}"] for size, cost in zip(sizes, costs, strict=True)]
    head = [name, "ms a step: median (range)", "to the first"]
    return f"{table(head, rows)}\n\ngrows as {growth(sizes, medians)}\n"


def drawn(sizes: Sequence[int], batch_size: int, repeats: int) -> str:
    """Measure the cost of the set's size, and format the table."""
    rows = []
    for posts in sizes:
        found = [draw_epoch(posts, batch_size) for _ in range(repeats)]
        columns = [spread([draw[key] for draw in found]) for key in ("first", "further")]
        rows.append([f"{posts:,}", *columns, f"{1e6 * columns[0].median / posts:.2f}"])
    head = ["posts", "s before an epoch's first batch", "ms to draw each further batch", "µs a post before the first"]
    return f"{table(head, rows)}\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=("mre", "mner"), default=["mre", "mner"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4, 8, 16, 32, 64])
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--region-counts", nargs="+", type=int, default=[1, 4, 16, 49])
    parser.add_argument("--posts", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--pieces", type=int, default=24, help="word pieces of each post")
    parser.add_argument("--regions", type=int, default=4, help="of each post")
    parser.add_argument("--steps", type=int, default=3, help="of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoders", choices=list(ENCODERS), default="base", help="their shapes")
    chosen = parser.parse_args(arguments)
    device = best_device()
    rows, pieces, regions = chosen.batch_size, chosen.pieces, chosen.regions
    print(f"{machine()}\n\n{rows} rows, {pieces} word pieces, {regions} regions where they do not change\n")
    for task in chosen.tasks:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            module = build_module(task, ENCODERS[chosen.encoders], Path(folder)).to(device)
        step = Steps(module, OURS, chosen.steps).time
        changing: list[tuple[str, list[int], Callable[[int], float]]] = [
            ("rows", chosen.batch_sizes, lambda size, step=step: step(size, pieces, regions)),
            ("word pieces", chosen.lengths, lambda size, step=step: step(rows, size, regions)),
            ("regions", chosen.region_counts, lambda size, step=step: step(rows, pieces, size)),
        ]
        for name, sizes, measure in changing:
            print(f"## {task}, {name}\n\n{grown(name, sizes, measure, chosen.repeats)}", flush=True)
    print(f"## size of the set\n\n{drawn(chosen.posts, rows, chosen.repeats)}")


if __name__ == "__main__":
    main()
