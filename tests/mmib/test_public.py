"""The public names of `mmib`, lazily imported, and training as a function call."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mmib
from mmib.schema import ConfigError


@pytest.mark.smoke
def test_every_public_name_exists() -> None:
    assert all(inspect.isclass(getattr(mmib, name)) or callable(getattr(mmib, name)) for name in mmib.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", mmib.__version__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mmib.Nothing


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, mmib; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_extractor_imports_neither_encoders_nor_training_code() -> None:
    """The import cost of a program that may never load a model."""
    heavy = "{'lightning_fabric', 'pytorch_lightning', 'scipy', 'timm', 'torchmetrics', 'transformers', 'wandb'}"
    code = f"import sys, mmib; mmib.Extractor; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_training_returns_the_scores_of_the_summary(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like `mmib fit`: the selected checkpoint, scored on validation and test."""
    monkeypatch.chdir(workspace.root)
    config = yaml.safe_load(workspace.experiment.read_text(encoding="utf-8"))
    text_encoder = config["model"]["init_args"]["backbone"]["init_args"]["text_encoder"]["init_args"]
    text_encoder["trainable_layers"] = 1
    before = workspace.folders()
    layers = {"model.backbone.text_encoder.trainable_layers": None}
    scores = mmib.train(config, {"trainer.max_epochs": np.int64(1), "name": "called", **layers})
    (run,) = workspace.folders() - before
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert run.parent.name == "called"
    assert summary["command"].startswith("mmib.train({")
    assert summary["command"].endswith("'model.backbone.text_encoder.trainable_layers': None})")
    recorded = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["init_args"]["backbone"]
    assert recorded["init_args"]["text_encoder"]["init_args"]["trainable_layers"] is None
    assert scores["val/f1"] == summary["val"]["f1"]
    assert scores["test/accuracy"] == summary["test"]["accuracy"]


def test_a_worker_that_runs_the_script_again_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match="below `if __name__"):
        mmib.train("mre-demo")
    assert not list(tmp_path.iterdir())


def test_training_raises_the_errors_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file 'nowhere'"):
        mmib.train("nowhere")
    (tmp_path / "bad.yaml").write_text("modle: {}", encoding="utf-8")
    with pytest.raises(ConfigError, match="top-level key 'modle'"):
        mmib.train(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match=r"gamma is -1"):
        mmib.train("mre-demo", {"model.gamma": -1.0})


def test_training_accepts_paths_and_numpy_numbers_and_includes_files_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("include: [mre-demo]\nmodel: {init_args: {gamma: -3}}\n", encoding="utf-8")
    data = {"init_args": {"root": tmp_path / "data", "labels": ("a", "b"), "max_length": np.int64(60)}}
    with pytest.raises(ConfigError, match=r"gamma is -3"):
        mmib.train({"include": ("mine.yaml",), "data": data}, {"data.side_text_models": [np.str_("blip")]})
    with pytest.raises(ConfigError, match=r"gamma is -0\.5"):
        mmib.train({"include": ["mre-demo"]}, {"model": {"init_args": {"gamma": np.float32(-0.5)}}})


@pytest.mark.parametrize(
    ("config", "overrides", "name"),
    [
        (
            {"data": {"init_args": {"labels": [{"a"}]}}},
            {},
            r"config\['data'\]\['init_args'\]\['labels'\]\[0\] is {'a'}",
        ),
        ("mre-demo", {"model.gamma": 1j}, r"overrides\['model\.gamma'\] is 1j, of type complex"),
        (["mre-demo"], {}, r"config is \['mre-demo'\]: give the name"),
    ],
)
def test_training_names_an_unknown_setting(config: Any, overrides: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        mmib.train(config, overrides)
