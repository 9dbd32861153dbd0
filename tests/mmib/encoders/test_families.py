"""Every family of text encoders matches the library's implementation, reads any words, and trains the right parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mmib.encoders.pretrained import weightless
from mmib.encoders.text import TextEncoder
from mmib.export.folder import read_export, write_export
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor
from mmib.schema import MARKERS, TAIL_END, ConfigError

POSTS = [
    ["anna", "meets", "\U0001f469\u200d\U0001f467", "#anna", "\u5317\u4eac", "@bo:"],
    ["a", "\u2764\ufe0f", "an"],
]
NOTHING = ["\u200d", "\ufe0f", "\u00a0", "\ufffd", "", " "]


def inputs_of(encoder: TextEncoder, posts: list[list[str]], markers: bool = False) -> tuple[Tensor, Tensor]:
    """Ids (B, L) and mask of posts, optionally with all four markers after the start token."""
    tokenizer = encoder.tokenizer
    opening = [*tokenizer.prefix, *(tokenizer.marker_ids.values() if markers else ())]
    rows = [
        [*opening, *(id_ for word in words for id_ in word), *tokenizer.suffix] for words in tokenizer.pieces(posts)
    ]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_id] * (width - len(row)) for row in rows])
    return ids, torch.arange(width)[None, :] < torch.tensor(list(map(len, rows)))[:, None]


def in_training(built: Any, **options: Any) -> TextEncoder:
    return TextEncoder(built.folder, **options).train()


def test_states_match_the_librarys_encoder(built: Any) -> None:
    texts = [built.family.space + " ".join(words) for words in POSTS]
    expected = [built.tokenizer(text)["input_ids"] for text in texts]
    ids, mask = inputs_of(built.encoder, POSTS)
    assert [row[: int(seen.sum())].tolist() for row, seen in zip(ids, mask, strict=True)] == expected
    with torch.inference_mode():
        reference = built.family.encoder(built.folder).eval()
        for row, seen, states in zip(ids, mask, built.encoder(ids, mask), strict=True):
            alone = reference(input_ids=row[None, seen]).last_hidden_state[0]
            torch.testing.assert_close(states[seen], alone, rtol=1e-5, atol=2e-6)
    assert built.encoder.dim == states.shape[-1] == 16


def test_masked_pieces_do_not_change_any_state(built: Any) -> None:
    ids, mask = inputs_of(built.encoder, POSTS, markers=True)
    garbage = torch.randint(0, built.encoder.tokenizer.vocabulary_size, (len(ids), 7))
    longer, longer_mask = torch.cat([ids, garbage], 1), torch.cat([mask, torch.zeros_like(garbage, dtype=bool)], 1)
    with torch.inference_mode():
        states, padded = built.encoder(ids, mask), built.encoder(longer, longer_mask)
    torch.testing.assert_close(padded[:, : ids.shape[1]][mask], states[mask], rtol=1e-5, atol=2e-6)


def test_eager_attention_gives_the_same_states(built: Any) -> None:
    ids, mask = inputs_of(built.encoder, POSTS)
    with torch.inference_mode():
        states = TextEncoder(built.folder, attention="eager").eval()(ids, mask)
        torch.testing.assert_close(states[mask], built.encoder(ids, mask)[mask], rtol=1e-4, atol=1e-5)


def test_every_word_has_the_same_pieces_at_any_position(built: Any) -> None:
    tokenizer, words = built.encoder.tokenizer, [word for post in POSTS for word in post]
    together = tokenizer.pieces([words + NOTHING])[0]
    assert together == [tokenizer.pieces([[word]])[0][0] for word in words + NOTHING]
    assert all(together)
    if built.tokenizer.is_fast:
        given = [built.family.space + word for word in words]
        reference = built.tokenizer(given, is_split_into_words=True, add_special_tokens=False)
        pieces = zip(reference.word_ids(), reference["input_ids"], strict=True)
        assert [(number, id_) for number, ids in enumerate(together[: len(words)]) for id_ in ids] == list(pieces)


def test_special_tokens_in_a_text_are_read_as_characters(built: Any) -> None:
    tokenizer = built.encoder.tokenizer
    texts = [*built.tokenizer.all_special_tokens, "<s>", "</s>", "[SEP]", *MARKERS]
    special = {*tokenizer.prefix, *tokenizer.suffix, *built.tokenizer.all_special_ids} - {tokenizer.unknown_id}
    for text in texts:
        plain, within = tokenizer.pieces([[text, f"x{text}x"]])[0]
        assert len(plain) > 1
        assert len(within) > len(plain)
        assert not special & {*plain, *within}
        assert max(*plain, *within) < tokenizer.vocabulary_size


def test_every_marker_has_a_separate_embedding(built: Any) -> None:
    encoder = in_training(built, dropout=0.0)
    ids, mask = inputs_of(encoder, POSTS, markers=True)
    words = ids[1:] * (ids[1:] < encoder.tokenizer.vocabulary_size)
    encoder(ids[:1], mask[:1]).square().sum().backward()
    assert encoder.markers.weight.grad is not None
    assert (encoder.markers.weight.grad.abs().sum(dim=1) > 0).all()
    with torch.inference_mode():
        before, plain = encoder(ids, mask), encoder(words, mask[1:])
        encoder.markers.weight[MARKERS.index(TAIL_END)].add_(torch.randn(encoder.markers.embedding_dim))
        after = encoder(ids, mask)
        assert (after - before)[mask].abs().max() > 1e-3
        assert torch.equal(encoder(words, mask[1:]), plain)


def test_the_maximum_length_is_limited_by_positions(built: Any) -> None:
    length, expected = built.encoder.tokenizer.max_length, built.family.max_length
    assert length == expected
    ids = torch.full((1, length or 100), built.encoder.tokenizer.unknown_id)
    with torch.inference_mode():
        assert built.encoder(ids, torch.ones_like(ids, dtype=bool)).isfinite().all()


@pytest.mark.parametrize("count", [None, 0, 1, "all"])
def test_trainable_layers_determine_the_trained_parameters(built: Any, count: Any) -> None:
    family = built.family
    encoder = in_training(built, trainable_layers=family.layers if count == "all" else count, dropout=0.0)
    named = dict(encoder.named_parameters())
    trained = {name.removeprefix("encoder.") for name, parameter in named.items() if parameter.requires_grad}
    layers = encoder.layers()
    assert len(layers) == family.layers
    top = layers[len(layers) - 1 :] if count == 1 else layers if count in ("all", None) else []
    of_top = {id(parameter) for layer in top for parameter in layer.parameters()}
    shared = set(family.shared)
    everywhere = {name.removeprefix("encoder.") for name, parameter in named.items() if id(parameter) in of_top}
    assert everywhere - trained <= (shared if count == 1 else set())
    assert set(family.above) <= trained if count != 0 else not trained
    if count == 1 and family.layers > 1:
        assert not shared & trained
    if count in ("all", None):
        assert shared <= trained
    embeddings = encoder.encoder.get_input_embeddings().parameters()
    assert all(p.requires_grad == (count is None) for p in [*embeddings, *encoder.markers.parameters()])

    seen: list[bool] = []
    if top:
        top[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].requires_grad))
    ids, mask = inputs_of(encoder, POSTS, markers=True)
    states = encoder(ids, mask)
    assert states.requires_grad == (count != 0)
    if count is not None and seen:
        assert not seen[0], "a gradient runs through frozen layers"
    if count != 0:
        states[mask].square().sum().backward()
    for name, parameter in named.items():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_frozen_parts_have_no_dropout_and_trained_ones_have(built: Any) -> None:
    encoder = in_training(built, trainable_layers=1, dropout=0.5)
    read: list[Tensor] = []
    encoder.layers()[-1].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    ids, mask = inputs_of(encoder, POSTS[:1], markers=True)
    first, calls = encoder(ids, mask), len(read)
    second = encoder(ids, mask)
    assert torch.equal(read[0], read[calls])
    assert not torch.equal(first, second)
    encoder = in_training(built, dropout=0.0)
    assert torch.equal(encoder(ids, mask), encoder(ids, mask)), "dropout 0 replaces every probability"


def test_exported_encoders_give_the_same_states(
    built: Any, make_trained: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    model = make_trained("mre", text=built.folder, max_length=38)
    write_export([model], tmp_path / "export")
    exported = read_export(tmp_path / "export")
    tokenizers = [each.network.backbone.text_encoder.tokenizer for each in (model, *exported)]
    assert tokenizers[0].fingerprint() == tokenizers[1].fingerprint()
    given = {"entities": [(0, 4, "PER"), (13, 18, "LOC")]}
    before, after = (Extractor(models).extract("anna went to paris #an", **given) for models in ([model], exported))
    assert before.relations
    assert before == after


def test_frozen_parts_can_be_determined_from_shapes_alone(built: Any) -> None:
    with weightless():
        shapes = TextEncoder(built.folder, trainable_layers=1)
    whole = TextEncoder(built.folder, trainable_layers=1)
    frozen = [[n for n, p in encoder.named_parameters() if not p.requires_grad] for encoder in (shapes, whole)]
    assert frozen[0] == ([] if built.family.reads_values else frozen[1])
    assert shapes.dim == whole.dim


def test_too_many_trainable_layers_are_refused(built: Any) -> None:
    count = built.family.layers
    with pytest.raises(ConfigError, match=f"trainable_layers is {count + 1}: the text encoder has 0 to {count} layers"):
        TextEncoder(built.folder, trainable_layers=count + 1)


def steps_of_a_rank(rank: int, folders: list[str], address: str) -> None:
    """Two steps of plain DDP, which complains in the second if a parameter got no gradient in the first."""
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    for folder in folders:
        for trainable in (None, 1):
            encoder = TextEncoder(folder, trainable_layers=trainable, dropout=0.0)
            network: nn.Module = DistributedDataParallel(encoder)
            ids, mask = inputs_of(encoder, POSTS, markers=True)
            for _ in range(2):
                encoder.zero_grad()
                network(ids[rank : rank + 1], mask[rank : rank + 1]).square().sum().backward()
            for name, parameter in encoder.named_parameters():
                if parameter.requires_grad:
                    assert parameter.grad is not None, name
                    other = parameter.grad.clone()
                    dist.broadcast(other, 0)
                    torch.testing.assert_close(other, parameter.grad)
    dist.destroy_process_group()


def test_families_train_on_two_ranks(family_folder: Callable[[str], str], tmp_path: Path) -> None:
    """One with a pooler and a shared table, and one whose only input is ids."""
    folders = [family_folder(name) for name in ("MPNet", "CLIP text")]
    address = f"file://{tmp_path / 'meeting'}"
    mp.start_processes(steps_of_a_rank, (folders, address), nprocs=2, start_method="fork")
