"""The command that draws the known answers; the estimates are tested in tests/mmib/nn/test_information.py."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from experiments import known_answers

ROOT = Path(__file__).parents[2]


def test_figure_and_tables_are_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ROWS": 512, "INFORMATION": (0.0, 8.0), "CORRELATIONS": (0.99,), "CONCENTRATIONS": (5.0,)}
    for name, value in small.items():
        monkeypatch.setattr(known_answers, name, value)
    written = []
    for _ in range(2):
        figure, table = tmp_path / "figure.svg", tmp_path / "table.md"
        assert known_answers.main(["--seed", "3", "--figure", str(figure), "--table", str(table)]) == 0
        written.append((figure.read_bytes(), table.read_text()))
    assert written[0] == written[1]
    assert ET.fromstring(written[0][0]).tag.endswith("svg")
    # The true values and their number; estimates are in the next columns.
    assert written[0][1].count("\n| 8.000 | ") == 2
    assert "\n| 0.990 | 1.959 | 0.883 | " in written[0][1]
    assert "\n| 5.000 | 1.094 | " in written[0][1]


def test_the_committed_figure_is_small_and_shown_on_the_page() -> None:
    assert (ROOT / "docs/figures/known_answers.svg").stat().st_size < 100_000
    assert "(../figures/known_answers.svg)" in (ROOT / "docs/explanation/information.md").read_text()
    assert "--seed 0" in (ROOT / "experiments/results/known_answers.md").read_text()
