"""Score joint extraction on the demo corpus as triples: one model finds entities, the other relations.

    python -m experiments.joint --model exports --root data/demo

Posts are given as raw text with their images. A triple is correct if the spans of head and tail, the relation and the
direction are; docs/how-to/extract.md explains the columns.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarks.measure import machine, table, to_standard_error
from mmib.analysis.triples import Counted, Fault, Lack, PostTriples, Triple, count_faults, count_lacks, count_mentions
from mmib.analysis.triples import count_triples as count
from mmib.base.files import write_text
from mmib.datamodules.crops import CropFiles, Crops, image_name
from mmib.datamodules.demo import read_truth
from mmib.datamodules.demo.layouts import twitter_folders
from mmib.datamodules.released import NO_RELATION
from mmib.export.model import TrainedModel
from mmib.extract.extractor import POSTS, Extractor, Post, trained_models
from mmib.extract.results import Extraction
from mmib.schema import Box, ConfigError, MMIBError

OBJECTS = "image and its objects"
IMAGES = (OBJECTS, "image alone", "no image")
GIVEN, FOUND = "given", "found"
ALL = "all"
READINGS = ("F1 on annotated pairs", "F1 of compatible ones", "F1 with types")
# Posts between two progress messages.
TURN = 8 * POSTS


@dataclass(frozen=True)
class Known:
    """A post of the demo corpus with its gold annotation.

    Attributes:
        level: easy or hard.
        text: its words, separated by spaces.
        image: path of its image; None without one.
        boxes: boxes of the objects in the image.
        entities: start and end in characters, and type of each entity.
        pairs: head and tail (indices of entities) and relation of each annotated pair, None relations included.
    """

    level: str
    text: str
    image: Path | None
    boxes: list[Box]
    entities: list[tuple[int, int, str]]
    pairs: list[tuple[int, int, str]]

    def post(self, image: str, entities: str) -> Post:
        """Return the part of the post that the extractor sees in this condition."""
        given = self.entities if entities == GIVEN else None
        if image not in IMAGES[:2] or self.image is None:
            return Post(self.text, entities=given)
        return Post(self.text, self.image, self.boxes if image == OBJECTS else None, given)

    def judged(self, result: Extraction, typed: bool = False, compatible: bool = False) -> PostTriples:
        """Pair the extraction with the gold annotation.

        Args:
            result: the extraction.
            typed: include entity types in the mentions.
            compatible: drop relations that do not fit the types of their entities.
        """

        def mention(start: int, end: int, name: str | None) -> tuple[Any, ...]:
            return (start, end, name) if typed else (start, end)

        true = [mention(*entity) for entity in self.entities]
        found = [mention(entity.start, entity.end, entity.type) for entity in result.entities]
        return PostTriples(
            mentions=true,
            annotated=[Triple(true[head], relation, true[tail]) for head, tail, relation in self.pairs],
            found=found,
            predicted=[
                Triple(found[relation.head], relation.label, found[relation.tail])
                for relation in result.relations
                if relation.compatible or not compatible
            ],
            negative=NO_RELATION,
        )


def read_known(root: Path, split: str) -> list[Known]:
    """Read the posts of a split of the demo corpus, including those without entities.

    Raises:
        DataError: `root` is not a demo corpus.
    """
    records = read_truth(root, split)
    folders = twitter_folders(root, split)
    listed = CropFiles(root / "twitter2017" / f"twitter2017_{split}_dict.pth", folders.crops.parent)
    crops = Crops.listed(listed, image_name)
    return [_known(record, folders.images, crops) for record in records]


def _known(record: dict[str, Any], images: Path, crops: Crops) -> Known:
    words, starts = record["tokens"], [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    name = record["image"]
    return Known(
        level=record["level"],
        text=" ".join(words),
        image=None if name is None else images / name,
        boxes=[] if name is None else [picture.box for picture in crops.pictures(name, most=len(crops.boxes))],
        entities=[(starts[first], starts[end] - 1, name) for first, end, name in record["entities"]],
        pairs=[(head, tail, relation) for head, tail, relation in record["relations"]],
    )


Results = dict[tuple[str, str], list[Extraction]]


def extract_all(extractor: Extractor, posts: Sequence[Known], progress: Callable[[str], None]) -> Results:
    """Extract from each post in each condition: what is shown of the image, and whether entities are given or found."""
    results: Results = {}
    for image in IMAGES:
        for entities in (GIVEN, FOUND):
            found: list[Extraction] = []
            for start in range(0, len(posts), TURN):
                found += extractor.extract_batch([known.post(image, entities) for known in posts[start : start + TURN]])
                progress(f"{image}, entities {entities}: {len(found)} of {len(posts)} posts")
            results[image, entities] = found
    return results


def score_rows(posts: Sequence[Known], results: Results) -> list[list[str]]:
    """A row per condition and level: all triples, those on annotated pairs, compatible ones, and with entity types."""
    rows = []
    for (image, entities), found in results.items():
        for level in (ALL, *dict.fromkeys(known.level for known in posts)):
            pairs = [pair for pair in zip(posts, found, strict=True) if level in (ALL, pair[0].level)]
            judged = [known.judged(result) for known, result in pairs]
            readings = (
                [post.on_annotated_pairs() for post in judged],
                [known.judged(result, compatible=True) for known, result in pairs],
                [known.judged(result, typed=True) for known, result in pairs],
            )
            others = [_percent(count(reading).scores.f1) for reading in readings]
            rows.append([image, entities, level, *_scores(count(judged)), *others])
    return rows


def entity_rows(posts: Sequence[Known], results: Results) -> list[list[str]]:
    """Scores of found entities per image condition, by span, and by span and type."""
    rows = []
    for (image, entities), found in results.items():
        if entities == FOUND:
            for name, typed in (("span", False), ("span and type", True)):
                pairs = zip(posts, found, strict=True)
                rows.append(
                    [image, name, *_scores(count_mentions(known.judged(result, typed) for known, result in pairs))]
                )
    return rows


def reason_rows(posts: Sequence[Known], results: Results) -> list[list[str]]:
    """Count correct, false and missed triples by reason, in the condition with image and objects."""
    judged = {
        entities: [known.judged(result) for known, result in zip(posts, results[OBJECTS, entities], strict=True)]
        for entities in (GIVEN, FOUND)
    }
    faults = [count_faults(posts) for posts in judged.values()]
    lacks = [count_lacks(posts) for posts in judged.values()]
    rows: dict[str, list[int]] = {"right": [sum(count(posts).correct) for posts in judged.values()]}
    rows |= {f"false: {reason}": [counter[reason] for counter in faults] for reason in Fault}
    rows |= {f"missed: {reason}": [counter[reason] for counter in lacks] for reason in Lack}
    return [[name, *map(str, counts)] for name, counts in rows.items()]


def _scores(counted: Counted) -> list[str]:
    scores = counted.scores
    values = (scores.precision, scores.recall)
    return [*map(_percent, values), f"{_percent(scores.f1)} ± {_percent(counted.f1_error)}"]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def model_rows(models: Iterable[TrainedModel]) -> list[list[str]]:
    """Facts about each model's training, from its card."""
    rows = []
    for model in models:
        test = (model.card.get("test") or {}).get("f1")
        known = [str(model.card.get(name, "unknown")) for name in ("experiment", "corpus", "seed")]
        rows.append([model.task, *known, "not scored" if test is None else _percent(test)])
    return rows


