"""The benchmark of the feature cache at its smallest."""

from __future__ import annotations

import pytest

from experiments.benchmarks import cache


def test_every_way_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    cache.main(["--rows", "2", "--repeats", "1", "--encoders", "tiny"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    ratios = {line[0].removeprefix("| "): line[-1].removesuffix(" |") for line in lines[2:]}
    assert list(ratios) == list(cache.Bench.WAYS)
    assert ratios["decode and encode at each step"] == "1"
    assert float(ratios["read features"]) > 1
