"""Read predictions for review, from the prediction files of runs or from the output of `mmib extract`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmib.base.files import parse_json
from mmib.datamodules.convert import json_lines
from mmib.datamodules.convert.lines import objects
from mmib.datamodules.convert.options import Options
from mmib.datamodules.convert.posts import Notes
from mmib.labels import LabelSet
from mmib.records import Proposal, Record
from mmib.runs.reader import LABELS, FinishedRun, read_run
from mmib.schema import ConfigError, DataError, RunError, Span, Task, task_named


@dataclass(frozen=True)
class Evidence:
    """Evidence for an entity or relation.

    Attributes:
        regions: boxes x0 y0 x1 y1 in 0..1 of the image's regions, zeros if unknown.
        weights: attention over them, which sums to 1.
        similarity: similarity of text and image; None if unknown.
    """

    regions: list[list[float]]
    weights: list[float]
    similarity: float | None = None


@dataclass(frozen=True)
class Entity:
    """An entity: character span [start, end) and type; the type is None if entities have none."""

    start: int
    end: int
    type: str | None
    confidence: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Relation:
    """A relation between two entities, given by their indices."""

    head: int
    tail: int
    type: str
    confidence: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Annotation:
    """The entities and relations of a post."""

    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)


@dataclass(frozen=True)
class Post:
    """A post with a model's proposal.

    Attributes:
        row: row number in the file of the posts.
        content: fields of a correction besides the annotation: `tokens` or `text`, `image` and `id`.
        text: the text of the post.
        words: character spans [start, end) of its words; empty if unknown.
        proposal: entities and relations that the model predicted.
        certainty: 0 to 1, see `mmib.records.Proposal`; None without predicted entities or relations.
        kl: KL divergence of each word's latents in nats; empty if unknown.
    """

    row: int
    content: dict[str, Any]
    text: str
    words: list[Span]
    proposal: Annotation
    certainty: float | None
    kl: list[float | None] = field(default_factory=list)

    @property
    def image(self) -> str:
        """Name of its image; empty without one."""
        return str(self.content.get("image") or "")


@dataclass(frozen=True)
class Predictions:
    """The predictions of a file.

    Attributes:
        posts: sorted by certainty, the least certain first.
        types: entity types to choose from; empty if the entities are given.
        relations: relations to choose from; empty if there are none to review.
        negative: the negative class of the relations.
        root: the folder of the images, if known.
    """

    posts: list[Post]
    types: tuple[str, ...]
    relations: tuple[str, ...] = ()
    negative: str | None = None
    root: Path | None = None


def read_predictions(
    path: Path,
    task: str | None = None,
    posts: Path | None = None,
    types: Sequence[str] = (),
    relations: Sequence[str] = (),
) -> Predictions:
    """Read the predictions of a file.

    Args:
        path: `predictions/SPLIT.jsonl` of a run, or output of `mmib extract`.
        task: name of the task, for a run without a summary, such as one of `mmib predict`.
        posts: the input of `mmib extract`, which names the images.
        types, relations: more labels to choose from, besides those in the output of `mmib extract`.

    Raises:
        ConfigError: options that do not apply to the file, or a missing task.
        DataError, RunError: the file cannot be read, or is neither of these.
        TaskError: the task is not registered, or finds neither entities nor relations.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file of predictions, such as {path}/predictions/test.jsonl")
    _, first = next(objects(path), ("", {}))
    if not first:
        raise DataError(f"{path} is empty: name a file of predictions")
    if "predicted" in first:
        if posts is not None or types or relations:
            raise ConfigError(
                f"{path} is of a run, which knows its labels and images: leave out --posts, --types and --relations"
            )
        return _of_run(path, task)
    if not first.keys() >= {"row", "text", "entities"} and "error" not in first:
        raise DataError(f"{path} holds no predictions: name a file of a run's predictions/, or one of mmib extract")
    return _of_extraction(path, posts, types, relations)


# Prediction files of runs


def _of_run(path: Path, name: str | None) -> Predictions:
    folder = path.parent.parent
    if (folder / "summary.json").is_file():
        run = read_run(folder)
        task, labels = run.registered_task(), run.labels
    else:
        if name is None:
            raise ConfigError(f"{folder} has no summary.json, which names the task: add --task mner or --task mre")
        run = FinishedRun(folder, {"task": name, "labels": _labels(path.with_name(LABELS))})
        task, labels = task_named(name), run.labels
    root = run.image_root if (folder / "config.yaml").is_file() else None
    records = run.predictions(path.stem)
    with run.interpreting(path.stem):
        posts = [_of_records(task, labels, group) for group in _grouped(task, records)]
    if task.finds == "entities":
        return Predictions(_least_certain_first(posts), labels.names, root=root)
    return Predictions(_least_certain_first(posts), (), labels.names, labels.negative, root)


