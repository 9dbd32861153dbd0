"""Relations in posts with four or more entities: inserted markers, one pass per pair, against levitated ones, one pass.

    python -m experiments.benchmarks.pairs --root data/demo --posts 64

Two models that differ in their markers take turns on the same posts of the demo corpus, with their gold entities. Their
weights are random unless exports are given, as the results do not depend on them. The table has the rows per post in
the text encoder, and their word pieces, including markers and padding. On a CPU, seconds are the CPU time of one
thread, so that other load on the machine is not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.benchmarks.measure import Clock, in_turns, machine, spread, table, to_standard_error
from mmib.datamodules.demo import read_truth
from mmib.datamodules.demo.layouts import twitter_folders
from mmib.datamodules.released import MNRE
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import Markers, TextEncoder
from mmib.export.model import TrainedModel, build
from mmib.extract.extractor import Extractor, Post, trained_models
from mmib.schema import ConfigError, MMIBError

MARKERS: tuple[Markers, ...] = ("inserted", "levitated")
ENTITIES = 4
Ask = Callable[[Extractor, Sequence[Post]], object]


class Counted(NamedTuple):
    """Input of a text encoder: number of calls, rows in total, and word pieces in total."""

    calls: int
    rows: int
    pieces: int


def posts_of(root: Path, split: str, count: int) -> list[Post]:
    """Read the first posts of a demo corpus with an image and at least `ENTITIES` entities, which are given."""
    images = twitter_folders(root, split).images
    found = []
    for record in read_truth(root, split):
        if record["image"] is None or len(record["entities"]) < ENTITIES:
            continue
        starts = [sum(len(word) + 1 for word in record["tokens"][:place]) for place in range(len(record["tokens"]) + 1)]
        entities = [
            {"start": starts[start], "end": starts[end] - 1, "type": name} for start, end, name in record["entities"]
        ]
        found.append(Post(" ".join(record["tokens"]), images / record["image"], entities=entities))
        if len(found) == count:
            break
    return found


def random_model(markers: Markers, text: str, image: str) -> TrainedModel:
    """Build a model of relations with pretrained encoders and otherwise random weights."""
    torch.manual_seed(0)
    encoders = TextEncoder(text, markers=markers), ImageEncoder(image)
    network = build("mre", MNRE, encoders, {}, {}).eval().requires_grad_(False)
    return TrainedModel(network=network, parts={}, max_length=80, max_crops=4)


def models_of(arguments: argparse.Namespace) -> dict[str, Extractor]:
    """Create an extractor for each marker placement.

    Raises:
        ConfigError: the given exports are not one of each.
    """
    if not arguments.model:
        models = [random_model(markers, arguments.text_encoder, arguments.image_encoder) for markers in MARKERS]
    else:
        models = [model for source in arguments.model for model in trained_models(source)]
    named = {model.network.backbone.text_encoder.placement: Extractor([model], arguments.device) for model in models}
    if tuple(sorted(named)) != MARKERS or len(models) != len(MARKERS):
        raise ConfigError("name two models of relations behind --model: one with inserted markers, one with levitated")
    return {markers: named[markers] for markers in MARKERS}


def one_by_one(extractor: Extractor, posts: Sequence[Post]) -> None:
    """Extract with one call per post."""
    for post in posts:
        extractor.extract_batch([post])


WAYS: dict[str, Ask] = {"one by one": one_by_one, "in batches": Extractor.extract_batch}


def counted(extractor: Extractor, ask: Ask, posts: Sequence[Post]) -> Counted:
    """Count the input of the text encoder while the posts are extracted."""
    assert extractor.relations is not None
    shapes: list[torch.Size] = []

    def note(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        given = options.get("inputs_embeds", options.get("input_ids"))
        shapes.append(given.shape[:2])

    hook = extractor.relations.network.backbone.text_encoder.encoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        ask(extractor, posts)
    finally:
        hook.remove()
    return Counted(len(shapes), sum(rows for rows, _ in shapes), sum(rows * length for rows, length in shapes))


def rate(extractor: Extractor, ask: Ask, posts: Sequence[Post]) -> float:
    """Posts per second: of CPU time on a CPU, of wall time on a GPU."""
    device = extractor.readers[0].device
    if device.type == "cpu":
        began = time.process_time()
        ask(extractor, posts)
        return len(posts) / (time.process_time() - began)
    clock = Clock(device)
    clock.start()
    ask(extractor, posts)
    return len(posts) / clock.seconds()


def measure(extractors: dict[str, Extractor], posts: Sequence[Post], repeats: int) -> str:
    """Run the measurements, and format the table."""
    rows = []
    for shown, subset in (
        ("text", [Post(post.text, entities=post.entities) for post in posts]),
        ("text and image", posts),
    ):
        for way, ask in WAYS.items():
            given = {markers: counted(extractor, ask, subset) for markers, extractor in extractors.items()}
            to_standard_error(f"{shown}, {way}")
            asked = {markers: partial(rate, extractor, ask, subset) for markers, extractor in extractors.items()}
            rates = {markers: spread(found) for markers, found in in_turns(asked, repeats, to_standard_error).items()}
            for markers in extractors:
                counts = [f"{number / len(posts):.2f}" for number in given[markers]]
                times = f"{rates[markers].median / rates[MARKERS[0]].median:.2f}"
                rows.append([shown, way, markers, *counts, rates[markers], times])
    head = ["of posts", "asked", "markers", "calls a post", "rows a post", "pieces a post", "posts a second", "times"]
    return table(head, rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements, and print the table; exit status 2 without a corpus or a pair of models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="two exports or runs, one of each")
    parser.add_argument("--text-encoder", default="pip:minilm-l6", help="of models of random weights")
    parser.add_argument("--image-encoder", default="pip:efficientnet-lite0")
    parser.add_argument("--posts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="a demo corpus")
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cpu":
        torch.set_num_threads(1)
    try:
        posts = posts_of(chosen.root, chosen.split, chosen.posts)
        extractors = models_of(chosen)
        print(f"{machine(torch.device(chosen.device))}\n")
        pairs = sum(len(post.entities or ()) for post in posts) / len(posts)
        print(f"{len(posts)} posts of {pairs:.1f} entities; {chosen.repeats} repeats\n")
        print(measure(extractors, posts, chosen.repeats))
    except MMIBError as error:
        print(f"pairs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
