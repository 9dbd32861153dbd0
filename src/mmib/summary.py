"""What a run ends with: one table for people, `summary.json` and prediction files for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from datamodules.base import PostDataModule
from datamodules.demo import read_ceilings, read_levels
from datamodules.files import write_text
from mmib.metrics import RelationScores, f1_standard_error
from mmib.schema import RELATIONS

SPLITS = ("val", "test")
SCORES = {"precision": "precision", "recall": "recall", "f1": "F1", "f1_se": "± (s.e.)", "accuracy": "accuracy"}
VERSIONS = ("mmib", "torch", "pytorch-lightning", "transformers", "timm", "torchmetrics")

Predictions = dict[int, dict[str, Any]]


def versions() -> dict[str, str]:
    """Of Python and the packages that decide results."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}}


def score(predictions: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Precision, recall, F1 with its bootstrap standard error, and accuracy of records, as fractions."""
    predicted = torch.tensor([record["predicted"] for record in predictions], dtype=torch.long)
    gold = torch.tensor([record["gold"] for record in predictions], dtype=torch.long)
    metric = RelationScores()
    metric.update(predicted, gold)
    return {**metric.compute(), "f1_se": f1_standard_error(*metric.row_counts(predicted, gold))}


def describe_results(datamodule: PostDataModule, predictions: dict[str, Predictions]) -> dict[str, Any]:
    """Scores of each split that was evaluated, with ceilings and levels where the data set is the demo corpus."""
    result: dict[str, Any] = {
        split: score(list(predictions[split].values())) if predictions.get(split) else None for split in SPLITS
    }
    # Ceilings are those of the test rows where these are scored, else of the validation rows.
    ceiling_split = "test" if result["test"] else "val"
    ceilings = read_ceilings(datamodule.root, ceiling_split, "mre")
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
        levels = read_levels(datamodule.root, split, "mre") or []
        for level, described in result["levels"].items():
            own = [record for row, record in predictions[split].items() if levels[row] == level]
            described[split] = score(own) if own else None
    return result


def write_predictions(folder: Path, predictions: dict[str, Predictions]) -> None:
    """`predictions/<split>.jsonl`, a line a row in the order of the file: id, gold, predicted, scores."""
    for split, rows in predictions.items():
        lines = []
        for _, record in sorted(rows.items()):
            named = {key: RELATIONS[record[key]] for key in ("gold", "predicted") if key in record}
            scores = [round(value, 6) for value in record["scores"]]
            lines.append(json.dumps({"id": record["id"], **named, "scores": scores}) + "\n")
        write_text(folder / "predictions" / f"{split}.jsonl", "".join(lines))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """`summary.json` in the run's folder."""
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def print_summary(summary: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """The table, what it was measured on, and where everything lies; the last line is the path of the summary."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(_table(summary))
    for split, images in summary["images"].items():
        console.print(f"{split}: {images}")
    if summary["test"] is None:
        console.print("test: no test split was scored")
    selected = summary["selected"]
    if selected is not None:
        console.print(f"selected epoch {selected['epoch']} on {selected['split']} ({selected['metric']})")
        console.print(f"checkpoint: {selected['checkpoint']}")
    console.print(f"log: {folder / 'metrics.csv'}")
    console.print(f"configuration: {folder / 'config.yaml'}")
    console.print(f"summary: {folder / 'summary.json'}")


def _table(summary: dict[str, Any]) -> Table:
    """At most 80 columns wide, so that nothing wraps in a plain terminal or a log file."""
    title = f"{summary['task']} on {summary['corpus']}, seed {summary['seed']} (percent)"
    table = Table(title=title, collapse_padding=True, pad_edge=False)
    table.add_column("split", no_wrap=True)
    ceilings = ["best with\ntext", "best with\ntext and\nimage"] if "ceiling" in summary else []
    for heading in [*SCORES.values(), *ceilings]:
        table.add_column(heading, justify="right", no_wrap=True)
    for split in SPLITS:
        _add_row(table, split, summary[split], _ceiling_of(summary.get("ceiling"), split))
        for level, described in summary.get("levels", {}).items():
            same = {**described["ceiling"], "split": summary["ceiling"]["split"]}
            _add_row(table, f"{split}, {level}", described[split], _ceiling_of(same, split))
    return table


def _ceiling_of(ceiling: dict[str, Any] | None, split: str) -> list[str]:
    if ceiling is None:
        return []
    if ceiling["split"] != split:
        return ["", ""]
    return [f"{100 * ceiling[key]:.1f}" for key in ("text", "multimodal")]


def _add_row(table: Table, name: str, scores: dict[str, float] | None, ceiling: list[str]) -> None:
    if scores is not None:
        table.add_row(name, *(f"{100 * scores[key]:.1f}" for key in SCORES), *ceiling)
