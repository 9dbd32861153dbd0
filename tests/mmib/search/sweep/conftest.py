"""Sweep files with a stub command instead of `mmib fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

STUB = Path(__file__).with_name("stub.py")
METRIC = {"name": "val/f1", "goal": "maximize"}

WriteSweep = Callable[..., Path]


@pytest.fixture
def write_sweep(tmp_path: Path) -> WriteSweep:
    """Writes a sweep file with a grid over beta by default; keys given as None are left out."""

    def write(**changes: Any) -> Path:
        content = {
            "program": str(STUB),
            "method": "grid",
            "metric": METRIC,
            "parameters": {"model.beta": {"values": [0.1, 0.3]}},
            **changes,
        }
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write
