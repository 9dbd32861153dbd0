"""LoRA: only its matrices are trained, runs can be resumed, and exports contain merged weights."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DebertaConfig,
    DebertaModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from experiments.robustness.kill_and_resume import differences
from mmib.cli import main
from mmib.encoders.lora import LoraSettings, add_lora, merge_lora
from mmib.encoders.text import TextEncoder
from mmib.export.folder import read_export
from mmib.export.model import TrainedModel, model_of_run
from mmib.extract.extractor import Extractor
from mmib.modules import ExtractionModule
from mmib.schema import ConfigError, PostBatch

pytest.importorskip("peft", reason="the lora extra is not installed")

Build = Callable[..., TextEncoder]
TEXT = "anna and bob meets carl in the paris head"
SIZE = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**SIZE), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZE), add_pooling_layer=False),
    "deberta": lambda: DebertaModel(DebertaConfig(**SIZE, **RELATIVE)),
    "deberta-v2": lambda: DebertaV2Model(DebertaV2Config(**SIZE, **RELATIVE, position_buckets=8, share_att_key=True)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=4, eos_token_id=0)),
}
BERT_LINEAR = {"query", "key", "value", "dense"}


def trained(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def awaken(encoder: nn.Module) -> None:
    """Make the matrices B nonzero: they start at 0, where LoRA has no effect."""
    for name, parameter in encoder.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.2)


# The encoder


@pytest.mark.smoke
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_matrices_are_trained_and_merging_keeps_the_states(family: str) -> None:
    encoder = FAMILIES[family]().eval()
    before, names = {name: value.clone() for name, value in encoder.state_dict().items()}, list(encoder.state_dict())
    inputs = {"input_ids": torch.randint(3, 60, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    plain = encoder(**inputs).last_hidden_state
    add_lora(encoder, LoraSettings(r=2, alpha=8))
    torch.testing.assert_close(encoder(**inputs).last_hidden_state, plain, rtol=0, atol=0)
    awaken(encoder)
    states = encoder(**inputs).last_hidden_state
    assert (states - plain).abs().max() > 1e-3
    states.sin().sum().backward()
    assert {name for name, parameter in encoder.named_parameters() if parameter.grad is not None} == set(
        trained(encoder)
    )
    assert trained(encoder)
    assert all(".lora_A." in name or ".lora_B." in name for name in trained(encoder))
    merge_lora(encoder)
    torch.testing.assert_close(encoder(**inputs).last_hidden_state, states, rtol=0, atol=1e-5)
    assert list(encoder.state_dict()) == names
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith("weight") for name in changed)


def adapted(encoder: nn.Module) -> set[str]:
    """Dotted names of the linear layers that have LoRA matrices."""
    return {name.partition(".lora_A.")[0] for name in trained(encoder) if ".lora_A." in name}


@pytest.mark.parametrize(
    ("targets", "endings"),
    [
        (None, BERT_LINEAR),
        (["query", "value"], {"query", "value"}),
        (["attention.output.dense"], {"dense"}),
        (r"\.[01]\..*(key|value)$", {"key", "value"}),
    ],
)
def test_targets_are_name_suffixes_or_a_regular_expression(
    make_text_encoder: Build, targets: Any, endings: set[str]
) -> None:
    encoder = make_text_encoder(lora=LoraSettings(r=2, targets=targets))
    found = adapted(encoder)
    assert {name.rpartition(".")[2] for name in found} == endings
    layers = 2 if isinstance(targets, str) else 3
    assert len(found) == layers * {None: 6}.get(targets if targets is None else "", len(endings))


def test_matrices_adapt_the_layers_that_are_trainable_without_lora(make_text_encoder: Build) -> None:
    everywhere = make_text_encoder(lora=LoraSettings())
    assert len(adapted(everywhere)) == 18
    assert "markers.weight" in trained(everywhere)
    assert not any("pooler" in name for name in adapted(everywhere))
    top = make_text_encoder(lora=LoraSettings(), trainable_layers=1)
    assert {name.partition(".layer.")[2][0] for name in adapted(top)} == {"2"}
    assert len(adapted(top)) == 6
    assert "markers.weight" not in trained(top)
    with pytest.raises(ConfigError, match="no linear layer to adapt: trainable_layers leaves none"):
        make_text_encoder(lora=LoraSettings(), trainable_layers=0)


@pytest.mark.parametrize(("trainable_layers", "markers"), [(None, True), (1, False)])
def test_markers_inside_the_encoder_are_trained_as_without_lora(
    make_text_encoder: Build, monkeypatch: pytest.MonkeyPatch, trainable_layers: int | None, markers: bool
) -> None:
    """As in CLIP's text encoder, whose only input is ids."""
    monkeypatch.setattr("mmib.encoders.text.takes", lambda *_: False)
    encoder = make_text_encoder(lora=LoraSettings(), trainable_layers=trainable_layers)
    assert encoder.markers.weight.requires_grad == markers


