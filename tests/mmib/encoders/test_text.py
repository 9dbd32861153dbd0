"""Text encoding: marker embeddings, frozen parts, and matching weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

from mmib.encoders.pretrained import PACKAGED
from mmib.encoders.text import TextEncoder
from mmib.schema import HEAD_START, MARKERS, TAIL_START, ConfigError, PostBatch

CLS, SEP = 2, 3
Build = Callable[..., TextEncoder]


def test_marker_embeddings_are_used_only_at_marker_ids(make_text_encoder: Build) -> None:
    encoder = make_text_encoder().eval()
    ids = encoder.tokenizer.marker_ids
    input_ids = torch.tensor([[CLS, ids[HEAD_START], 30, ids[TAIL_START], SEP], [CLS, 30, 31, 32, SEP]])
    mask = torch.ones(2, 5, dtype=torch.bool)
    before = encoder(input_ids, mask)
    encoder.markers.weight.data[2] += torch.randn(encoder.dim)
    after = encoder(input_ids, mask)
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1], before[1])


def test_each_marker_trains_only_its_own_row(make_text_encoder: Build) -> None:
    encoder = make_text_encoder()
    ids = encoder.tokenizer.marker_ids
    input_ids = torch.tensor([[CLS, ids[HEAD_START], 30, SEP]])
    encoder(input_ids, torch.ones(1, 4, dtype=torch.bool)).square().sum().backward()
    markers, words = encoder.markers.weight.grad, encoder.encoder.get_input_embeddings().weight.grad
    assert markers is not None
    assert markers.abs().sum(dim=1).nonzero().flatten().tolist() == [MARKERS.index(HEAD_START)]
    assert set(words.abs().sum(dim=1).nonzero().flatten().tolist()) <= {CLS, 30, SEP}


def test_markers_are_initialised_at_the_scale_of_words_and_distinct(make_text_encoder: Build) -> None:
    encoder = make_text_encoder()
    words = encoder.encoder.get_input_embeddings().weight
    distances = torch.cdist(encoder.markers.weight, encoder.markers.weight)[~torch.eye(4, dtype=torch.bool)]
    typical = torch.cdist(words, words).mean()
    assert distances.min() > 0.3 * typical
    assert distances.max() < 3 * typical


@pytest.mark.parametrize("pieces", [1, 5, 40])
def test_appended_padding_does_not_change_any_state(
    make_text_encoder: Build,
    make_batch: Callable[..., PostBatch],
    append_garbage: Callable[..., PostBatch],
    pieces: int,
) -> None:
    """Defect 1."""
    encoder, batch = make_text_encoder().eval(), make_batch()
    padded = append_garbage(batch, pieces, 0)
    states, more = encoder(batch.input_ids, batch.text_mask), encoder(padded.input_ids, padded.text_mask)
    torch.testing.assert_close(more[:, : states.shape[1]][batch.text_mask], states[batch.text_mask])


def layers_of(names: list[str]) -> set[str]:
    """`embeddings`, `layer.N`, `markers` and the like, of parameter names."""
    found = set()
    for name in names:
        parts = name.split(".")
        found.add(
            ".".join(parts[2:4])
            if parts[:2] == ["encoder", "encoder"]
            else parts[-2]
            if parts[0] == "markers"
            else parts[1]
        )
    return found


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (None, {"embeddings", "layer.0", "layer.1", "layer.2", "markers"}),
        (3, {"layer.0", "layer.1", "layer.2"}),
        (1, {"layer.2"}),
        (0, set()),
    ],
)
def test_the_top_layers_are_trainable(make_text_encoder: Build, trainable: int | None, expected: set[str]) -> None:
    encoder = make_text_encoder(trainable_layers=trainable)
    assert layers_of([name for name, p in encoder.named_parameters() if p.requires_grad]) == expected


@pytest.mark.parametrize("trainable", [None, 2, 1])
def test_exactly_the_trainable_parameters_get_a_gradient(make_text_encoder: Build, trainable: int | None) -> None:
    """An unused parameter, such as the pooler's, would stop training under DDP."""
    encoder = make_text_encoder(trainable_layers=trainable)
    marker = encoder.tokenizer.marker_ids[HEAD_START]
    encoder(torch.tensor([[CLS, marker, 30, SEP]]), torch.ones(1, 4, dtype=torch.bool)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_only_trained_parts_have_dropout_in_training(make_text_encoder: Build) -> None:
    encoder = make_text_encoder(trainable_layers=1, dropout=0.5).train()
    active = [name for name, m in encoder.named_modules() if isinstance(m, torch.nn.Dropout) and m.training]
    assert active
    assert all(name.startswith("encoder.encoder.layer.2.") for name in active)
    input_ids, mask = torch.tensor([[CLS, 30, 31, SEP]]), torch.ones(1, 4, dtype=torch.bool)
    below = []
    encoder.encoder.encoder.layer[1].register_forward_hook(lambda *call: below.append(call[-1]))
    outputs = [encoder(input_ids, mask) for _ in range(2)]
    first, second = (output[0] if isinstance(output, tuple) else output for output in below)
    assert torch.equal(first, second)
    assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("trainable", [-1, 4])
def test_too_many_trainable_layers_are_refused(make_text_encoder: Build, trainable: int) -> None:
    with pytest.raises(ConfigError, match=f"trainable_layers is {trainable}: the text encoder has 0 to 3 layers"):
        make_text_encoder(trainable_layers=trainable)


def test_weights_are_loaded_or_initialised_randomly(make_text_encoder: Build) -> None:
    weights = [
        make_text_encoder(pretrained=pretrained).encoder.get_input_embeddings().weight
        for pretrained in (True, True, False)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_works_in_float64(make_text_encoder: Build) -> None:
    encoder = make_text_encoder().double()
    assert encoder(torch.tensor([[CLS, 30, SEP]]), torch.ones(1, 3, dtype=torch.bool)).dtype == torch.float64


@pytest.fixture
def roberta_folder(tmp_path: Path) -> str:
    """A RoBERTa, whose tokenizer is byte-level and whose positions start after the padding id."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "\u0120", "\u0120a"]
    tokenizer = RobertaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("\u0120", "a")])
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_byte_level_tokenizer_sees_the_space_before_each_word(roberta_folder: str) -> None:
    tokenizer = TextEncoder(roberta_folder).tokenizer
    assert tokenizer.pieces([["a", "b", "a"]]) == [[[8], [7, 6], [8]]]
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.pad_id) == ([0], [2], 1)


def test_the_maximum_length_of_a_roberta_is_limited_by_its_positions(roberta_folder: str) -> None:
    encoder = TextEncoder(roberta_folder)
    length = encoder.tokenizer.max_length
    assert length == 14
    assert encoder(torch.full((1, length), 5), torch.ones(1, length, dtype=torch.bool)).shape == (1, length, 12)


def test_the_maximum_length_of_a_bert_is_its_number_of_positions(make_text_encoder: Build) -> None:
    assert make_text_encoder().tokenizer.max_length == 64


def test_packaged_minilm_is_loaded_with_its_tokenizer() -> None:
    pytest.importorskip(PACKAGED["pip:minilm-l6"].package, reason="the encoders extra is not installed")
    encoder = TextEncoder("pip:minilm-l6").eval()
    assert (encoder.dim, encoder.tokenizer.max_length) == (384, 512)
    pieces = encoder.tokenizer.pieces([["[SEP]", "\ufe0f", "Paris"]])[0]
    spelled = [encoder.tokenizer._tokenizer.convert_ids_to_tokens(ids) for ids in pieces]
    assert spelled == [["[", "sep", "]"], ["[UNK]"], ["paris"]]
    means = []
    for sentence in ("a cat sits on the sofa", "the kitten rests on a couch", "shares fell on wall street"):
        words = encoder.tokenizer.pieces([sentence.split()])[0]
        ids = [*encoder.tokenizer.prefix, *(piece for word in words for piece in word), *encoder.tokenizer.suffix]
        with torch.inference_mode():
            means.append(encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0].mean(dim=0))
    near, far = (torch.cosine_similarity(means[0], other, dim=0).item() for other in means[1:])
    assert near > far + 0.3  # the trained weights are loaded into the right parameters


def test_no_gradient_passes_through_frozen_layers(make_text_encoder: Build) -> None:
    """A trained parameter below them, such as a marker, would require their backward pass in every step."""
    encoder = make_text_encoder(trainable_layers=0)
    marker = encoder.tokenizer.marker_ids[HEAD_START]
    states = encoder(torch.tensor([[CLS, marker, 30, SEP]]), torch.ones(1, 4, dtype=torch.bool))
    assert not states.requires_grad
