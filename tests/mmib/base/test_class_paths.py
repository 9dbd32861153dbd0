"""Class paths and weights of version 0.1 are converted to today's, with one line that reports it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml

from mmib.base.class_paths import (
    RANK_VARIABLES,
    RENAMED,
    current_class_paths,
    in_current_betas,
    in_current_class_paths,
)
from mmib.schema import ConfigError

OLD, NEW = "datamodules.mnre.MNREDataModule", "mmib.datamodules.mnre.MNREDataModule"
LATENTS = {"class_path": "mmib.latents.LatentSpace", "init_args": {"posts": 3}}


@pytest.fixture(autouse=True)
def _first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", RENAMED.values())
def test_every_new_class_path_exists(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_a_configuration_is_read_with_todays_class_paths(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_conversions_are_reported_once_per_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for source in (one, other, one, other):
        current_class_paths({"data": OLD}, source)
    assert capsys.readouterr().err.splitlines() == [
        f"mmib: {source}: {OLD} is read as {NEW}, its name since version 0.2" for source in (one, other)
    ]


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_other_ranks_report_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert current_class_paths({"data": OLD}, tmp_path) == {"data": NEW}
    assert capsys.readouterr().err == ""


def test_other_class_paths_are_kept_and_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"a": NEW, "b": f"my.{OLD}", "c": f"{OLD}s", "d": "datamodules/mnre", "e": [None, 1.5, True]}
    assert current_class_paths(content, "x") is content
    assert capsys.readouterr().err == ""


def test_the_rest_of_a_text_is_unchanged() -> None:
    text = f"# mine\ndata: {{class_path: {OLD}}}\nx: '1e-3'\n"
    assert in_current_class_paths(text) == text.replace(OLD, NEW)
    assert in_current_class_paths(f"--data={OLD}") == f"--data={NEW}"


def old_configuration(name: str) -> str:
    encoder = {"class_path": "mmib.encoders.text.TextEncoder", "init_args": {"name": name}}
    backbone = {"class_path": "mmib.backbone.MultimodalIB", "init_args": {"text_encoder": encoder}}
    betas = {"beta_text": 0.01, "beta_image": 1e-05, "beta_schedule": None}
    return yaml.safe_dump({"model": {"init_args": {**betas, "backbone": backbone}}, "data": {"class_path": OLD}})


def test_betas_are_divided_by_the_latent_width(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 24}))
    for name, width in (("pip:minilm-l6", 384), (str(tmp_path), 24)):
        text = old_configuration(name)
        arguments = yaml.safe_load(in_current_betas(text, yaml.safe_load(text), "my.yaml"))["model"]["init_args"]
        assert (arguments["beta_text"], arguments["beta_image"]) == pytest.approx((0.01 / width, 1e-05 / width))
        assert arguments["beta_schedule"] is None
        line = capsys.readouterr().err
        assert f"mmib: my.yaml: beta_image 1e-05 is read as {1e-05 / width:.3g}, beta_text 0.01 is read as" in line
        assert f"summed over the {width} latent dimensions" in line


def test_betas_of_an_unavailable_encoder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = old_configuration("bert-base-uncased")
    with pytest.raises(ConfigError, match="Divide them by the width of the text encoder"):
        in_current_betas(text, yaml.safe_load(text), "my.yaml")
    none = text.replace("0.01", "0.0").replace("1.0e-05", "0")
    assert in_current_betas(none, yaml.safe_load(none), "my.yaml") == none
    assert capsys.readouterr().err == ""
