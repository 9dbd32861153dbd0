"""The benchmark of the feature cache at minimal size."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import cache


def test_every_variant_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.main(["--rows", "2", "--repeats", "1", "--encoders", "tiny"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    ratios = {line[0].removeprefix("| "): line[-1].removesuffix(" |") for line in lines[2:]}
    encoded = [f"{way}, {runtime}" for way in ("encode", "build the cache") for runtime in ("torch", "onnx")]
    assert set(encoded) < set(ratios)
    assert ratios["decode and encode at each step"] == "1"
    assert float(ratios["read features"]) > 1