def test_only_lora_can_be_merged(make_text_encoder: Build) -> None:
    encoder = make_text_encoder()
    names = list(encoder.state_dict())
    encoder.merge_lora()
    assert list(encoder.state_dict()) == names


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_the_text_encoders_learning_rate_applies_and_every_matrix_gets_a_gradient(
    make_module: Callable[..., ExtractionModule], make_batch: Callable[..., PostBatch], task: str
) -> None:
    module = make_module(backbone={"text": {"lora": LoraSettings(r=2)}}).train()
    rates = {id(p): group["lr"] for group in module.parameter_groups() for p in group["params"]}
    matrices = [p for name, p in module.named_parameters() if ".lora_" in name]
    assert {rates[id(p)] for p in matrices} == {module.optimizer.text_lr}
    module.objective(make_batch()).loss.backward()
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert not [name for name, p in module.named_parameters() if not p.requires_grad and p.grad is not None]


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, r"lora\.r is 0: a rank is 1 or more"),
        ({"alpha": 0}, r"lora\.alpha is 0: the scale must be above 0"),
        ({"targets": []}, r"lora\.targets is empty: name linear layers"),
        ({"targets": "("}, r"lora\.targets '\(' is no regular expression"),
        ({"targets": ["query", "qery"]}, "the LoRA target 'qery' matches no linear layer that is trained"),
        ({"targets": ["pooler.dense"]}, r"there are dense, key, query, value, with names such as encoder\.layer\.0\."),
        ({"targets": r"layer\.7"}, "the LoRA target .* matches no linear layer that is trained"),
    ],
)
def test_invalid_settings_are_refused(make_text_encoder: Build, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_text_encoder(lora=LoraSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{r: 0}", "lora.r is 0: a rank is 1 or more"),
        (
            "{targets: [query, qery]}",
            "the LoRA target 'qery' matches no linear layer that is trained: there are dense,",
        ),
        ("{q: 1}", "lora.q is no option of LoraSettings: choose from alpha, r, targets"),
    ],
)
def test_an_invalid_setting_is_a_one_sentence_error(
    workspace: Any, refused: Callable[..., str], settings: str, message: str
) -> None:
    errors = refused("fit", "--config", str(workspace.experiment), f"--model.backbone.text_encoder.lora={settings}")
    (line,) = [line for line in errors.splitlines() if line.startswith("mmib: ")]
    assert message in line


