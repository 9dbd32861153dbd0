"""Tiny text encoders of every family, built only from the library's configuration and tokenizer classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertTokenizer,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BartModel,
    BartTokenizer,
    BertTokenizer,
    BertweetTokenizer,
    CamembertTokenizer,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    DebertaTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    GPT2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5EncoderModel,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from mmib.encoders.text import TextEncoder

DEPTH, POSITIONS = 3, 72
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz@#:/.[]<>|")
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("\u0120", "a"), ("\u0120a", "n")]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": POSITIONS,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": DEPTH, "num_heads": 2, "decoder_start_token_id": 0}
BART = {
    "d_model": 16,
    "max_position_embeddings": POSITIONS,
    **{f"{side}_layers": depth for side, depth in (("encoder", DEPTH), ("decoder", 2))},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
}
DEBERTA = {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


def _word_pieces(special: list[str]) -> dict[str, int]:
    return _numbered([*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), "anna", "\u5317"])


def _byte_level(special: list[str]) -> dict[str, Any]:
    return {"vocab": _numbered([*special, *BYTES, *("".join(pair) for pair in MERGES)]), "merges": MERGES}


def _unigrams(first: list[str], last: list[str]) -> list[tuple[str, float]]:
    pieces = ["\u2581", "\u2581an", "na", *LETTERS]
    special = [(piece, 0.0) for piece in first], [(piece, 0.0) for piece in last]
    return [*special[0], *((piece, -1.0 - number / 10) for number, piece in enumerate(pieces)), *special[1]]


def _bertweet(folder: Path) -> BertweetTokenizer:
    letters = [piece for letter in LETTERS for piece in (letter, f"{letter}@@")]
    lines = "".join(f"{piece} 1\n" for piece in ["an@@", "na", *letters])
    (folder / "vocab.txt").write_text(lines, encoding="utf-8")
    (folder / "bpe.codes").write_text("a n 10\nn a</w> 5\n", encoding="utf-8")
    return BertweetTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))


def _without_class(_: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without a class that supports `add_prefix_space`, like ModernBERT's."""
    tokenizer = Tokenizer(models.BPE(**_byte_level(BERT)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, BERT, strict=True)))


