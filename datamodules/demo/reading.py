"""What a report needs to know about a demo corpus on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.demo.corpus import read_manifest


def read_levels(root: Path, split: str) -> list[str] | None:
    """The level of each row of a split; None where `root` is no demo corpus."""
    if read_manifest(root) is None:
        return None
    with (Path(root) / "demo" / f"rows_{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["level"] for line in file]


def read_ceilings(root: Path, split: str) -> dict[str, Any] | None:
    """`text` and `multimodal` ceilings of a split, and by level; None where `root` is no demo corpus."""
    manifest = read_manifest(root)
    if manifest is None:
        return None
    found = manifest["splits"][split]
    levels = {level: {"rows": part["rows"], "ceiling": part["ceiling"]} for level, part in found["levels"].items()}
    return {**found["ceiling"], "levels": levels}
