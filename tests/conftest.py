"""Tiny networks and batches, built locally: no test needs a model hub, a network or real weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.utils import logging as transformers_logging

from mmib.backbone import MultimodalIB
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.modules import MREModule
from mmib.nn.alignment import InfoNCEAlignment
from mmib.nn.fusion import CrossModalFusion
from mmib.nn.gaussian import GaussianEncoder
from mmib.schema import HEAD_END, HEAD_START, MARKERS, NO_IMAGE, TAIL_END, TAIL_START, MREBatch, PostBatch

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


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _awake_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention blocks start as identities; tests of masks and padding need ones that do something."""
    if "fresh_weights" not in request.keywords:
        monkeypatch.setattr("mmib.nn.attention.start_at_zero", lambda layer: None)


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
    """Tiny encoders on disk, long enough for whole posts."""

    text: str
    image: str

    def options(self) -> list[str]:
        """What replaces the encoders of any experiment by these, on the command line."""
        settings = {
            "text_encoder.name": self.text,
            "text_encoder.trainable_layers": str(LAYERS),
            "image_encoder.name": IMAGE_MODEL,
            "image_encoder.weights": self.image,
        }
        return [f"--model.backbone.{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="session")
def encoder_files(tmp_path_factory: pytest.TempPathFactory) -> EncoderFiles:
    """Files of tiny encoders, for data modules and for the command line."""
    text = _write_bert(tmp_path_factory.mktemp("long_bert"), positions=200)
    image = tmp_path_factory.mktemp("weights") / f"{IMAGE_MODEL}.pth"
    torch.save(timm.create_model(IMAGE_MODEL, num_classes=0).state_dict(), image)
    return EncoderFiles(text, str(image))


@pytest.fixture
def make_text_encoder(bert_folder: str) -> Callable[..., TextEncoder]:
    """Builds the tiny text encoder, without dropout unless told otherwise."""
    return partial(TextEncoder, bert_folder, dropout=0.0)


@pytest.fixture
def make_image_encoder() -> Callable[..., ImageEncoder]:
    """Builds a tiny ResNet with batch norms, of random weights; any picture size suits it."""
    return partial(ImageEncoder, IMAGE_MODEL, pretrained=False)


@pytest.fixture
def make_backbone(
    make_text_encoder: Callable[..., TextEncoder], make_image_encoder: Callable[..., ImageEncoder]
) -> Callable[..., MultimodalIB]:
    """Builds a tiny backbone: `text` and `image` are options of the encoders, `dropout` is that of the blocks."""

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
def make_module(make_backbone: Callable[..., MultimodalIB]) -> Callable[..., MREModule]:
    """Builds a tiny MREModule: `backbone` holds options of `make_backbone`, the rest goes to the module."""

    def make(backbone: dict[str, Any] | None = None, **options: Any) -> MREModule:
        return MREModule(make_backbone(**backbone or {}), **{"head_dropout": 0.0} | options)

    return make


def _post(length: int, generator: torch.Generator) -> list[int]:
    """[CLS] <head> word </head> … <tail> word </tail> … [SEP], of random words; the shortest has 8 pieces."""
    word = partial(torch.randint, 5, len(VOCABULARY), (1,), generator=generator)
    marker = {name: len(VOCABULARY) + number for number, name in enumerate(MARKERS)}
    entities = [
        *(marker[HEAD_START], int(word()), marker[HEAD_END]),
        *(marker[TAIL_START], int(word()), marker[TAIL_END]),
    ]
    filler = [int(word()) for _ in range(length - len(entities) - 2)]
    return [2, *entities, *filler, 3]


@pytest.fixture
def make_batch() -> Callable[..., MREBatch]:
    """Builds an MREBatch of random posts.

    `lengths` gives each row's word pieces (8 or more), `regions` its regions (0: no image), `image_ids` an id for
    each row (default: every image its own), `pixels` replaces the features by pictures, one a region.
    """

    def make(
        lengths: Sequence[int] = (9, 12, 8, 10),
        regions: Sequence[int] = (3, 1, 0, 2),
        image_ids: Sequence[int] | None = None,
        relations: Sequence[int] | None = None,
        pixels: bool = False,
        seed: int = 0,
    ) -> MREBatch:
        generator = torch.Generator().manual_seed(seed)
        size, width, slots = len(lengths), max(lengths), max(1, *regions)
        input_ids = torch.zeros(size, width, dtype=torch.long)
        for row, length in enumerate(lengths):
            input_ids[row, :length] = torch.tensor(_post(length, generator))
        region_mask = torch.arange(slots)[None, :] < torch.tensor(regions)[:, None]
        features = torch.randn(size, slots, IMAGE_WIDTH, generator=generator) * region_mask[:, :, None]
        corners = torch.rand(size, slots, 4, generator=generator) * region_mask[:, :, None]
        pictures = torch.randn(int(region_mask.sum()), 3, PICTURE_SIZE, PICTURE_SIZE, generator=generator)
        own_ids = [row if count else NO_IMAGE for row, count in enumerate(regions)]
        return MREBatch(
            rows=torch.arange(size),
            input_ids=input_ids,
            text_mask=torch.arange(width)[None, :] < torch.tensor(lengths)[:, None],
            region_mask=region_mask,
            image_ids=torch.tensor(own_ids if image_ids is None else image_ids),
            features=None if pixels else features,
            pixels=pictures if pixels else None,
            boxes=corners,
            positions=torch.tensor([[1, 4]]).expand(size, 2),
            relations=torch.arange(size) if relations is None else torch.tensor(relations),
        )

    return make


@pytest.fixture
def append_garbage() -> Callable[..., PostBatch]:
    """Appends masked word pieces and masked regions to a batch, full of large and valid-looking content."""

    def append(batch: MREBatch, pieces: int, regions: int) -> MREBatch:
        size = len(batch)
        ids = torch.randint(0, len(VOCABULARY) + len(MARKERS), (size, pieces))
        changed: dict[str, torch.Tensor] = {
            "input_ids": torch.cat([batch.input_ids, ids], dim=1),
            "text_mask": torch.cat([batch.text_mask, torch.zeros(size, pieces, dtype=torch.bool)], dim=1),
            "region_mask": torch.cat([batch.region_mask, torch.zeros(size, regions, dtype=torch.bool)], dim=1),
            "boxes": torch.cat([batch.boxes, 100 * torch.randn(size, regions, 4)], dim=1),
        }
        changed["input_ids"] = torch.where(
            changed["text_mask"], changed["input_ids"], torch.randint(0, len(VOCABULARY), changed["text_mask"].shape)
        )
        if batch.features is not None:
            features = torch.cat([batch.features, torch.zeros(size, regions, IMAGE_WIDTH)], dim=1)
            garbage = 100 * torch.randn(features.shape)
            changed["features"] = torch.where(changed["region_mask"][:, :, None], features, garbage)
        return dataclasses.replace(batch, **changed)

    return append


@pytest.fixture
def unpack_bert(bert_folder: str, tmp_path: Path) -> Path:
    """A copy of the tiny BERT's folder, to damage."""
    folder = tmp_path / "bert"
    folder.mkdir()
    for file in Path(bert_folder).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
