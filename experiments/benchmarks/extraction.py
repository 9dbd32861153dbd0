"""Posts per second of extraction: one call per post against one call for all posts, and the time of each stage.

    python -m experiments.benchmarks.extraction --model exports --posts 128

Both ways take turns on the same posts, from raw text and image files to results, with the model of entities alone and
with both models; their results must agree, or the benchmark stops. Posts are from the demo corpus with their own images
and, if a data root has them, real ones with generated images of 600 x 450 pixels. There are no crops: the extractor
uses a grid.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from experiments.benchmarks.corpus import DATA_ROOT, SPLIT, reader_of, write_set
from experiments.benchmarks.measure import Clock, in_turns, machine, spread, table, to_standard_error
from mmib.datamodules.demo import read_truth
from mmib.datamodules.demo.layouts import twitter_folders
from mmib.encoders.image import Runtime
from mmib.export.model import TrainedModel
from mmib.extract.extractor import POSTS, Extractor, Post, Precision, trained_models
from mmib.extract.pictures import in_threads
from mmib.extract.readers import Wanted, candidate_pairs
from mmib.extract.results import Extraction
from mmib.schema import ConfigError, MMIBError, task_named

# Confidences differ slightly, because matrix products of other shapes sum in another order.
TOLERANCE = 1e-3
DEMO = "demo"
NAMES = (DEMO, "twitter2015", "twitter2017")
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")
STAGES = ("read text, decode image", "scale and encode image", "find entities", "find relations")


def demo_posts(root: Path, count: int) -> list[Post]:
    """Read the first posts with an image from the demo corpus's test split."""
    images = twitter_folders(root, "test").images
    shown = [record for record in read_truth(root, "test") if record["image"] is not None]
    return [Post(" ".join(record["tokens"]), images / record["image"]) for record in shown[:count]]


def written_posts(folder: Path, name: str, count: int, data_root: Path) -> tuple[list[Post], str]:
    """Write posts of a Twitter set with generated images into a folder; return the posts and their source."""
    source = write_set(folder, name, count, data_root)
    reader = reader_of(folder, name)
    images = reader.image_folder(SPLIT)
    return [Post(" ".join(post.words), images / post.image) for post in reader.posts(SPLIT)], source


def check_same(alone: Sequence[Extraction], together: Sequence[Extraction]) -> None:
    """Check that both ways find the same entities and relations, with the same confidence up to rounding.

    Raises:
        RuntimeError: the results differ.
    """
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        for results in ("entities", "relations"):
            ours, theirs = getattr(one, results), getattr(other, results)
            same = sorted(map(_label, ours)) == sorted(map(_label, theirs))
            sure, surety = ({_label(found): found.confidence for found in side} for side in (ours, theirs))
            if not same or any(abs(sure[label] - surety[label]) > TOLERANCE for label in sure):
                raise RuntimeError(f"post {number}: one by one finds {ours}, together {theirs}")


def _label(found: object) -> tuple[object, ...]:
    names = ("start", "end", "type") if hasattr(found, "start") else ("head", "tail", "label")
    return tuple(getattr(found, name) for name in names)


def one_by_one(extractor: Extractor, posts: Sequence[Post]) -> list[Extraction]:
    """Extract with one call per post."""
    return [extractor.extract(post.text, post.image) for post in posts]


def rate(ask: Callable[[Sequence[Post]], list[Extraction]], posts: Sequence[Post], device: torch.device) -> float:
    """Posts per second."""
    clock = Clock(device)
    clock.start()
    ask(posts)
    return len(posts) / clock.seconds()


@torch.inference_mode()
def stages(extractor: Extractor, posts: Sequence[Post], size: int, device: torch.device) -> tuple[list[float], float]:
    """Milliseconds per post of each of `STAGES`, with `size` posts per batch, and the mean number of candidate pairs.

    A stage that these models do not have takes no time.
    """
    spent, pairs, clock = [0.0] * len(STAGES), 0, Clock(device)
    for start in range(0, len(posts), size):
        chunk = posts[start : start + size]
        clock.start()
        prepared = in_threads(extractor.prepare, chunk)
        seconds = [clock.seconds()]
        regions = extractor.look(prepared)
        seconds.append(clock.seconds())
        assert extractor.entities is not None
        read = extractor.entities.read(prepared, regions[extractor.entities.view_key], Wanted())
        found = [entities for entities, _ in read]
        seconds.append(clock.seconds())
        if extractor.relations is not None:
            extractor.relations.read(prepared, found, regions[extractor.relations.view_key], Wanted())
            pairs += sum(len(candidate_pairs(entities, extractor.relations.labels)) for entities in found)
        seconds.append(clock.seconds())
        for number, (before, after) in enumerate(itertools.pairwise([0.0, *seconds])):
            spent[number] += 1000 * (after - before) / len(posts)
    return spent, pairs / len(posts)


