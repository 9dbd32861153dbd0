"""Ground truth of each post, row and split of the corpus; no model reads it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from mmib.datamodules.demo.ceilings import expected_best_f1
from mmib.datamodules.demo.posteriors import View, entity_posteriors, relation_posteriors, relevance_posterior
from mmib.datamodules.demo.posts import LEVELS, Post

Posteriors = list[dict[str, float]]

_VIEWS: tuple[View, ...] = get_args(View)
_STORED: tuple[View, ...] = ("text", "multimodal")
_POSTERIORS: dict[str, Callable[[Post, View, float], Posteriors]] = {
    "mre": relation_posteriors,
    "mner": entity_posteriors,
}


def write_truth(root: Path, split: str, posts: list[Post], noise: float) -> None:
    """Write `demo/<split>.jsonl`, a line per post, and `demo/rows_<split>.jsonl`, a line per row of the MNRE file.

    Args:
        root: folder of the corpus.
        split: the split.
        posts: all posts of the split.
        noise: see `relation_posteriors`.
    """
    row = 0
    with (
        (root / "demo" / f"{split}.jsonl").open("w", encoding="utf-8") as post_file,
        (root / "demo" / f"rows_{split}.jsonl").open("w", encoding="utf-8") as row_file,
    ):
        for post in posts:
            numbers = list(range(row, row + len(post.pairs)))
            row += len(numbers)
            post_file.write(_json_line(_post_record(post, numbers, noise)))
            for record in _row_records(post, numbers, noise):
                row_file.write(_json_line(record))


def summarise(posts: list[Post], task: str, noise: float) -> dict[str, Any]:
    """Return counts and ceilings of a split for a task, overall and by level; for `noise` see `write_truth`."""
    asked = [post for post in posts if post.pairs] if task == "mre" else posts
    known = [(post, {view: _POSTERIORS[task](post, view, noise) for view in _VIEWS}) for post in asked]
    held = [level for level in LEVELS if any(post.level == level for post, _ in known)]
    levels = {level: _summary([entry for entry in known if entry[0].level == level], task) for level in held}
    return {**_summary(known, task), "levels": levels}


def _summary(known: list[tuple[Post, dict[View, Posteriors]]], task: str) -> dict[str, Any]:
    """`labels` is the number of pairs or entities to label; `open`, the number that the text alone leaves open."""
    told = {view: [posterior for _, posteriors in known for posterior in posteriors[view]] for view in _VIEWS}
    best = {view: expected_best_f1(told[view]) for view in _VIEWS}
    labels = len(told["text"])
    return {
        "rows": labels if task == "mre" else len(known),
        "labels": labels,
        "open": sum(len(posterior) > 1 for posterior in told["text"]),
        "images": sum(not post.missing for post, _ in known),
        # Irrelevant images among them.
        "noise": Counter(post.noise for post, _ in known if post.noise and not post.missing),
        "ceiling": {view: best[view] for view in _STORED},
        # The ceiling if all colours and props of hard images are known, but not who holds what: regions add this.
        "unbound": best["unbound"],
    }


def _post_record(post: Post, numbers: list[int], noise: float) -> dict[str, Any]:
    return {
        "id": post.identity,
        "level": post.level,
        "tokens": post.tokens,
        "entities": post.entities,
        "relations": [(pair.head, pair.tail, pair.relation) for pair in post.pairs],
        "image": None if post.missing else post.image,
        "noise": post.noise,
        "relevance_posterior": relevance_posterior(post, noise),
        "clauses": [
            {"family": clause.family, "theme": clause.theme, "colour": clause.colour} for clause in post.clauses
        ],
        "picture": dataclasses.asdict(post.picture),
        "rows": numbers,
        **{f"entity_posteriors_{view}": entity_posteriors(post, view, noise) for view in _STORED},
    }


def _row_records(post: Post, numbers: list[int], noise: float) -> Iterator[dict[str, Any]]:
    posteriors = zip(*(relation_posteriors(post, view, noise) for view in _STORED), strict=True)
    for number, pair, (text, multimodal) in zip(numbers, post.pairs, posteriors, strict=True):
        yield {
            "row": number,
            "post": post.identity,
            "level": post.level,
            "kind": pair.kind,
            "relation": pair.relation,
            "posterior_text": text,
            "posterior_multimodal": multimodal,
        }


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