def describe(posts: Sequence[Known], results: Results, models: Sequence[TrainedModel], command: str) -> str:
    """Format the page of tables, in Markdown."""
    pairs = [relation for known in posts for _, _, relation in known.pairs]
    entities = sum(len(known.entities) for known in posts)
    gold = len(pairs) - pairs.count(NO_RELATION)
    scored = ["precision", "recall", "F1 ± s.e."]
    return f"""# Joint extraction as triples

`{command}`

{machine()}

{table(["task", "experiment", "corpus", "seed", "F1 of its own test split"], model_rows(models))}

{len(posts):,} posts with {entities:,} entities and {len(pairs):,} annotated pairs, {gold:,} of them related; percent.
[docs/how-to/extract.md](../../docs/how-to/extract.md) explains the columns.

{table(["image", "entities", "level", *scored, *READINGS], score_rows(posts, results))}

## Entities as they were found

{table(["image", "right in", *scored], entity_rows(posts, results))}

## What the triples are, with {OBJECTS}

{table(["", "entities given", "entities found"], reason_rows(posts, results))}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 2 with one message if extraction fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[Path("exports")], help="export, or a run of each task"
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="the demo corpus")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--posts", type=int, help="the first so many alone, to try it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", type=Path, default=Path("experiments/results/joint.md"))
    arguments = sys.argv[1:] if argv is None else list(argv)
    chosen = parser.parse_args(arguments)
    try:
        posts = read_known(chosen.root, chosen.split)[: chosen.posts]
        models = [model for source in chosen.model for model in trained_models(source)]
        extractor = Extractor(models, chosen.device)
        if extractor.entities is None or extractor.relations is None:
            raise ConfigError(
                "joint extraction takes a model of entities and one of relations: name both behind --model, or make "
                "export"
            )
        results = extract_all(extractor, posts, to_standard_error)
        page = describe(posts, results, models, shlex.join(["python", "-m", "experiments.joint", *arguments]))
        write_text(chosen.table, page)
    except MMIBError as error:
        print(f"joint: {error}", file=sys.stderr)
        return 2
    print(page)
    print(f"tables: {chosen.table}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
