"""Writes files of annotation tools, and converts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmib.cli import main


@dataclass(frozen=True)
class Converted:
    """The result of a conversion: exit status, output, and file."""

    status: int
    output: str
    errors: str
    file: Path

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Converted]:
    """Runs `mmib convert` on a text or on an object that is written as JSON: a list of tasks, or lines."""

    def run(content: Any, *options: str, lines: bool = True, name: str = "in.json") -> Converted:
        source, target = tmp_path / name, tmp_path / "out.json"
        if not isinstance(content, str):
            content = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
        source.write_text(content, encoding="utf-8")
        capsys.readouterr()
        status = main(["convert", str(source), "-o", str(target), *options])
        printed = capsys.readouterr()
        return Converted(status, printed.out, printed.err, target)

    return run