def measure(posts: Sequence[Post], extractors: dict[str, Extractor], arguments: argparse.Namespace) -> str:
    """Measure a set, and format its tables."""
    device = torch.device(arguments.device)
    blind = [Post(post.text) for post in posts]
    rows, parts = [], []
    for models, extractor in extractors.items():
        for shown, subset in (("text", blind), ("text and image", posts)):
            # Also serves as a warm-up.
            alone_and_together = one_by_one(extractor, subset), extractor.extract_batch(subset)
            if arguments.precision == "float32":  # in bf16, results depend on the other posts of the batch
                check_same(*alone_and_together)
            ways = {
                "one by one": partial(rate, partial(one_by_one, extractor), subset, device),
                "batch": partial(rate, extractor.extract_batch, subset, device),
            }
            to_standard_error(f"{models}, {shown}")
            rates = in_turns(ways, arguments.repeats, to_standard_error)
            alone, together = spread(rates["one by one"]), spread(rates["batch"])
            latency = f"{1000 / alone.median:.0f}"
            rows.append([models, shown, latency, alone, together, f"{together.median / alone.median:.2f}"])
            for size in (1, POSTS):
                spent, pairs = stages(extractor, subset, size, device)
                asked = f"{pairs:.1f}" if extractor.relations else ""
                parts.append([models, shown, size, *(f"{milliseconds:.1f}" for milliseconds in spent), asked])
    rated = table(["models", "of posts", "ms a single post", "one by one", "in batches", "times"], rows)
    spent_head = ["models", "of posts", "at a time", *STAGES, "pairs a post"]
    return f"Posts a second: median (range).\n\n{rated}\n\nMilliseconds a post.\n\n{table(spent_head, parts)}\n"


def extractors_of(models: Sequence[TrainedModel], device: str, precision: Precision) -> dict[str, Extractor]:
    """Extractors by name: entities only and, if there is a model of relations, both; images as their encoders specify.

    Raises:
        ConfigError: there is no model of entities.
    """
    alone = [model for model in models if task_named(model.task).finds == "entities"]
    if not alone:
        raise ConfigError("extraction begins with entities: name a model of them behind --model, or make export")
    found = {"entities": Extractor(alone, device, precision)}
    return found | ({"both": Extractor(models, device, precision)} if len(models) > 1 else {})


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements, and print the tables; exit status 2 without a model or corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("exports")], help="exports, or runs")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=NAMES[:2])
    parser.add_argument("--posts", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="the demo corpus")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else drawn posts serve")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="of image encoders")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of all else")
    chosen = parser.parse_args(arguments)
    try:
        models = [model for source in chosen.model for model in trained_models(source)]
        extractors: dict[str, Extractor] = {}
        for runtime in chosen.runtimes:
            copies = copy.deepcopy(models)
            for model in copies:
                model.image_encoder.run_by(runtime)
            named = extractors_of(copies, chosen.device, chosen.precision).items()
            extractors |= {f"{name}, images in {runtime}": extractor for name, extractor in named}
        print(f"{machine(torch.device(chosen.device))}\n")
        for name in chosen.sets:
            with tempfile.TemporaryDirectory() as folder:
                if name == DEMO:
                    posts, source = demo_posts(chosen.root, chosen.posts), "test posts of the demo corpus"
                else:
                    posts, source = written_posts(Path(folder), name, chosen.posts, chosen.data_root)
                print(f"### {name}\n\n{len(posts)} posts: {source}; {chosen.repeats} repeats\n", flush=True)
                print(measure(posts, extractors, chosen), flush=True)
    except MMIBError as error:
        print(f"extraction: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
