"""Side texts instead of images: the frozen text encoder, and a run from the command line."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.backbone import MultimodalIB
from mmib.base.files import read_yaml
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.modules import MNERModule
from mmib.schema import ConfigError, PostBatch, SideTextBatch


def test_regions_are_states_of_the_text_encoder_independent_of_other_texts(encoder_files: Any) -> None:
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


def test_the_encoder_stays_frozen_and_its_features_have_a_fingerprint(encoder_files: Any) -> None:
    encoder, again = SideTextEncoder(encoder_files.text).train(), SideTextEncoder(encoder_files.text)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    # The markers' random weights are not part of it.
    assert encoder.fingerprint() == again.fingerprint()
    assert encoder.fingerprint() != SideTextEncoder(encoder_files.text, regions_per_text="mean").fingerprint()
    tokenizer = encoder.text_encoder.tokenizer
    special = len(tokenizer.prefix) + len(tokenizer.suffix)
    assert len(encoder.text_features(["the " * 1000])[0]) == tokenizer.max_length - special
    with pytest.raises(ConfigError, match="choose 'pieces' or 'mean'"):
        SideTextEncoder(encoder_files.text, regions_per_text="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["mner"])
def test_a_shared_encoder_has_the_models_weights_and_is_trained_by_posts_and_texts(
    make_text_encoder: Callable[..., TextEncoder], make_batch: Callable[..., PostBatch]
) -> None:
    encoder = SideTextEncoder(shared=True)
    with pytest.raises(ConfigError, match="shared, but has no model yet"):
        _ = encoder.dim
    text_encoder = make_text_encoder()
    backbone = MultimodalIB(text_encoder, encoder)
    assert encoder.text_encoder is backbone.text_encoder
    assert not list(encoder.parameters())
    assert not any(name.startswith("image_encoder.") for name in backbone.state_dict())
    copied = copy.deepcopy(backbone)
    assert copied.image_encoder.text_encoder is copied.text_encoder is not text_encoder
    module = MNERModule(backbone)
    trained = [parameter for group in module.parameter_groups() for parameter in group["params"]]
    assert len({id(parameter) for parameter in trained}) == len(trained)
    assert {id(p) for p in text_encoder.parameters() if p.requires_grad} <= {id(parameter) for parameter in trained}

    ids = torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]])
    batch = make_batch(lengths=(9, 9), regions=(2, 1))
    texts = SideTextBatch(mask=batch.region_mask, input_ids=ids, text_mask=ids > 0)
    batch = dataclasses.replace(batch, features=None, side_texts=texts)

    def gradients(of_posts: bool, of_texts: bool) -> dict[str, torch.Tensor]:
        text_encoder.zero_grad()
        posts = text_encoder(batch.input_ids, batch.text_mask)[batch.text_mask]
        (regions,) = encoder.encode(batch)
        (of_posts * posts.square().sum() + of_texts * regions.square().sum()).backward()
        found = {name: parameter.grad for name, parameter in text_encoder.named_parameters()}
        return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}

    both, posts, regions = gradients(True, True), gradients(True, False), gradients(False, True)
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, posts[name] + regions[name], rtol=1e-3, atol=1e-3)
    query = next(name for name in both if "query.weight" in name)
    assert posts[query].abs().max() > 0
    assert regions[query].abs().max() > 0


def test_a_shared_encoder_of_a_frozen_text_encoder_is_frozen_and_cannot_have_another_name(
    make_text_encoder: Callable[..., TextEncoder], bert_folder: str
) -> None:
    for trainable_layers, frozen in ((0, True), (1, False), (None, False)):
        encoder = SideTextEncoder(shared=True)
        MultimodalIB(make_text_encoder(trainable_layers=trainable_layers), encoder)
        assert encoder.frozen == frozen
    with pytest.raises(ConfigError, match="leave one of them out"):
        SideTextEncoder(bert_folder, shared=True)


@pytest.mark.parametrize("task", ["mre"])
@pytest.mark.parametrize(
    ("piece", "options"),
    [
        ("side_text", {}),
        ("side_text", {"shared": "true"}),
        ("pixels_and_texts", {"pixels.name": "test_resnet", "pixels.pretrained": "false"}),
    ],
)
def test_a_run_on_side_texts_is_trained_and_scored_but_not_exported(
    start: Callable[..., Any],
    refused: Callable[..., str],
    finished: Any,
    workspace: Any,
    tmp_path: Path,
    piece: str,
    options: dict[str, str],
) -> None:
    images = sorted((workspace.root / "demo").rglob("img_org/*/*"))
    texts = [{"image": path.name, "captions": {"demo": f"the a {path.stem}"}} for path in images]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(f"{json.dumps(text)}\n" for text in texts), "utf-8")
    config = ("--config", str(workspace.experiments["mre"]), "--config", f"model/{piece}.yaml")
    given = [f"--model.backbone.image_encoder.{name}={value}" for name, value in options.items()]
    short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2")
    run = start("fit", *config, *given, "--data.side_text", str(captions), *short)
    assert "missing" not in run.output
    encoder = read_yaml(run.folder / "config.yaml")["model"]["init_args"]["backbone"]["init_args"]["image_encoder"]
    named = encoder["init_args"].get("texts", encoder)["init_args"]["text_encoder"]
    written = read_yaml(finished.folder / "config.yaml")["model"]["init_args"]["backbone"]["init_args"]
    assert named == (None if "shared" in options else written["text_encoder"]["init_args"]["name"])
    best = ("--config", str(run.folder / "config.yaml"), "--ckpt_path", str(run.folder / "checkpoints" / "best.ckpt"))
    start("predict", *best)
    source = "both" if piece == "pixels_and_texts" else "text"
    post = tmp_path / "post.jsonl"
    post.write_text('{"text": "the a"}\n', "utf-8")
    for command in (
        ("export", str(run.folder), str(tmp_path / "out")),
        ("extract", "--model", str(run.folder), str(post)),
        ("serve", "--model", str(run.folder)),
    ):
        message = refused(*command)
        assert f"reads side texts of images (image_source: {source})" in message
        assert "or train a model on pixels" in message


def test_a_run_on_side_texts_needs_their_file(refused: Callable[..., str], workspace: Any) -> None:
    config = ("--config", str(workspace.experiments["mre"]), "--config", "model/side_text.yaml")
    assert "name it with --data.side_text" in refused("fit", *config)
    assert "nowhere.jsonl" in refused("fit", *config, "--data.side_text", "nowhere.jsonl")