def _labels(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read, and names the labels: {error}; predict again") from error


def _grouped(task: Task, records: Iterable[Record]) -> list[list[Record]]:
    """Group the records by post: in relation extraction, each pair of entities of a post has its own record."""
    if task.finds == "entities":
        return [[record] for record in records]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((*record["words"], record.get("image")), []).append(record)
    return list(groups.values())


def _of_records(task: Task, labels: LabelSet, records: list[Record]) -> Post:
    first = records[0]
    tokens = [str(word) for word in first["words"]]
    words: list[Span] = []
    for token in tokens:
        start = words[-1][1] + 1 if words else 0
        words.append((start, start + len(token)))
    proposals = [task.proposal(record, labels) for record in records]
    image = first.get("image")
    return Post(
        row=first["id"],
        content={"tokens": tokens, **({"image": str(image)} if image else {})},
        text=" ".join(tokens),
        words=words,
        proposal=_annotation(zip(records, proposals, strict=True), words),
        certainty=min((p.certainty for p in proposals if p.certainty is not None), default=None),
        kl=first.get("kl") or [],
    )


def _annotation(proposed: Iterable[tuple[Record, Proposal]], words: Sequence[Span]) -> Annotation:
    """Entities from their word spans, without duplicates, and the relations between them."""
    found = [(record, finding) for record, proposal in proposed for finding in proposal.findings]
    entities: dict[Span, Entity] = {}
    for record, finding in found:
        for start, end in finding.spans:
            if not 0 <= start < end <= len(words):
                raise ValueError(f"words {start} to {end} of {len(words)}")
        if len(finding.spans) == 1:
            ((start, end),) = finding.spans
            entities[start, end] = Entity(
                words[start][0],
                words[end - 1][1],
                finding.label or None,
                finding.confidence,
                _evidence(record, finding.positions),
            )
    order = sorted(entities, key=lambda span: (span[0], -span[1]))
    relations = [
        Relation(
            order.index(finding.spans[0]),
            order.index(finding.spans[1]),
            finding.label,
            finding.confidence,
            _evidence(record, finding.positions),
        )
        for record, finding in found
        if len(finding.spans) > 1
    ]
    return Annotation([entities[span] for span in order], relations)


def _evidence(record: Record, positions: Sequence[int]) -> Evidence | None:
    attention = record.get("attention") or []
    rows = [attention[place] for place in positions if attention[place] is not None] if attention else []
    return _looking(record.get("boxes") or [], rows, record.get("similarity"))


def _looking(regions: list[list[float]], rows: Sequence[Any], similarity: float | None) -> Evidence | None:
    """Evidence from the mean of attention rows."""
    if not rows or not regions:
        return None
    weights = np.asarray(rows, dtype=np.float64)
    if weights.shape[1:] != (len(regions),):
        raise ValueError("'attention' must have one weight for each region")
    return Evidence(regions, weights.mean(axis=0).round(4).tolist(), similarity)


# Output of `mmib extract`


def _of_extraction(path: Path, posts: Path | None, types: Sequence[str], relations: Sequence[str]) -> Predictions:
    lines = dict(objects(path))
    found = []
    places: dict[int, str] = {}
    for post in json_lines.read(path, Options(posts=posts), Notes()):
        line = lines[post.place]
        # Only a file that was changed raises these errors: the output of mmib extract can be read.
        try:
            evidence = line.get("evidence")
            entities = [
                Entity(*mention, _entity_evidence(evidence, mention.start, mention.end)) for mention in post.entities
            ]
            links = [
                Relation(*link, _relation_evidence(relation.get("evidence")))
                for link, relation in zip(post.relations, line["relations"], strict=True)
            ]
            words = [(start, end) for start, end in evidence["tokens"]] if evidence else []
            kl = evidence["kl"] if evidence else []
            row = line["row"]
            first = places.setdefault(row, post.place)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, {post.place} is damaged ({type(error).__name__}: {error}): extract the posts again"
            ) from error
        if first != post.place:
            raise DataError(
                f"{path}, {first} and {post.place} are both of row {row}, as in outputs that were joined: review each "
                "output by itself, or extract from one file of all posts"
            )
        content = {"id": post.id, "text": post.text, "image": post.image}
        found.append(
            Post(
                row=row,
                content={name: value for name, value in content.items() if value not in (None, "")},
                text=post.text,
                words=words,
                proposal=Annotation(entities, links),
                certainty=min(post.confidences(), default=None),
                kl=kl,
            )
        )
    if not found:
        raise DataError(f"{path} holds no post that anything could be extracted from: its lines say why")
    all_types = {entity.type: None for post in found for entity in post.proposal.entities if entity.type}
    all_relations = {relation.type: None for post in found for relation in post.proposal.relations}
    return Predictions(
        _least_certain_first(found),
        tuple(dict.fromkeys([*sorted(all_types), *types])),
        tuple(dict.fromkeys([*sorted(all_relations), *relations])),
        root=None if posts is None else posts.parent,
    )


def _entity_evidence(evidence: Any, start: int, end: int) -> Evidence | None:
    if not evidence or not evidence["attention"]:
        return None
    rows = [
        row
        for row, (first, last) in zip(evidence["attention"], evidence["tokens"], strict=True)
        if row is not None and first >= start and last <= end
    ]
    return _looking(evidence["regions"], rows, evidence["similarity"])


def _relation_evidence(evidence: Any) -> Evidence | None:
    if not evidence:
        return None
    rows = [row for row in evidence["attention"] if row is not None]
    return _looking(evidence["regions"], rows, evidence["similarity"])


def _least_certain_first(posts: list[Post]) -> list[Post]:
    """Sort by certainty; posts without predicted entities or relations come last."""
    return sorted(posts, key=lambda post: (2.0 if post.certainty is None else post.certainty, post.row))
