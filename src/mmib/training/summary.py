"""Results of a run: printed tables, `summary.json`, and prediction files."""

from __future__ import annotations

import json
import math
import platform
import textwrap
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmib.analysis.slices import breakdown
from mmib.base.files import write_text
from mmib.base.resampling import standard_error
from mmib.base.revision import revision
from mmib.base.timing import duration
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.demo import read_ceilings, read_levels
from mmib.labels import NEGATIVE, LabelSet
from mmib.metrics import label_tensor
from mmib.records import Record, TrainingItems
from mmib.runs.reader import LABELS, TRAINING
from mmib.schema import Task, task_named
from mmib.scores import few_items

SPLITS = ("val", "test")
# Width of the printed summary; only paths may be longer.
COLUMNS = 80
CLASS_COLUMNS = ("precision", "recall", "f1")
VERSIONS = ("mmib", "torch", "pytorch-lightning", "transformers", "timm", "torchmetrics")

Predictions = dict[int, dict[str, Any]]


def versions() -> dict[str, str]:
    """Return the versions of Python, key packages and the code: `git`, its commit, and `code`, a digest of it."""
    packages = {name: metadata.version(name) for name in VERSIONS}
    state = revision()
    git = {"git": state.git} if state.git else {}
    return {"python": platform.python_version(), **packages, **git, "code": state.digest}


