"""Measure the value of review: add the least certain posts, or random ones, to a small training set.

    python -m experiments.review_loop --root data/demo --output experiments/results/review_loop.md

For each seed a model of entity recognition is trained on 40 posts of the demo corpus and predicts a pool of others. Of
these, 20 are added with their gold labels, which simulate a person's corrections: those that `mmib review` shows
first, or 20 random ones. A new model is trained on each set and scored on the same test posts.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqeval.metrics import f1_score

from experiments.benchmarks.measure import machine, table, to_standard_error
from mmib import train
from mmib.base.files import write_text
from mmib.datamodules.demo import DemoSettings, write_demo_corpus
from mmib.datamodules.posts import TaggedPost
from mmib.datamodules.released import TWITTER
from mmib.datamodules.twitter_files import TwitterReader
from mmib.review.predictions import read_predictions
from mmib.runs.reader import read_run
from mmib.schema import MMIBError
from mmib.tagging import entities, repair

YEAR = 2017
START = "start"
CERTAINTY, RANDOM = "least certain", "random"
CONFIG: dict[str, Any] = {
    "include": ["base.yaml", "model/mner.yaml", "model/offline.yaml", "model/demo.yaml", "data/jsonl.yaml"],
    "name": "review-loop",
    "trainer": {"max_epochs": 20, "check_val_every_n_epoch": 5, "log_every_n_steps": 100},
    "model": {"init_args": {"optimizer": {"lr": 4e-4, "other_lrs": {r"^(crf|head)\.": 1e-3}}}},
    "data": {"init_args": {"task": "mner", "labels": list(TWITTER.names), "batch_size": 8, "max_missing_images": 1.0}},
}


@dataclass(frozen=True)
class Posts:
    """The posts of a seed.

    Attributes:
        start: the first training set.
        pool: posts to choose from.
        val, test: posts for the selection of checkpoints, and for scoring.
    """

    start: list[TaggedPost]
    pool: list[TaggedPost]
    val: list[TaggedPost]
    test: list[TaggedPost]


def sample(reader: TwitterReader, seed: int, sizes: Sequence[int]) -> Posts:
    """Sample posts in these numbers: start, pool, validation, test."""
    generator = random.Random(seed)
    training = generator.sample(list(reader.posts("train")), sizes[0] + sizes[1])
    val, test = (
        generator.sample(list(reader.posts(split)), size)
        for split, size in zip(("val", "test"), sizes[2:], strict=True)
    )
    return Posts(training[: sizes[0]], training[sizes[0] :], val, test)


def write_posts(folder: Path, splits: dict[str, Iterable[TaggedPost]]) -> None:
    """Write the posts of each split as JSON lines."""
    for split, posts in splits.items():
        write_text(folder / f"{split}.jsonl", "".join(json.dumps(_line(post)) + "\n" for post in posts))


def _line(post: TaggedPost) -> dict[str, Any]:
    marked = [{"start": entity.start, "end": entity.end, "type": entity.type} for entity in entities(repair(post.tags))]
    return {"tokens": post.words, "image": post.image, "entities": marked, "relations": []}


def measure(
    posts: Posts, seed: int, added: int, images: Path, work: Path, overrides: dict[str, Any]
) -> dict[str, float]:
    """F1 on the test posts after training on the first posts, and on these with each choice of further posts."""

    def trained(name: str, training: Iterable[TaggedPost], test: Iterable[TaggedPost]) -> Path:
        folder = work / f"{seed}-{name.replace(' ', '-')}"
        write_posts(folder, {"train": training, "val": posts.val, "test": test})
        run = {"data.root": str(folder), "data.image_folder": str(images), "data.cache_dir": str(work / "cache")}
        return train(CONFIG, {"seed_everything": seed, "runs": str(work / "runs"), **run, **overrides}).folder

    def f1(name: str, run: Path) -> float:
        records = read_run(run).predictions("test")[-len(posts.test) :]
        score = float(f1_score(*([record[key] for record in records] for key in ("gold", "predicted"))))
        to_standard_error(f"seed {seed}, {name}: F1 {score:.4f}")
        return score

    # One training run predicts the pool and, after it, the test posts.
    first = trained(START, posts.start, [*posts.pool, *posts.test])
    shown = [post.row for post in read_predictions(first / "predictions" / "test.jsonl").posts]
    choices = {
        CERTAINTY: [posts.pool[row] for row in shown if row < len(posts.pool)][:added],
        RANDOM: random.Random(seed).sample(posts.pool, added),
    }
    runs = {name: trained(name, [*posts.start, *chosen], posts.test) for name, chosen in choices.items()}
    return {name: f1(name, run) for name, run in {START: first, **runs}.items()}


def report(found: dict[int, dict[str, float]], sizes: Sequence[int], added: int, command: str) -> str:
    """Format the scores of each seed, their means, and the paired difference."""
    names = [START, CERTAINTY, RANDOM]
    rows = [[str(seed), *(f"{100 * scores[name]:.1f}" for name in names)] for seed, scores in found.items()]
    columns = {name: [100 * scores[name] for scores in found.values()] for name in names}
    rows.append(["mean", *(f"{statistics.mean(columns[name]):.1f}" for name in names)])
    gains = [scores[CERTAINTY] - scores[RANDOM] for scores in found.values()]
    gain = 100 * statistics.mean(gains)
    error = 100 * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    return "\n".join(
        [
            "# What review is worth\n",
            f"F1 in percent on {sizes[3]} test posts of the demo corpus (entity recognition, offline encoders, whole "
            f"images): {sizes[0]} posts, and these with {added} others out of a pool of {sizes[1]}, with true labels "
            f"in place of a person's corrections. Checkpoints were selected on {sizes[2]} validation posts.\n",
            table(["seed", f"{sizes[0]} posts", f"+ {added} least certain", f"+ {added} random"], rows),
            f"\nLeast certain minus random: {gain:+.1f} points, standard error {error:.1f} over {len(found)} seeds.\n",
            f"`{command}` on {machine()}\n",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--root", type=Path, default=Path("data/demo"), help="of the demo corpus, written if missing (%(default)s)")
    add("--size", default="default", help="of the demo corpus (default: %(default)s)")
    add("--seeds", type=int, default=5, help="1 to this number (default: %(default)s)")
    add("--posts", type=int, default=40, help="to start with (default: %(default)s)")
    add("--added", type=int, default=20, help="posts that are corrected (default: %(default)s)")
    add("--pool", type=int, default=200, help="posts to choose from (default: %(default)s)")
    add("--val", type=int, default=60, help="validation posts (default: %(default)s)")
    add("--test", type=int, default=200, help="test posts (default: %(default)s)")
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the trainings; repeated, several"
    )
    add("--output", type=Path, help="the table (default: standard output alone)")
    chosen = parser.parse_args(arguments)
    write_demo_corpus(chosen.root, DemoSettings(size=chosen.size))
    reader = TwitterReader(chosen.root, YEAR)
    sizes = (chosen.posts, chosen.pool, chosen.val, chosen.test)
    overrides = dict(setting.split("=", 1) for setting in chosen.set)
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for seed in range(1, chosen.seeds + 1):
            posts = sample(reader, seed, sizes)
            images = reader.image_folder("train")
            found[seed] = measure(posts, seed, chosen.added, images, Path(work), overrides)
    command = shlex.join(["python", "-m", "experiments.review_loop", *(arguments or sys.argv[1:])])
    text = report(found, sizes, chosen.added, command)
    print(text)
    if chosen.output is not None:
        write_text(chosen.output, text)


if __name__ == "__main__":
    try:
        main()
    except MMIBError as error:
        raise SystemExit(f"review_loop: {error}") from error
