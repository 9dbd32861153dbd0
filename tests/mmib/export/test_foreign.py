"""Exports of strangers: no code of theirs runs, and nothing is looked up elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmib.export.folder import CONFIG, DIGEST, WEIGHTS, _described, digest_of, write_export
from mmib.export.model import TrainedModel

Refused = Callable[..., str]


@pytest.fixture
def exported(make_trained: Callable[..., TrainedModel], tmp_path: Path) -> Path:
    write_export([make_trained("mner")], tmp_path / "export")
    return tmp_path / "export"


def forge(folder: Path, **changes: Any) -> None:
    """Sign an export as a program that writes exports would, its files as they are now."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    config["files"] = {name: _described(folder / name) for name in config["files"]}
    path.write_text(json.dumps(config | {DIGEST: digest_of(config)}), encoding="utf-8")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "trap.Config", "AutoModel": "trap.Model"}}),
        ("config.json", {"auto_map": {"AutoModel": "somebody/repository--trap.Model"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "trap.Model"}}}),
        ("config.json", {"attn_implementation": "somebody/kernel"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["trap.Tokenizer", None]}}),
    ],
)
def test_code_in_an_export_is_not_run(
    exported: Path, name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    ran = exported.parent / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Config: ...\nclass Model: ...\n"
    (exported / "text_encoder" / "trap.py").write_text(code, encoding="utf-8")
    edit(exported / "text_encoder" / name, **changes)
    forge(exported)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"y\ny\ny\n")))
    assert "names code to run" in refused("extract", "--model", str(exported), "-")
    assert not ran.exists()


@pytest.mark.parametrize("model_type", ["custom", "timm_wrapper", 5, ["bert"]])
def test_an_unknown_type_of_text_encoder_is_refused(exported: Path, model_type: Any, refused: Refused) -> None:
    edit(exported / "text_encoder" / "config.json", model_type=model_type)
    forge(exported)
    assert "no encoder of the library transformers" in refused("extract", "--model", str(exported), "--text", "bob")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "hf-hub:somebody/model"}, "no architecture that timm"),
        ({"architecture": "local-dir:/tmp/model"}, "no architecture that timm"),
        ({"architecture": ["test_resnet"]}, "no architecture that timm"),
        ({"model_args": {"checkpoint_path": "/tmp/weights.pth"}}, "checkpoint_path"),
        ({"model_args": {"pretrained_cfg": "somebody"}}, "pretrained_cfg"),
        ({"model_args": [1]}, "expected an object"),
    ],
)
def test_only_architectures_that_timm_lists_are_built(
    exported: Path, changes: dict[str, Any], reason: str, refused: Refused
) -> None:
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    forge(exported, image_encoder=config["image_encoder"] | changes)
    assert reason in refused("extract", "--model", str(exported), "--text", "bob")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(exported: Path, value: float, refused: Refused) -> None:
    weights = load_file(exported / WEIGHTS)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, exported / WEIGHTS)
    forge(exported)
    assert f"NaN or infinite weights ({name})" in refused("extract", "--model", str(exported), "--text", "bob")
