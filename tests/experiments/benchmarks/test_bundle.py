"""The bundle for machines without a network: contents and refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import bundle
from experiments.benchmarks.corpus import SETS, read_posts_of
from mmib.encoders.text import load_tokenizer
from mmib.schema import ConfigError


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the wheels that pip builds."""
    names = ["seqeval-1.2.2-py3-none-any.whl"]

    def pip(command: list[Any], check: bool) -> None:
        folder = Path(command[command.index("--wheel-dir") + 1])
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"")

    monkeypatch.setattr(subprocess, "run", pip)
    return names


@pytest.mark.usefixtures("wheels")
def test_the_bundle_contains_wheels_tokenizer_and_text(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    (folder / "old").mkdir(parents=True)
    bundle.main([str(folder), "--data-root", str(data_root)])
    assert f"python3 -m experiments.benchmarks.gpu --bundle {folder} --output $OUT" in capsys.readouterr().out
    tokenizer = str(folder / "tokenizer")
    assert sorted(file.name for file in folder.iterdir()) == ["text", "tokenizer", "wheels"]
    copied, packaged = (load_tokenizer(name).pieces([["anna", "meets"]]) for name in (tokenizer, "pip:minilm-l6"))
    assert copied == packaged
    assert not list(Path(tokenizer).glob("*.safetensors"))
    for name in SETS.keys() - {"twitter2015"}:  # which is not available
        source, posts = read_posts_of(name, folder / "text")
        assert (source, len(posts)) == (f"real posts of {name}", 4)


def test_platform_specific_wheels_are_refused(tmp_path: Path, wheels: list[str]) -> None:
    wheels.append("x-1-cp311-cp311-linux_x86_64.whl")
    with pytest.raises(ConfigError, match=r"x-1-cp311-cp311-linux_x86_64\.whl is for one system only"):
        bundle.fill(tmp_path / "bundle", tmp_path)


@pytest.mark.usefixtures("wheels")
def test_an_oversized_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LIMIT", 0.1)
    with pytest.raises(ConfigError, match=r"has 1 MB, and 0 can be carried"):
        bundle.fill(tmp_path / "bundle", tmp_path)
