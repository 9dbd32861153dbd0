"""Untrusted exports: none of their code is executed, and nothing is downloaded."""

from __future__ import annotations

import functools
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmib.cli import main
from mmib.export.folder import CONFIG, DIGEST, WEIGHTS, _described, digest_of, write_export
from mmib.export.model import TrainedModel

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def cache() -> dict[str, Path]:
    return {}


@pytest.fixture
def exported(
    cache: dict[str, Path],
    make_trained: Callable[..., TrainedModel],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Path:
    """A copy of an export that is created once."""
    if "export" not in cache:
        cache["export"] = tmp_path_factory.mktemp("exported") / "export"
        write_export([make_trained("mner")], cache["export"])
    return shutil.copytree(cache["export"], tmp_path / "export")


def forge(folder: Path, **changes: Any) -> None:
    """Update the digest for the current files, as a program that writes exports would."""
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
def test_code_in_an_export_is_not_executed(
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


@pytest.mark.parametrize(
    "model_type", ["custom", "timm_wrapper", "detr", "conditional_detr", "grounding-dino", "resnet", 5, ["bert"]]
)
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
def test_only_architectures_listed_by_timm_are_built(
    exported: Path, changes: dict[str, Any], reason: str, refused: Refused
) -> None:
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    forge(exported, image_encoder=config["image_encoder"] | changes)
    assert reason in refused("extract", "--model", str(exported), "--text", "bob")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(exported: Path, value: float, refused: Refused) -> None:
    weights = load_file(exported / WEIGHTS)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, exported / WEIGHTS)
    forge(exported)
    assert f"NaN or infinite weights ({name})" in refused("extract", "--model", str(exported), "--text", "bob")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocab_size": 100_000_000}, "vocab_size is 100,000,000, which is beyond"),
        ({"vocab_size": 10_000_000}, "far more values than there are"),
        ({"hidden_size": 24_000, "intermediate_size": 16_000_000}, "far more values than there are"),
        ({"num_hidden_layers": 20_000}, "far more tensors than there are"),
        ({"num_hidden_layers": 4}, "is missing and should be"),
        ({"hidden_size": 48}, "do not fit its description: backbone.text_encoder.encoder.embeddings"),
        ({"num_labels": 1_000_000}, "num_labels is 1,000,000"),
        ({"hidden_size": -24}, "describes no model that can be built"),
        ({"num_attention_heads": 0}, "describes no model that can be built"),
        ({"num_attention_heads": [4]}, "describes no model that can be built"),
        ({"num_hidden_layers": 1e400}, "describes no model that can be built"),
        ({"hidden_act": "print"}, "describes no model that can be built"),
        ({"backbone": "somebody/model"}, "names an encoder of images (backbone)"),
        ({"use_timm_backbone": True}, "names an encoder of images (use_timm_backbone)"),
        ({"vision_config": {"model_type": "detr"}}, "is of the type 'detr', which is no encoder"),
        (
            {"vision_config": {"backbone_config": {"model_type": "bert"}}},
            "names an encoder of images (backbone_config)",
        ),
    ],
)
def test_sizes_are_checked_against_the_weights_before_anything_is_built(
    exported: Path, changes: dict[str, Any], reason: str, refused: Refused
) -> None:
    edit(exported / "text_encoder" / "config.json", **changes)
    forge(exported)
    began = time.process_time()
    message = refused("extract", "--model", str(exported), "--text", "bob")
    assert reason in message
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("parts_of_network.gaussian.init_args.heads", 0, "0 attention heads do not divide"),
        ("parts_of_network.gaussian.init_args.heads", -1, "-1 attention heads do not divide"),
        ("parts_of_network.gaussian.init_args.heads", [1], "expected names with a number"),
        ("parts_of_network.gaussian.init_args.heads", "x", "the model's gaussian cannot be built"),
        ("parts_of_network.gaussian.init_args.nothing", 1, "the model's gaussian cannot be built"),
        ("parts_of_network.gaussian", [], "expected class_path and init_args"),
        ("parts_of_network", [{}], "parts_of_network is [{}], expected an object"),
        ("parts", [{}], "expected a list of tasks"),
        ("head.constrained", "perhaps", "the head of mner cannot be built"),
        ("calibration.value", float("nan"), "calibration.value is nan, expected a number"),
        ("calibration.value", 0, "calibration.value is 0, expected a number"),
        ("calibration.error_before", float("inf"), "error_before is inf, expected a finite number"),
        ("max_length", -1, "max_length is -1, expected a whole number"),
        ("max_length", True, "max_length is True, expected a whole number"),
        ("max_length", 10_000, "max_length is 10000: the text encoder takes"),
        ("image_encoder.max_crops", -1, "image_encoder.max_crops is -1, expected"),
        ("image_encoder.max_crops", 1e9, "image_encoder.max_crops is 1000000000.0, expected"),
        ("image_encoder.used", "no", "image_encoder.used is 'no', expected true or false"),
        ("image_encoder.regions", "all", "'all' are unknown"),
        ("image_encoder.preprocessing.input_size", [3, 10**6, 10**6], "up to 4096"),
        ("image_encoder.preprocessing.crop_pct", 1e-9, "expected a number from 0.1"),
        ("image_encoder.preprocessing.std", [1, 1, 0], "expected a list of three numbers"),
        ("image_encoder.preprocessing.interpolation", "none", "describes no model that can be built"),
        ("image_encoder.preprocessing.auto_augment", "rand", "holds 'auto_augment', expected"),
        ("image_encoder.model_args", {"width": 10**7}, "describes no model that can be built"),
        ("labels.names", [], "describes no model that can be built"),
        ("files", ["model.safetensors"], "files is ['model.safetensors'], expected an object"),
    ],
)
def test_every_value_is_checked_for_type_and_range(
    exported: Path, place: str, value: Any, reason: str, refused: Refused
) -> None:
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    *keys, last = place.split(".")
    functools.reduce(dict.__getitem__, keys, config)[last] = value
    if place == "files":
        (exported / CONFIG).write_text(json.dumps(config | {DIGEST: digest_of(config)}), encoding="utf-8")
    else:
        forge(exported, **config)
    assert reason in refused("extract", "--model", str(exported), "--text", "bob")


def test_building_an_export_uses_no_network(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: Any) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr("socket.socket.connect", reached)
    monkeypatch.setattr("socket.getaddrinfo", reached)
    assert main(["extract", "--model", str(exported), "--text", "bob"]) == 0
