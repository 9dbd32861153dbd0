"""Transformers models: which are supported, and errors for those that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertModel

from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, EncoderError

Build = Callable[..., TextEncoder]


def test_a_folder_without_weights_is_one_clear_error(unpack_bert: Path) -> None:
    (unpack_bert / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"text encoder '.*bert' could not be loaded from that folder.*safetensors"):
        TextEncoder(str(unpack_bert))


def test_damaged_weights_are_one_clear_error(unpack_bert: Path) -> None:
    (unpack_bert / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(EncoderError, match="could not be loaded from that folder"):
        TextEncoder(str(unpack_bert))


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_weights_with_other_shapes_are_one_clear_error(unpack_bert: Path) -> None:
    edit_json(unpack_bert / "config.json", intermediate_size=7)
    with pytest.raises(EncoderError, match=r"another shape .*: encoder\.layer\.0.* is \(48,\) and should be \(7,\)$"):
        TextEncoder(str(unpack_bert))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "distilbert"}, "lack transformer.layer.0.* of another architecture .* says distilbert$"),
        ({"num_hidden_layers": 5}, "lack encoder.layer.3.* of another architecture .* says bert$"),
        ({"model_type": "perceptron"}, "of no architecture that transformers .* has: .*`perceptron`"),
        ({"model_type": None}, "of no architecture that transformers .* has: Unrecognized model"),
        ({"model_type": "clip_text_projection"}, "of no architecture that transformers .* has"),
        ({"model_type": "vit", "image_size": 8, "patch_size": 4}, "ViTModel cannot serve .*: it has no embeddings of"),
        ({"model_type": "fnet", "type_vocab_size": 2}, "FNetModel cannot serve .*: its states depend on the padding"),
        ({"model_type": "convbert"}, "ConvBertModel cannot serve .*: its states depend on the padding"),
    ],
)
def test_unsupported_models_are_refused_with_a_reason(unpack_bert: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(unpack_bert / "config.json", **changes)
    with pytest.raises(EncoderError, match=message) as refused:
        TextEncoder(str(unpack_bert), pretrained="lack" in message)
    assert "could not be loaded from that folder" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_failing_model_is_refused_with_the_failure(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: BertModel, inputs_embeds: Any, attention_mask: Any) -> None:
        raise ValueError("a decoder is missing. Give decoder_input_ids.")

    monkeypatch.setattr(BertModel, "forward", forward)
    with pytest.raises(EncoderError, match=r"^BertModel cannot serve .* mask alone \(a decoder is missing\)$"):
        TextEncoder(bert_folder)


def test_code_in_the_folder_of_the_weights_is_not_executed(unpack_bert: Path) -> None:
    edit_json(unpack_bert / "config.json", model_type="custom", auto_map={"AutoConfig": "code.Config"})
    (unpack_bert / "code.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(EncoderError, match="contains custom code"):
        TextEncoder(str(unpack_bert))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_folder_with_a_missing_file_is_one_clear_error(unpack_bert: Path, file: str) -> None:
    (unpack_bert / file).unlink()
    with pytest.raises(EncoderError, match="could not be loaded from that folder"):
        TextEncoder(str(unpack_bert))


def test_a_tokenizer_with_more_pieces_than_embeddings_is_refused(unpack_bert: Path) -> None:
    AutoTokenizer.from_pretrained(unpack_bert).train_new_from_iterator(["ab " * 9], 9).save_pretrained(unpack_bert)
    TextEncoder(str(unpack_bert))
    tokenizer = AutoTokenizer.from_pretrained(unpack_bert)
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(unpack_bert)
    with pytest.raises(EncoderError, match=r"has embeddings of \d+ word pieces, and its tokenizer has 2\d\d: take the"):
        TextEncoder(str(unpack_bert))


def test_half_precision_weights_are_trained_in_single_precision(bert_folder: str, tmp_path: Path) -> None:
    BertModel.from_pretrained(bert_folder, dtype=torch.float16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(tmp_path)
    for pretrained in (True, False):
        encoder = TextEncoder(str(tmp_path), pretrained=pretrained)
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["DeBERTa", "DeBERTa-v3", "MPNet"])
def test_an_attention_implementation_that_an_architecture_lacks_is_refused(
    family_folder: Callable[[str], str], family: str
) -> None:
    folder = family_folder(family)
    with pytest.raises(ConfigError, match=r"use attention 'sdpa' here: \w+ does not support .*; leave it at auto$"):
        TextEncoder(folder, attention="sdpa")
    assert TextEncoder(folder).encoder.config._attn_implementation == "eager"


def test_dropout_overrides_that_of_the_encoder(make_text_encoder: Build) -> None:
    for given_, expected in ((0.37, {0.37}), (None, {0.1})):
        encoder = make_text_encoder(dropout=given_)
        assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_an_unavailable_attention_implementation_is_refused_in_one_sentence(
    make_text_encoder: Build, attention: str, pretrained: bool
) -> None:
    with pytest.raises(ConfigError, match=rf"^the text encoder cannot use attention '{attention}' here: .*; leave it"):
        make_text_encoder(attention=attention, pretrained=pretrained)


def test_an_unknown_attention_implementation_is_refused(make_text_encoder: Build) -> None:
    assert make_text_encoder().encoder.config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match=r"^attention 'eagr' is unknown: choose from auto, eager, sdpa, "):
        make_text_encoder(attention="eagr")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have it")
def test_a_missing_package_is_named_with_installation_instructions(make_text_encoder: Build) -> None:
    with pytest.raises(ConfigError, match=r"install it with `pip install flash-attn`; leave it at auto$"):
        make_text_encoder(attention="flash_attention_2")
