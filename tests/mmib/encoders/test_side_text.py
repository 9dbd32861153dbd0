"""Side texts in the place of images: the frozen text encoder, and a run on them from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.base.files import read_yaml
from mmib.encoders.side_text import SideTextEncoder
from mmib.schema import ConfigError


def test_regions_are_states_of_the_text_encoder_whatever_the_other_texts_are(encoder_files: Any) -> None:
    encoder = SideTextEncoder(encoder_files.text)
    tokenizer = encoder.encoder.tokenizer
    (words,) = tokenizer.pieces([["the", "a"]])
    ids = [*tokenizer.prefix, *words[0], *words[1], *tokenizer.suffix]
    states = encoder.encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0]
    regions = encoder.text_features(["the a", "the a b a b the"])[0]
    first = len(tokenizer.prefix)
    torch.testing.assert_close(regions, states[first : len(ids) - len(tokenizer.suffix)], atol=1e-5, rtol=1e-4)
    mean = SideTextEncoder(encoder_files.text, regions_per_text="mean").text_features(["the a"])[0]
    torch.testing.assert_close(mean, regions.mean(0, keepdim=True), atol=1e-5, rtol=1e-4)


def test_it_stays_frozen_and_knows_its_features_by_a_fingerprint(encoder_files: Any) -> None:
    encoder, again = SideTextEncoder(encoder_files.text).train(), SideTextEncoder(encoder_files.text)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    # The markers' random weights are no part of it.
    assert encoder.fingerprint() == again.fingerprint()
    assert encoder.fingerprint() != SideTextEncoder(encoder_files.text, regions_per_text="mean").fingerprint()
    assert len(encoder.text_features(["the " * 1000])[0]) == encoder.max_pieces
    with pytest.raises(ConfigError, match="was given pixels"):
        encoder(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="choose 'pieces' or 'mean'"):
        SideTextEncoder(encoder_files.text, regions_per_text="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["mre"])
def test_a_run_on_side_texts_is_trained_scored_and_not_exported(
    start: Callable[..., Any], refused: Callable[..., str], finished: Any, workspace: Any, tmp_path: Path
) -> None:
    images = sorted((workspace.root / "demo").rglob("img_org/*/*"))
    texts = [{"image": path.name, "captions": {"demo": f"the a {path.stem}"}} for path in images]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(f"{json.dumps(text)}\n" for text in texts), "utf-8")
    config = ("--config", str(workspace.experiments["mre"]), "--config", "model/side_text.yaml")
    short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2")
    run = start("fit", *config, "--data.side_text", str(captions), *short)
    encoder = read_yaml(run.folder / "config.yaml")["model"]["init_args"]["backbone"]["init_args"]["image_encoder"]
    written = read_yaml(finished.folder / "config.yaml")["model"]["init_args"]["backbone"]["init_args"]
    assert encoder["init_args"]["text_encoder"] == written["text_encoder"]["init_args"]["name"]
    assert "missing" not in run.output
    best = ("--config", str(run.folder / "config.yaml"), "--ckpt_path", str(run.folder / "checkpoints" / "best.ckpt"))
    for command in ("validate", "test", "predict"):
        start(command, *best)
    assert "the run reads side texts in place of images" in refused("export", str(run.folder), str(tmp_path / "out"))
    assert "name it with --data.side_text" in refused("fit", *config)
    assert "nowhere.jsonl" in refused("fit", *config, "--data.side_text", "nowhere.jsonl")
