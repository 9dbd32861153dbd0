"""Export a tiny model with random weights within a second, for tests that need any model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel, build
from mmib.labels import LabelSet

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS))
WIDTH, LAYERS, POSITIONS = 24, 2, 48
LABELS = LabelSet(("PER", "LOC"))


def write_tiny_export(folder: Path, seed: int = 0) -> Path:
    """Write an export of a model of entities, and its text encoder beside it; the weights depend only on the seed."""
    torch.manual_seed(seed)
    bert = folder.with_name(f"{folder.name}-bert")
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": WIDTH}
    config = BertConfig(vocab_size=len(VOCABULARY), **sizes, max_position_embeddings=POSITIONS, initializer_range=0.2)
    BertModel(config).save_pretrained(bert)
    BertTokenizer(vocab={piece: number for number, piece in enumerate(VOCABULARY)}).save_pretrained(bert)
    encoders = TextEncoder(str(bert)), ImageEncoder("test_resnet", pretrained=False)
    parts = {
        "gaussian": {"class_path": "mmib.nn.gaussian.GaussianEncoder", "init_args": {"heads": 4}},
        "fusion": {"class_path": "mmib.nn.fusion.CrossModalFusion", "init_args": {"heads": 4}},
    }
    network = build("mner", LABELS, encoders, parts, {"constrained": True})
    network.eval()
    write_export([TrainedModel(network, parts, max_length=POSITIONS, max_crops=2)], folder)
    return folder
