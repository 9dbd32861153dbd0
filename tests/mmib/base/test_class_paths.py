"""What version 0.1 called otherwise is read as what it is today, and said so in one line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mmib.base.class_paths import RANK_VARIABLES, RENAMED, current_class_paths, in_current_class_paths

OLD, NEW = "datamodules.mnre.MNREDataModule", "mmib.datamodules.mnre.MNREDataModule"
LATENTS = {"class_path": "mmib.latents.LatentSpace", "init_args": {"posts": 3}}


@pytest.fixture(autouse=True)
def _first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", RENAMED.values())
def test_every_class_is_where_it_is_said_to_be(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_a_configuration_is_read_with_the_class_paths_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    old = {"data": {"class_path": OLD, "init_args": {"root": "x"}}, "trainer": {"callbacks": [LATENTS]}, "seed": 1}
    current = current_class_paths(old, "my.yaml")
    assert current["data"] == {"class_path": NEW, "init_args": {"root": "x"}}
    assert current["trainer"] == {"callbacks": [{**LATENTS, "class_path": "mmib.callbacks.LatentSpace"}]}
    assert current["seed"] == 1
    assert old["data"] == {"class_path": OLD, "init_args": {"root": "x"}}, "what is given stays"
    assert capsys.readouterr().err == (
        f"mmib: my.yaml: {OLD} is read as {NEW}, mmib.latents.LatentSpace is read as mmib.callbacks.LatentSpace, "
        "their names since version 0.2\n"
    )


def test_it_is_said_once_for_each_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for source in (one, other, one, other):
        current_class_paths({"data": OLD}, source)
    assert capsys.readouterr().err.splitlines() == [
        f"mmib: {source}: {OLD} is read as {NEW}, its name since version 0.2" for source in (one, other)
    ]


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_other_ranks_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert current_class_paths({"data": OLD}, tmp_path) == {"data": NEW}
    assert capsys.readouterr().err == ""


def test_what_is_no_old_class_path_stays_and_is_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"a": NEW, "b": f"my.{OLD}", "c": f"{OLD}s", "d": "datamodules/mnre", "e": [None, 1.5, True]}
    assert current_class_paths(content, "x") is content
    assert capsys.readouterr().err == ""


def test_a_text_keeps_everything_else() -> None:
    text = f"# mine\ndata: {{class_path: {OLD}}}\nx: '1e-3'\n"
    assert in_current_class_paths(text) == text.replace(OLD, NEW)
    assert in_current_class_paths(f"--data={OLD}") == f"--data={NEW}"