def test_without_peft_the_error_names_it_with_the_command(
    workspace: Any, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    errors = refused("fit", "--config", str(workspace.experiment), "--model.backbone.text_encoder.lora.r=4")
    assert "lora needs the package peft" in errors
    assert "install it with `pip install 'mmib[lora]'`" in errors


# A run


class KeepHalf(pl.Callback):
    """Copies the run folder halfway through training."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = Path(trainer.default_root_dir)
        if trainer.current_epoch == 1 and run.name != "half":
            shutil.copytree(run, run.with_name("half"))


@pytest.fixture(scope="module")
def run(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs with averaged weights; next to it `half`, a copy made halfway."""
    runs = tmp_path_factory.mktemp("lora")
    config = {
        "include": [str(workspace.experiments["mner"]), "trainer/averaged.yaml"],
        "name": "adapted",
        "trainer": {"callbacks+": [{"class_path": f"{__name__}.KeepHalf"}]},
        "model": {
            "init_args": {
                "optimizer": {"lr": 1e-3, "text_lr": 1e-2},
                "backbone": {"init_args": {"text_encoder": {"init_args": {"lora": {"r": 2, "targets": ["query"]}}}}},
            }
        },
    }
    file = runs / "adapted.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["fit", "--config", str(file), "--runs", str(runs)]) == 0
    (folder,) = (path for path in (runs / "adapted").iterdir() if path.name != "half")
    return folder


def test_a_run_records_the_adapted_layers_and_trains_only_them(run: Path, encoder_files: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings = config["model"]["init_args"]["backbone"]["init_args"]["text_encoder"]["init_args"]["lora"]
    assert settings == {"r": 2, "alpha": 16.0, "targets": ["query"]}
    # Not the averaged weights, which are rounded even where nothing changes.
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]
    pretrained = TextEncoder(encoder_files.text).encoder.state_dict()
    prefix = "backbone.text_encoder.encoder."
    for name, value in pretrained.items():
        place = name.replace("query.", "query.base_layer.")
        torch.testing.assert_close(state[prefix + place], value, rtol=0, atol=0)
    moved = [value for name, value in state.items() if ".lora_B." in name]
    assert len(moved) == 3
    assert all(value.abs().max() > 1e-4 for value in moved)


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(run: Path) -> None:
    half = run.with_name("half")
    assert main(["fit", "--run", str(half), "--ckpt_path", "last"]) == 0
    assert not differences(run, half)


def test_a_run_is_not_resumed_without_lora(run: Path, refused: Callable[..., str], workspace: Any) -> None:
    last = str(run / "checkpoints" / "last.ckpt")
    errors = refused("fit", "--config", str(workspace.experiments["mner"]), "--ckpt_path", last)
    assert "the network of the checkpoint differs from this configuration" in errors


def encoded(model: TrainedModel) -> torch.Tensor:
    encoder = model.network.backbone.text_encoder
    frame = encoder.tokenizer
    ids = [*frame.prefix, *(piece for word in frame.pieces([TEXT.split()])[0] for piece in word), *frame.suffix]
    return encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))


@pytest.mark.slow
def test_a_run_is_scored_reported_and_exported_merged(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--runs", str(tmp_path)]
    assert main(["validate", "--config", str(run / "config.yaml"), *best]) == 0
    assert main(["report", str(run), "--output", str(tmp_path / "report.html")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "merge_lora", lambda encoder: None)
        unmerged = model_of_run(run)
    assert any(".lora_" in name for name in unmerged.network.state_dict())

    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    exported = tmp_path / "exported"
    assert main(["export", str(run), "-o", str(exported), "--onnx"]) == 0
    monkeypatch.setitem(sys.modules, "peft", None)  # as if PEFT were not installed
    (merged,) = read_export(exported)
    assert not any("lora" in name or "base_layer" in name for name in merged.network.state_dict())
    torch.testing.assert_close(encoded(merged), encoded(unmerged), rtol=0, atol=1e-5)
    scores = [Extractor([model]).extract(TEXT) for model in (merged, unmerged)]
    assert [(e.text, e.type) for e in scores[0].entities] == [(e.text, e.type) for e in scores[1].entities]
    for ours, theirs in zip(scores[0].entities, scores[1].entities, strict=True):
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)
    capsys.readouterr()
    assert main(["extract", "--model", str(exported), "--text", TEXT]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == TEXT
