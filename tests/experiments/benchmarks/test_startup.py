"""Each case exits as documented, and the costs of imports are added up by package."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import startup


def test_quick_cases_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    startup.main(
        ["--repeats", "1", "--cases", "mmib --help", "syntax", "top-level", "experiment", "--imports", "import json"]
    )
    output = capsys.readouterr().out
    for name in ("`mmib --help`", "YAML syntax error", "unknown top-level key", "unknown experiment"):
        assert f"| {name} | " in output
    assert "| json | " in output


def test_a_case_with_an_unexpected_exit_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 2"):
        startup.run(startup.Case(("nonsense",), 0, ""), tmp_path)


def test_import_costs_are_added_up_by_package() -> None:
    seconds = startup.import_times("import json.decoder")
    assert seconds["json"] > 0
    assert "torch" not in seconds
