"""Small data sets with images, and folders of randomly initialised detectors."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    SwinConfig,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def noise() -> Callable[..., Image.Image]:
    """Writes an image in which all neighbouring pixels differ."""

    def make(path: Path, size: tuple[int, int] = (90, 60), seed: int = 0) -> Image.Image:
        image = Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
        return image

    return make


@pytest.fixture
def mnre(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows of (text, image name), whose first and last words are the entities; returns the root."""

    def make(*rows: tuple[str, str], split: str = "train") -> Path:
        path = tmp_path / "mnre" / "txt" / f"ours_{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for text, image in rows:
            words = text.split()
            head, tail = {"name": words[0], "pos": [0, 1]}, {"name": words[-1], "pos": [len(words) - 1, len(words)]}
            row = {"token": words, "h": head, "t": tail, "img_id": image, "relation": "/per/per/peer"}
            lines.append(f"{row!r}\n")
        path.write_text("".join(lines), encoding="utf-8")
        return path.parents[1]

    return make


@pytest.fixture
def twitter(tmp_path: Path) -> Callable[..., Path]:
    """Writes posts of (text, IMGID) without entities; returns the root."""

    def make(*posts: tuple[str, str], year: int = 2017, split: str = "train") -> Path:
        path = tmp_path / "twitter" / f"twitter{year}" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"IMGID:{image}\n" + "".join(f"{word}\tO\n" for word in text.split()) for text, image in posts]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path.parents[1]

    return make


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of randomly initialised detectors, by family."""
    folder = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    _grounding_dino(folder / "grounding-dino")
    _owl(folder / "owlv2", Owlv2Config, Owlv2ForObjectDetection, Owlv2Processor, Owlv2ImageProcessor)
    _owl(folder / "owlvit", OwlViTConfig, OwlViTForObjectDetection, OwlViTProcessor, OwlViTImageProcessor)
    return {path.name: str(path) for path in folder.iterdir()}


def _grounding_dino(folder: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    text = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    image = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, out_indices=[2, 3, 4])
    config = GroundingDinoConfig(
        backbone_config=image,
        text_config=text,
        d_model=32,
        num_queries=8,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    size = {"shortest_edge": 96, "longest_edge": 160}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(folder)


def _owl(folder: Path, config_type: type, model_type: type, processor_type: type, image_type: type) -> None:
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(pieces) - 2, len(pieces) - 1
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 16}
    text = {"vocab_size": len(pieces), "bos_token_id": start, "eos_token_id": end, "pad_token_id": 0, **layers}
    config = config_type(
        text_config={**text, "max_position_embeddings": 16},
        vision_config={"image_size": 32, "patch_size": 8, **layers},
        projection_dim=16,
    )
    model_type(config).save_pretrained(folder)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
    processor_type(image_type(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
