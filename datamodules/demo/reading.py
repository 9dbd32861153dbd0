"""Reads levels, ground truth and ceilings of a demo corpus for reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmib.datamodules.demo.corpus import read_manifest
from mmib.schema import DataError


def read_levels(root: Path, split: str, task: str) -> list[str] | None:
    """Return the level of each row (MRE) or post (MNER) of a split, in file order; None if `root` is no demo corpus."""
    if read_manifest(root) is None:
        return None
    name = f"rows_{split}.jsonl" if task == "mre" else f"{split}.jsonl"
    with (Path(root) / "demo" / name).open(encoding="utf-8") as file:
        return [json.loads(line)["level"] for line in file]


def read_truth(root: Path, split: str) -> list[dict[str, Any]]:
    """Return the ground truth of each post of a split (docs/explanation/demo-corpus.md), in the Twitter file's order.

    Raises:
        DataError: `root` is no demo corpus.
    """
    if read_manifest(root) is None:
        raise DataError(f"{root} holds no demo corpus: write one with mmib demo-data {root}")
    with (Path(root) / "demo" / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_ceilings(root: Path, split: str, task: str) -> dict[str, Any] | None:
    """Return the `text` and `multimodal` ceilings of a split and of its levels; None without a demo corpus or the task.

    `rows` of a level is the number of rows (MRE) or posts (MNER), as in `read_levels`.
    """
    manifest = read_manifest(root)
    if manifest is None or task not in manifest["splits"][split]:
        return None
    found = manifest["splits"][split][task]
    levels = {level: {"rows": part["rows"], "ceiling": part["ceiling"]} for level, part in found["levels"].items()}
    return {**found["ceiling"], "levels": levels}