def score(task: Task, labels: LabelSet, predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a task's scores of records as fractions, the bootstrap standard error of F1, and the scores by class."""
    predicted, gold = (label_tensor([record[key] for record in predictions]) for key in ("predicted", "gold"))
    metric = task.metric(labels, sync_on_compute=False)  # predictions of all ranks are already gathered
    metric.update(predicted, gold)
    above, below = metric.row_parts(predicted, gold, "f1")
    error = standard_error(above.numpy(), below.numpy())
    return {**metric.compute(), "f1_se": error, "classes": metric.per_class()}


def describe_results(
    task: Task, labels: LabelSet, datamodule: PostDataModule, predictions: dict[str, Predictions]
) -> dict[str, Any]:
    """Return the scores of each evaluated split and, for the demo corpus, ceilings and scores by level."""
    result: dict[str, Any] = {
        split: score(task, labels, list(predictions[split].values())) if predictions.get(split) else None
        for split in SPLITS
    }
    # Ceilings are those of the test split if it is scored, else of the validation split.
    ceiling_split = "test" if result["test"] else "val"
    ceilings = read_ceilings(datamodule.root, ceiling_split, task.name)
    if ceilings is None:
        return result
    result["ceiling"] = {"split": ceiling_split, "text": ceilings["text"], "multimodal": ceilings["multimodal"]}
    result["levels"] = {
        level: {"rows": part["rows"], "ceiling": part["ceiling"], **dict.fromkeys(SPLITS)}
        for level, part in ceilings["levels"].items()
    }
    for split in SPLITS:
        if not predictions.get(split):
            continue
        levels = read_levels(datamodule.root, split, task.name) or []
        for level, described in result["levels"].items():
            records = [record for row, record in predictions[split].items() if levels[row] == level]
            described[split] = score(task, labels, records) if records else None
    return result


def describe_slices(
    task: Task,
    labels: LabelSet,
    records: dict[str, list[Record]],
    training: TrainingItems | None,
    own_images: bool,
) -> dict[str, Any]:
    """Return the `breakdown` of each evaluated split.

    Args:
        task: the task.
        labels: the label set.
        records: records of each split, as in prediction files.
        training: gold items of the model's training rows, if known.
        own_images: whether the model saw the posts' own images.
    """
    return {
        split: breakdown(task, labels, records[split], training, own_images) if records.get(split) else None
        for split in SPLITS
    }


def readable_predictions(
    task: Task, labels: LabelSet, datamodule: PostDataModule, predictions: dict[str, Predictions]
) -> dict[str, list[Record]]:
    """Return the records of each split as described in docs/reference/predictions.md, in the order of the file."""
    names = task.outputs(labels)
    return {
        split: [_readable(task, names, record, datamodule.describe(split, row)) for row, record in sorted(rows.items())]
        for split, rows in predictions.items()
    }


def write_predictions(folder: Path, labels: LabelSet, records: dict[str, list[Record]]) -> None:
    """Write `predictions/<split>.jsonl`, with a line per row, and the label set, `predictions/labels.json`.

    Each row names the revision of the code, because prediction files are copied elsewhere.
    """
    write_text(folder / "predictions" / LABELS, json.dumps(labels.to_dict(), indent=2) + "\n")
    for split, rows in records.items():
        lines = [json.dumps({**record, "code": str(revision())}, allow_nan=False) + "\n" for record in rows]
        write_text(folder / "predictions" / f"{split}.jsonl", "".join(lines))


def write_training(folder: Path, training: TrainingItems) -> None:
    """Write `training.json` to the run's folder: the gold items of the training rows, needed for slices."""
    write_text(folder / TRAINING, json.dumps(training.to_dict()) + "\n")


def _readable(task: Task, names: Sequence[str], record: Record, post: dict[str, Any]) -> Record:
    """Convert a record: label ids to names, the post added, and the evidence without padding."""
    words, regions = len(post["words"]), len(post["boxes"])
    kl = record["kl"] + [math.nan] * (words - len(record["kl"]))
    result = {"id": record["id"], **post, "boxes": _rounded(post["boxes"], 4)}
    result |= {key: _named(names, record[key]) for key in ("gold", "predicted") if key in record}
    result |= {key: _rounded(record[key], 6) for key in ("scores", "confidence") if key in record}
    result |= {"kl": _rounded(kl[:words], 4), "kl_image": _rounded(record["kl_image"][:regions], 4)}
    if "similarity" in record:
        result["similarity"] = _rounded(record["similarity"], 4)
    if regions and "attention" in record:
        rows = [weights[:regions] for weights in record["attention"][: task.attention_rows(words)]]
        result["attention"] = [None if math.isnan(weights[0]) else _rounded(weights, 4) for weights in rows]
    return result


def _named(names: Sequence[str], label: Any) -> Any:
    return [_named(names, each) for each in label] if isinstance(label, list) else names[label]


def _rounded(values: Any, digits: int) -> Any:
    """Round numbers for JSON; None for those that are not finite."""
    if isinstance(values, list | tuple):
        return [_rounded(value, digits) for value in values]
    return round(values, digits) if math.isfinite(values) else None


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` to the run's folder."""
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def print_summary(summary: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print the tables, the evaluated data, and the paths of all files; the last line is the path of the summary."""
    # Without markup: labels, paths and the names of plugins' scores may hold brackets.
    console = console or Console(markup=False, highlight=False, soft_wrap=True)
    console.print(_table(summary))
    if summary["test"] or summary["val"]:
        console.print(_class_table(summary))
        _print_slices(summary, console)
    if summary.get("bottleneck"):
        console.print(_bottleneck_table(summary["bottleneck"]))
        for line in bottleneck_lines(summary["bottleneck"]):
            console.print(textwrap.fill(line, COLUMNS, break_on_hyphens=False))
    for split in SPLITS:
        if summary[split] and (caution := few_items(summary[split]["classes"], summary["labels"].get(NEGATIVE))):
            console.print(f"{split}: {caution}")
    for split, images in summary["images"].items():
        console.print(f"{split}: {images}")
    if summary["test"] is None:
        console.print("test: no test split was scored")
    selected = summary["selected"]
    if selected is not None:
        console.print(f"selected epoch {selected['epoch']} on {selected['split']} ({selected['metric']})")
        console.print(f"checkpoint: {selected['checkpoint']}")
    if summary.get("seconds"):
        # No-break spaces prevent line breaks within a time.
        times = (f"{name} {duration(seconds)}".replace(" ", "\xa0") for name, seconds in summary["seconds"].items())
        lines = textwrap.fill(f"time: {', '.join(times)}", COLUMNS, subsequent_indent="      ")
        console.print(lines.replace("\xa0", " "))
    if selected is not None:
        console.print(f"next: mmib report {folder}\n      mmib export {folder} -o exports")
    if (folder / "metrics.csv").is_file():
        console.print(f"log: {folder / 'metrics.csv'}")
    console.print(f"configuration: {folder / 'config.yaml'}")
    console.print(f"summary: {folder / 'summary.json'}")


def _table(summary: dict[str, Any]) -> Table:
    """Return the table of scores, at most 80 columns wide, so that it does not wrap in a terminal or a log file."""
    title = f"{summary['task']} on {summary['corpus']}, seed {summary['seed']} (percent)"
    table = Table(title=title, collapse_padding=True, pad_edge=False)
    table.add_column("split", no_wrap=True)
    ceilings = ["best with\ntext", "best with\ntext and\nimage"] if "ceiling" in summary else []
    columns = task_named(summary["task"]).columns
    for heading in [*columns.values(), *ceilings]:
        table.add_column(heading, justify="right", no_wrap=True)
    for split in SPLITS:
        _add_row(table, columns, split, summary[split], _ceiling_of(summary.get("ceiling"), split))
        for level, described in summary.get("levels", {}).items():
            same = {**described["ceiling"], "split": summary["ceiling"]["split"]}
            _add_row(table, columns, f"{split}, {level}", described[split], _ceiling_of(same, split))
    return table


def _ceiling_of(ceiling: dict[str, Any] | None, split: str) -> list[str]:
    if ceiling is None:
        return []
    if ceiling["split"] != split:
        return ["", ""]
    return [f"{100 * ceiling[key]:.1f}" for key in ("text", "multimodal")]


def _add_row(
    table: Table, columns: Iterable[str], name: str, scores: dict[str, float] | None, ceiling: list[str]
) -> None:
    if scores is not None:
        table.add_row(name, *(f"{100 * scores[key]:.1f}" for key in columns), *ceiling)


def _bottleneck_table(bottleneck: dict[str, dict[str, Any]]) -> Table:
    """Return the table of rates in nats at start and end, with betas and gradient ratios."""
    table = Table(title="bottleneck (nats; start to end)", collapse_padding=True, pad_edge=False)
    table.add_column("latents", no_wrap=True)
    for heading in ("a position", "a post", "standard\ndeviation", "beta", "share of\nthe loss", "gradient\nto task's"):
        table.add_column(heading, justify="right", no_wrap=True)
    for modality, described in bottleneck.items():
        rates = (
            f"{found['start']:,.0f} to {found['end']:,.0f}" for found in (described["rate"], described["rate_post"])
        )
        ratios = described["gradient_ratios"]
        table.add_row(
            modality,
            *rates,
            f"{described['std']:.2f}",
            f"{described['beta']:.2g}",
            f"{100 * described['share']:.1f} %",
            f"{ratios[-1]['ratio']:.2g}" if ratios else "",
        )
    return table


def bottleneck_lines(bottleneck: dict[str, dict[str, Any]]) -> list[str]:
    """Return cautions on the bottleneck: that it is off, inert, or collapsed."""
    lines = []
    for modality, described in bottleneck.items():
        if described["beta"] == 0:
            lines.append(f"{modality}: beta is 0: without a penalty on the rate there is no bottleneck")
        if described["inert"]:
            lines.append(
                f"{modality}: the bottleneck is inert: it does not compress. The scores are valid. Train longer "
                f"or raise beta_{modality} if it should (docs/explanation/information.md)"
            )
        if described["collapsed_at"] is not None:
            lines.append(f"{modality}: the rate collapsed at step {described['collapsed_at']}; lower beta_{modality}")
    return lines


def _class_table(summary: dict[str, Any]) -> Table:
    """Return the table of classes, of the test split or, if that was not scored, of validation."""
    split = "test" if summary["test"] else "val"
    return _scores_by("class", split, summary[split]["classes"])


def _print_slices(summary: dict[str, Any], console: Console) -> None:
    """Print the table of slices of the same split, and why others are not in it."""
    split = "test" if summary["test"] else "val"
    found = summary.get("slices", {}).get(split) or {"groups": [], "unavailable": {}}
    if found["groups"]:
        groups = {f"{scores['slice']}: {scores['group']}": scores for scores in found["groups"]}
        console.print(_scores_by("slice", split, groups))
    for name, reason in found["unavailable"].items():
        console.print(f"no slices by {name}: {reason}")


def _scores_by(what: str, split: str, parts: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"by {what}, {split} (percent)", pad_edge=False)
    table.add_column(what, no_wrap=True)
    for heading in ("precision", "recall", "F1", "gold"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, scores in parts.items():
        table.add_row(name, *(f"{100 * scores[key]:.1f}" for key in CLASS_COLUMNS), f"{scores['gold']:,}")
    return table