def _clip(_: Path) -> CLIPTokenizer:
    pieces = [*BYTES, *(f"{byte}</w>" for byte in BYTES), "an", "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_numbered(pieces), merges=[("a", "n")])


def _camembert(_: Path) -> CamembertTokenizer:
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    return CamembertTokenizer(vocab=_unigrams(first, ["<mask>"]))


def _deberta_v2(_: Path) -> DebertaV2Tokenizer:
    return DebertaV2Tokenizer(vocab=_unigrams(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"]))


@dataclass(frozen=True)
class Family:
    """How a text encoder is built, and its special properties.

    Attributes:
        model_type: the library's name of the architecture.
        tokenizer: builds its tokenizer, which may write its files into the folder.
        settings: settings of its configuration.
        encoder: loads the part that encodes text, without our code.
        max_length: longest sequence with positions; None: unlimited.
        space: prefix of a text, if the tokenizer treats the space before a word as part of it.
        shared: parameters that every layer reads in addition to the states.
        above: parameters after the last layer.
        layers: number of layers with separate weights.
        reads_values: its operations depend on values, so that shapes alone do not determine its dependencies.
    """

    model_type: str
    tokenizer: Callable[[Path], Any]
    settings: dict[str, Any] = field(default_factory=lambda: SIZES)
    encoder: Callable[[str], Any] = AutoModel.from_pretrained
    max_length: int | None = POSITIONS
    space: str = ""
    shared: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    layers: int = DEPTH
    reads_values: bool = False


RELATIVE = "encoder.rel_embeddings.weight"
FAMILIES = {
    "BERT": Family("bert", lambda _: BertTokenizer(vocab=_word_pieces(BERT))),
    "RoBERTa": Family(
        "roberta", lambda _: RobertaTokenizer(**_byte_level(ROBERTA)), max_length=POSITIONS - 2, space=" "
    ),
    "XLM-R": Family(
        "xlm-roberta",
        lambda _: XLMRobertaTokenizer(vocab=_unigrams(ROBERTA[:4], ["<mask>"])),
        max_length=POSITIONS - 2,
    ),
    "DistilBERT": Family(
        "distilbert",
        lambda _: DistilBertTokenizer(vocab=_word_pieces(BERT)),
        {"dim": 16, "n_layers": DEPTH, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": POSITIONS},
    ),
    "ALBERT": Family(
        "albert",
        lambda _: AlbertTokenizer(vocab=_unigrams(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], [])),
        {**SIZES, "embedding_size": 8},
        layers=1,
    ),
    "ELECTRA": Family("electra", lambda _: BertTokenizer(vocab=_word_pieces(BERT)), {**SIZES, "embedding_size": 8}),
    "CamemBERT": Family("camembert", _camembert, max_length=POSITIONS - 2),
    "ModernBERT": Family(
        "modernbert",
        _without_class,
        {**SIZES, "cls_token_id": 2, "sep_token_id": 3},
        space=" ",
        above=("final_norm.weight",),
    ),
    "DeBERTa": Family(
        "deberta",
        lambda _: DebertaTokenizer(**_byte_level(["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"])),
        DEBERTA,
        space=" ",
        shared=(RELATIVE,),
        reads_values=True,
    ),
    "DeBERTa-v2": Family(
        "deberta-v2",
        _deberta_v2,
        {**DEBERTA, "position_biased_input": False, "conv_kernel_size": 3, "norm_rel_ebd": "layer_norm"},
        shared=(RELATIVE, "encoder.LayerNorm.weight"),
    ),
    "DeBERTa-v3": Family(
        "deberta-v2",
        _deberta_v2,
        {**DEBERTA, "position_biased_input": False, "position_buckets": 8, "share_att_key": True, "type_vocab_size": 0},
        shared=(RELATIVE,),
    ),
    "MPNet": Family(
        "mpnet",
        lambda _: MPNetTokenizer(vocab=_word_pieces(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"])),
        max_length=POSITIONS - 2,
        shared=("encoder.relative_attention_bias.weight",),
    ),
    "BERTweet": Family(
        "roberta", _bertweet, {**SIZES, "tokenizer_class": "BertweetTokenizer"}, max_length=POSITIONS - 2
    ),
    "GPT-2": Family(
        "gpt2",
        lambda _: GPT2Tokenizer(**_byte_level(["<|endoftext|>"])),
        {"n_embd": 16, "n_layer": DEPTH, "n_head": 2, "n_positions": POSITIONS},
        space=" ",
        above=("ln_f.weight", "ln_f.bias"),
    ),
    "T5": Family(
        "t5",
        lambda _: T5Tokenizer(vocab=_unigrams(["<pad>", "</s>", "<unk>"], []), extra_ids=2),
        T5,
        T5EncoderModel.from_pretrained,
        max_length=None,
        shared=("block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
        above=("final_layer_norm.weight",),
    ),
    "BART": Family(
        "bart",
        lambda _: BartTokenizer(**_byte_level(ROBERTA)),
        BART,
        lambda folder: BartModel.from_pretrained(folder).get_encoder(),
        space=" ",
    ),
    "CLIP text": Family(
        "clip_text_model",
        _clip,
        encoder=CLIPTextModel.from_pretrained,
        above=("final_layer_norm.weight", "final_layer_norm.bias"),
    ),
    "CLIP": Family(
        "clip",
        _clip,
        {"text_config": SIZES, "vision_config": VISION, "projection_dim": 16},
        lambda folder: CLIPModel.from_pretrained(folder).text_model,
        above=("final_layer_norm.weight", "final_layer_norm.bias"),
    ),
}


@dataclass(frozen=True)
class Built:
    """A family on disk and in memory.

    Attributes:
        name: name of the family.
        family: how it was built.
        folder: its files.
        encoder: ours, without dropout, in evaluation mode; not to be changed.
        tokenizer: the library's tokenizer.
    """

    name: str
    family: Family
    folder: str
    encoder: TextEncoder
    tokenizer: Any


def _write(family: Family, folder: Path) -> None:
    tokenizer = family.tokenizer(folder)
    if not isinstance(tokenizer, BertweetTokenizer):  # it does not save its merges in the format it reads
        tokenizer.save_pretrained(folder)
    pad = tokenizer.pad_token_id
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0 if pad is None else pad}
    ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    settings = family.settings
    if "text_config" in settings:
        settings = {**settings, "text_config": settings["text_config"] | ids}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.model_type, **settings, **({} if "text_config" in settings else ids))
    AutoModel.from_config(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a family's model."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> str:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
            _write(FAMILIES[name], folders[name])
        return str(folders[name])

    return folder_of


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: pytest.FixtureRequest, family_folder: Callable[[str], str]) -> Built:
    """All families, one at a time."""
    name = request.param
    folder = family_folder(name)
    encoder = TextEncoder(folder, dropout=0.0).eval()
    return Built(name, FAMILIES[name], folder, encoder, AutoTokenizer.from_pretrained(folder))
