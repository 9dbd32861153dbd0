"""Tiny networks and batches, built locally: no test needs a model hub, a network or real weights."""

from __future__ import annotations

import dataclasses
import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import setuptools  # noqa: F401 - torch.compile imports it, which fails after anything has imported distutils
import timm
import torch
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.utils import logging as transformers_logging

from mmib.backbone import MultimodalIB
from mmib.datamodules.labels import label_set
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import Markers, TextEncoder
from mmib.export.model import TrainedModel, build
from mmib.labels import LabelSet
from mmib.modules import ExtractionModule, MNERModule, MREModule
from mmib.nn.alignment import InfoNCEAlignment
from mmib.nn.fusion import CrossModalFusion
from mmib.nn.gaussian import GaussianEncoder
from mmib.schema import (
    HEAD_END,
    HEAD_START,
    MARKERS,
    NO_IMAGE,
    NO_LABEL,
    NO_WORD,
    TAIL_END,
    TAIL_START,
    PostBatch,
)
from mmib.tagging import bio_tags, count_mentions, repair
from mmib.tasks.mner import MNERBatch
from mmib.tasks.mre import MREBatch

torch.set_num_threads(1)
transformers_logging.disable_progress_bar()

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789[]<>:/."
VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *("the", "and", "meets", "anna", "bob", "paris", "sep", "head", "tail"),
)
WIDTH = 24
LAYERS = 3
IMAGE_MODEL = "test_resnet"
IMAGE_WIDTH = 96
PICTURE_SIZE = 32
LABELS = {"mre": label_set("mnre"), "mner": label_set("twitter")}
TAGS = bio_tags(LABELS["mner"].names)
TAG_IDS = {tag: number for number, tag in enumerate(TAGS)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore signal handlers after each test: commands install theirs for the lifetime of their process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None:  # handler of native code
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _awake_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention blocks start near the identity; tests of masks and padding need blocks that attend."""
    if "fresh_weights" not in request.keywords:
        monkeypatch.setattr("mmib.nn.attention.start_small", lambda layer: None)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A local folder with a BERT of 3 layers, width 24, and its word-piece tokenizer."""
    return _write_bert(tmp_path_factory.mktemp("bert"), positions=64)


def _write_bert(folder: Path, positions: int) -> str:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={piece: number for number, piece in enumerate(VOCABULARY)}).save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class EncoderFiles:
    """Tiny encoders on disk that accept posts of normal length."""

    text: str
    image: str

    def options(self) -> list[str]:
        """Options that replace the encoders of any experiment by these."""
        settings = {
            "text_encoder.name": self.text,
            "text_encoder.trainable_layers": str(LAYERS),
            "image_encoder.name": IMAGE_MODEL,
            "image_encoder.runtime": "torch",
            "image_encoder.weights": self.image,
        }
        return [f"--model.backbone.{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="session")
def encoder_files(tmp_path_factory: pytest.TempPathFactory) -> EncoderFiles:
    """Tiny encoders on disk, for data modules and the command line."""
    text = _write_bert(tmp_path_factory.mktemp("long_bert"), positions=200)
    image = tmp_path_factory.mktemp("weights") / f"{IMAGE_MODEL}.pth"
    torch.save(timm.create_model(IMAGE_MODEL, num_classes=0).state_dict(), image)
    return EncoderFiles(text, str(image))


@pytest.fixture
def make_text_encoder(bert_folder: str) -> Callable[..., TextEncoder]:
    """Builds the tiny text encoder, without dropout by default."""
    return partial(TextEncoder, bert_folder, dropout=0.0)


@pytest.fixture
def make_image_encoder() -> Callable[..., ImageEncoder]:
    """Builds a tiny randomly initialised ResNet with batch norm that accepts any image size."""
    return partial(ImageEncoder, IMAGE_MODEL, pretrained=False)


@pytest.fixture
def make_backbone(
    make_text_encoder: Callable[..., TextEncoder], make_image_encoder: Callable[..., ImageEncoder]
) -> Callable[..., MultimodalIB]:
    """Builds a tiny backbone: `text` and `image` are encoder options, `dropout` is the dropout of the blocks."""

    def make(
        text: dict[str, Any] | None = None, image: dict[str, Any] | None = None, dropout: float = 0.0, **options: Any
    ) -> MultimodalIB:
        parts: dict[str, Any] = {
            "gaussian": partial(GaussianEncoder, heads=4, dropout=dropout),
            "alignment": InfoNCEAlignment,
            "fusion": partial(CrossModalFusion, heads=4, dropout=dropout),
        }
        return MultimodalIB(make_text_encoder(**text or {}), make_image_encoder(**image or {}), **parts | options)

    return make


@pytest.fixture
def task() -> str:
    """The task of `make_batch` and `make_module`; tests of both tasks parametrise it."""
    return "mre"


@pytest.fixture
def make_module(make_backbone: Callable[..., MultimodalIB], task: str) -> Callable[..., ExtractionModule]:
    """Builds a tiny module: `backbone` holds options of `make_backbone`, all others go to the module."""

    def make(backbone: dict[str, Any] | None = None, **options: Any) -> ExtractionModule:
        kind: type[ExtractionModule] = {"mre": MREModule, "mner": MNERModule}[task]
        return kind(make_backbone(**backbone or {}), **{"head_dropout": 0.0} | options)

    return make


def _posts(
    contents: Sequence[Sequence[int]],
    regions: Sequence[int],
    image_ids: Sequence[int] | None,
    pixels: bool,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The fields of `PostBatch` except `positions`, `word_ids` and `mentions`, with random word pieces and images."""
    size, width, slots = len(contents), max(map(len, contents)), max(1, *regions)
    input_ids = torch.zeros(size, width, dtype=torch.long)
    for row, content in enumerate(contents):
        input_ids[row, : len(content)] = torch.tensor(content)
    region_mask = torch.arange(slots)[None, :] < torch.tensor(regions)[:, None]
    features = torch.randn(size, slots, IMAGE_WIDTH, generator=generator) * region_mask[:, :, None]
    corners = torch.rand(size, slots, 4, generator=generator) * region_mask[:, :, None]
    pictures = torch.randn(int(region_mask.sum()), 3, PICTURE_SIZE, PICTURE_SIZE, generator=generator)
    own_ids = [row if count else NO_IMAGE for row, count in enumerate(regions)]
    return {
        "rows": torch.arange(size),
        "input_ids": input_ids,
        "text_mask": torch.arange(width)[None, :] < torch.tensor(list(map(len, contents)))[:, None],
        "region_mask": region_mask,
        "image_ids": torch.tensor(own_ids if image_ids is None else image_ids),
        "features": None if pixels else features,
        "pixels": pictures if pixels else None,
        "boxes": corners,
    }


def _content(length: int, task: str, generator: torch.Generator) -> list[int]:
    """[CLS], random pieces, [SEP]; for MRE [CLS] <head> word </head> <tail> word </tail> …, 8 pieces or more."""
    word = partial(torch.randint, 5, len(VOCABULARY), (1,), generator=generator)
    marker = {name: len(VOCABULARY) + number for number, name in enumerate(MARKERS)}
    entities = [
        *(marker[HEAD_START], int(word()), marker[HEAD_END]),
        *(marker[TAIL_START], int(word()), marker[TAIL_END]),
    ]
    opening = entities if task == "mre" else []
    return [2, *opening, *(int(word()) for _ in range(length - len(opening) - 2)), 3]


def _first_pieces(length: int) -> list[int]:
    """First pieces of words with one, two, one and three pieces in turn, in a post of `length` pieces."""
    return list(
        itertools.takewhile(lambda place: place < length - 1, itertools.accumulate([1, *[1, 2, 1, 3] * length]))
    )


def _tag_fields(
    lengths: Sequence[int], unseen: Sequence[int], gold: Sequence[Sequence[str]] | None, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The additional fields of an MNERBatch, with random tags (stray ones included) unless gold tags are given."""
    pieces = [_first_pieces(length) for length in lengths]
    if gold is None:
        words = [len(gold_ids) + beyond for gold_ids, beyond in zip(pieces, unseen, strict=True)]
        gold = [[TAGS[tag] for tag in torch.randint(len(TAGS), (count,), generator=generator)] for count in words]
    shape = len(lengths), max(map(len, gold))
    positions, tags = torch.zeros(shape, dtype=torch.long), torch.full(shape, TAG_IDS["O"])
    gold_ids, seen = torch.full(shape, NO_LABEL), torch.zeros(shape, dtype=torch.bool)
    mentions = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    word_ids = torch.full_like(mentions, NO_WORD)
    for row, (labels, places) in enumerate(zip(gold, pieces, strict=True)):
        visible = places[: len(labels)]
        positions[row, : len(visible)] = torch.tensor(visible)
        seen[row, : len(visible)] = True
        gold_ids[row, : len(labels)] = torch.tensor([TAG_IDS[tag] for tag in labels])
        tags[row, : len(labels)] = torch.tensor([TAG_IDS[tag] for tag in repair(list(labels))])
        numbers = count_mentions(repair(list(labels)))
        for word, (start, end) in enumerate(itertools.pairwise([*visible, lengths[row] - 1])):
            word_ids[row, start:end] = word
            mentions[row, start:end] = numbers[word]
    pieces_of = {"word_ids": word_ids, "mentions": mentions}
    return {**pieces_of, "positions": positions, "word_mask": seen, "tags": tags, "gold": gold_ids}


@pytest.fixture
def make_batch(task: str) -> Callable[..., PostBatch]:
    """Builds a batch of random posts.

    `lengths` gives each row's word pieces (8 or more), `regions` its regions (0: no image), `image_ids` an id for
    each row (default: all images distinct); `pixels` replaces the features by images, one per region. `labels` are
    those of the task: one relation per row, or the original tag names of each row, one per word. Words after the
    last piece are not encoded; without `labels` there are as many of them as `unseen` says.
    """

    def make(
        lengths: Sequence[int] = (9, 12, 8, 10),
        regions: Sequence[int] = (3, 1, 0, 2),
        image_ids: Sequence[int] | None = None,
        labels: Sequence[Any] | None = None,
        pixels: bool = False,
        seed: int = 0,
        unseen: Sequence[int] | None = None,
    ) -> PostBatch:
        generator = torch.Generator().manual_seed(seed)
        contents = [_content(length, task, generator) for length in lengths]
        posts = _posts(contents, regions, image_ids, pixels, generator)
        if task == "mner":
            beyond = [row % 2 * 2 for row in range(len(lengths))] if unseen is None else unseen
            return MNERBatch(**posts, **_tag_fields(lengths, beyond, labels, generator))
        is_word = posts["text_mask"] & (posts["input_ids"] < len(VOCABULARY)) & (posts["input_ids"] > 3)
        mentions = torch.zeros_like(posts["input_ids"])
        mentions[:, [2, 5]] = torch.tensor([1, 2])
        return MREBatch(
            **posts,
            word_ids=torch.where(is_word, is_word.cumsum(dim=1) - 1, NO_WORD),
            mentions=mentions,
            positions=torch.tensor([[1, 4]]).expand(len(lengths), 2),
            label_ids=torch.arange(len(lengths)) if labels is None else torch.tensor(labels),
        )

    return make


@pytest.fixture
def append_garbage() -> Callable[..., PostBatch]:
    """Appends masked word pieces, regions and (MNER) words to a batch; masked positions hold plausible garbage."""

    def append(batch: PostBatch, pieces: int, regions: int, words: int = 0) -> PostBatch:
        text_mask, region_mask = _longer(batch.text_mask, pieces), _longer(batch.region_mask, regions)
        ids = torch.randint(0, len(VOCABULARY) + len(MARKERS), text_mask.shape)
        changed: dict[str, torch.Tensor] = {
            "text_mask": text_mask,
            "region_mask": region_mask,
            "input_ids": torch.where(text_mask, _longer(batch.input_ids, pieces), ids),
            "word_ids": torch.cat([batch.word_ids, torch.full((len(batch), pieces), NO_WORD)], dim=1),
            "mentions": _longer(batch.mentions, pieces),
            "boxes": torch.cat([batch.boxes, 100 * torch.randn(len(batch), regions, 4)], dim=1),
        }
        if batch.features is not None:
            garbage = 100 * torch.randn(*region_mask.shape, IMAGE_WIDTH)
            changed["features"] = torch.where(region_mask[:, :, None], _longer(batch.features, regions), garbage)
        if isinstance(batch, MNERBatch):
            word_mask = _longer(batch.word_mask, words)
            places, tags = (torch.randint(most, word_mask.shape) for most in (text_mask.shape[1], len(TAGS)))
            changed["word_mask"] = word_mask
            changed["positions"] = torch.where(word_mask, _longer(batch.positions, words), places)
            changed["tags"] = torch.where(word_mask, _longer(batch.tags, words), tags)
            changed["gold"] = torch.cat([batch.gold, torch.full((len(batch), words), NO_LABEL)], dim=1)
        return dataclasses.replace(batch, **changed)

    return append


def _longer(tensor: torch.Tensor, more: int) -> torch.Tensor:
    """(B, N, ...) extended by `more` zeros along N."""
    return torch.cat([tensor, tensor.new_zeros(len(tensor), more, *tensor.shape[2:])], dim=1)


@pytest.fixture
def tiny_parts() -> dict[str, Any]:
    """The parts of a tiny backbone, as in a configuration."""
    return {
        "gaussian": {"class_path": "mmib.nn.gaussian.GaussianEncoder", "init_args": {"heads": 4, "dropout": 0.1}},
        "alignment": {"class_path": "mmib.nn.alignment.InfoNCEAlignment", "init_args": {"granularity": "late"}},
        "fusion": {"class_path": "mmib.nn.fusion.CrossModalFusion", "init_args": {"heads": 4, "dropout": 0.1}},
    }


@pytest.fixture
def make_trained(bert_folder: str, tiny_parts: dict[str, Any]) -> Callable[..., TrainedModel]:
    """Builds a randomly initialised model with many confident predictions.

    `image` are options of its image encoder, `text` is the folder of its text encoder, `markers` the kind of markers.
    """

    def make(
        task: str,
        labels: LabelSet | None = None,
        image: dict[str, Any] | None = None,
        parts: dict[str, Any] | None = None,
        text: str = bert_folder,
        markers: Markers = "inserted",
        **options: Any,
    ) -> TrainedModel:
        pictures = ImageEncoder(**{"name": IMAGE_MODEL, "pretrained": False} | (image or {}))
        named = tiny_parts | (parts or {})
        network = build(task, labels or LABELS[task], (TextEncoder(text, markers=markers), pictures), named, {})
        with torch.no_grad():
            for parameter in network.head.parameters():
                parameter.mul_(8.0)
        network.eval().requires_grad_(False)
        return TrainedModel(network=network, parts=named, **{"max_length": 60, "max_crops": 4} | options)

    return make


@pytest.fixture
def unpack_bert(bert_folder: str, tmp_path: Path) -> Path:
    """A copy of the tiny BERT's folder that a test may damage."""
    folder = tmp_path / "bert"
    folder.mkdir()
    for file in Path(bert_folder).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
