"""Finished runs of a toy model of relation extraction that predicts a given share of the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmib.datamodules.released import MNRE
from mmib.runs.reader import FinishedRun, read_run

ROWS = 60
RELATIONS = MNRE.names
GOLD = np.random.default_rng(0).integers(0, 5, ROWS)


def make_run(
    root: Path, name: str, seed: int | None, skill: float = 0.7, settings: dict[str, Any] | None = None, **changes: Any
) -> FinishedRun:
    """A finished run of relation extraction that predicts a given share of the labels."""
    folder = root / name / f"seed{seed}"
    (folder / "predictions").mkdir(parents=True)
    random = np.random.default_rng([seed or 0, int(100 * skill)])
    predicted = np.where(random.random(ROWS) < skill, GOLD, random.integers(0, 5, ROWS))
    summary = {
        **{"task": "mre", "corpus": "toy", "experiment": name, "seed": seed, "val": None, "test": {}},
        "selected": {"epoch": 1},
        **{"data": {"test": {"rows": ROWS, "sha256": "0123456789abcdef" * 4}}, "versions": {"mmib": "0.1.0"}},
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    config = {"name": name, "seed_everything": seed, "model": {"init_args": {"gamma": 0.5, **(settings or {})}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    pairs = enumerate(zip(GOLD.tolist(), predicted.tolist(), strict=True))
    write_records(folder, [{"id": row, "gold": RELATIONS[a], "predicted": RELATIONS[b]} for row, (a, b) in pairs])
    return read_run(folder)


def write_records(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    (folder / "predictions" / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def make_group(root: Path, name: str, seeds: Sequence[int], skill: float = 0.7) -> list[FinishedRun]:
    return [make_run(root, name, seed, skill) for seed in seeds]
