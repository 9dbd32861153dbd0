"""A published recipe: our network, run in the way that the field's released code runs its own.

Every post is padded to the maximum length; every image is decoded and encoded at each step, although the encoder is
frozen; arithmetic is float32; all positions are fused, and those that the head reads are gathered row by row; the CRF
is the package pytorch-crf, which also decodes at each training step; AdamW is not fused. Each of these is a field of
`Setup`, so that they can be changed one at a time on the same weights and rows. Nothing else is slowed down: the image
encoder runs without a graph, attention is PyTorch's own, and decoding records no graph.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig

from experiments.benchmarks.corpus import PostSet
from mmib.backbone import BackboneOutput, MultimodalIB
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.batching import GlobalBatchSampler, RowSize, Share
from mmib.datamodules.loading import SampledShare
from mmib.encoders.image import ImageEncoder
from mmib.encoders.pretrained import packaged_file
from mmib.encoders.text import TextEncoder
from mmib.modules import ExtractionModule, MNERModule, MREModule, Objective
from mmib.nn.crf import LinearChainCRF
from mmib.nn.precision import attention_for_training
from mmib.schema import NO_LABEL, ConfigError, PostBatch, Window
from mmib.tasks.mner import OUTSIDE_ID, MNERBatch

LEARNING_RATE = 3e-5
# Processes that decode images in advance; on CPUs every core is already computing.
WORKERS = 4 if torch.cuda.is_available() else 0


class Encoders(NamedTuple):
    """Shapes of both encoders; their weights are random."""

    text: BertConfig
    image: str


ENCODERS = {
    "base": Encoders(BertConfig(), "resnet50"),
    # For tests.
    "tiny": Encoders(
        BertConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96), "test_resnet"
    ),
}


@dataclass(frozen=True)
class Setup:
    """How the network is run; by default as in the field's released code.

    Attributes:
        cached: image features come from the cache.
        padded: every row is padded to the maximum length of its set, rather than to the longest of its batch.
        bucketed: rows of similar length are batched together, as by our own loader.
        per_row: all positions are fused, then gathered in a loop, rather than only those that the head reads, at once.
        packaged_crf: the CRF is pytorch-crf.
        decoding: the CRF also decodes in training.
        bf16: mixed precision.
        fused: AdamW is fused.
        compiled: layers and attention blocks are compiled, if the module was built for that.
        lightning: `Trainer.fit` runs it, with the monitor of `mmib fit`.
    """

    cached: bool = False
    padded: bool = True
    bucketed: bool = False
    per_row: bool = True
    packaged_crf: bool = True
    decoding: bool = True
    bf16: bool = False
    fused: bool = False
    compiled: bool = False
    lightning: bool = False


PUBLISHED = Setup()


def build_module(
    task: str, encoders: Encoders, folder: Path, compiled: bool = False, tokenizer: Path | None = None
) -> ExtractionModule:
    """Build a model with random weights.

    Args:
        task: task, which determines the head.
        encoders: shapes of the encoders.
        folder: an empty folder, for the text encoder's configuration and its tokenizer.
        compiled: whether its blocks can be compiled; `Setup` determines whether they are.
        tokenizer: folder of a tokenizer; None for that of the packaged encoder.
    """
    copy_tokenizer(tokenizer or packaged_file("pip:minilm-l6").parent, folder)
    encoders.text.save_pretrained(folder)
    text = TextEncoder(str(folder), pretrained=False)
    backbone = MultimodalIB(text, ImageEncoder(encoders.image, pretrained=False))
    if task == "mre":
        return MREModule(backbone, compile=compiled)
    # Without constraints, which pytorch-crf does not have, so that both compute the same.
    return MNERModule(backbone, constrained=False, compile=compiled)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy only the files of a tokenizer from one folder to another."""
    for pattern in ("*token*", "vocab*"):
        for file in source.glob(pattern):
            shutil.copy(file, folder)


class PerRowFusion(nn.Module):
    """Fuses all positions, then gathers those that the head reads, row by row."""

    def __init__(self, backbone: MultimodalIB) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def text_encoder(self) -> TextEncoder:
        """The backbone's text encoder, for the data module."""
        return self.backbone.text_encoder

    @property
    def image_encoder(self) -> ImageEncoder:
        """The backbone's image encoder, for the data module."""
        return self.backbone.image_encoder

    def forward(self, batch: PostBatch) -> BackboneOutput:
        """See `MultimodalIB.forward`."""
        length = batch.input_ids.shape[1]
        everything = torch.arange(length, device=batch.input_ids.device).expand(len(batch), length)
        output: BackboneOutput = self.backbone(replace(batch, positions=everything))
        gathered = [output.states[row, batch.positions[row]] for row in range(len(batch))]
        return replace(output, states=torch.stack(gathered))


class PackagedCRF(nn.Module):
    """pytorch-crf with the parameters of our CRF.

    Raises:
        ConfigError: pytorch-crf is not installed.
    """

    def __init__(self, crf: LinearChainCRF) -> None:
        super().__init__()
        try:
            import torchcrf  # noqa: PLC0415 - relation extraction goes without
        except ImportError as error:
            raise ConfigError("the recipe's CRF is not installed: `pip install pytorch-crf`") from error
        self.package = torchcrf.CRF(len(crf.start), batch_first=True)
        self.package.start_transitions = crf.start
        self.package.transitions = crf.transition
        self.package.end_transitions = crf.end

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """See `LinearChainCRF.forward`."""
        return -self.package(emissions, tags, mask=mask, reduction="none")

    @torch.no_grad()
    def viterbi(self, emissions: Tensor, mask: Tensor) -> list[list[int]]:
        """Return the most probable tags of each post's words."""
        return self.package.decode(emissions, mask=mask)


@contextlib.contextmanager
def running_as(module: ExtractionModule, setup: Setup) -> Iterator[ExtractionModule]:
    """A context in which the setup's variants replace parts of the module; the weights are the same."""
    network: Any = module.network
    parts = {name: part for name, part in network.named_children() if name in ("backbone", "crf")}
    others: dict[str, nn.Module] = {}
    if setup.per_row:
        others["backbone"] = PerRowFusion(cast(MultimodalIB, parts["backbone"]))
    if setup.packaged_crf and "crf" in parts:
        others["crf"] = PackagedCRF(cast(LinearChainCRF, parts["crf"]))
    try:
        _put_in(module, others)
        with torch.compiler.set_stance("default" if setup.compiled else "force_eager"):
            yield module
    finally:
        _put_in(module, parts)


def _put_in(module: ExtractionModule, parts: dict[str, nn.Module]) -> None:
    """Set parts of a module and of its network, which share them."""
    for name, part in parts.items():
        setattr(module, name, part)
        setattr(module.network, name, part)


def make_loader(data: PostDataModule, setup: Setup, posts: PostSet, workers: int = 0) -> DataLoader[Any]:
    """Load the rows that a data module has read.

    Args:
        data: yields features if they are cached, else pixels.
        setup: how rows are batched and padded.
        posts: the data set.
        workers: processes that load batches; our own loader has none.
    """
    loader = data.train_dataloader()
    if setup.bucketed:
        return loader
    sizes = cast(GlobalBatchSampler, loader.batch_sampler).sizes
    order = list(range(len(sizes)))
    random.Random(0).shuffle(order)
    shares = []
    for start in range(0, len(order), data.batch_size):
        rows = order[start : start + data.batch_size]
        pieces, regions = sizes[rows].max(axis=0).tolist()
        size = RowSize(posts.max_length if setup.padded else pieces, regions)
        shares.append(Share(rows, padding=0, size=size, window=Window(), epoch=0))
    collate: Any = loader.collate_fn
    return DataLoader(
        loader.dataset,
        batch_sampler=cast(Any, shares),
        collate_fn=WordPadding(collate, posts.max_length) if setup.padded else collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


@dataclass(frozen=True)
class WordPadding:
    """A collate function that pads word positions to a fixed number."""

    collate: Callable[[SampledShare], PostBatch]
    words: int

    def __call__(self, sampled: SampledShare) -> PostBatch:
        """Collate and pad a batch."""
        batch = self.collate(sampled)
        if not isinstance(batch, MNERBatch):
            return batch
        more = (0, self.words - batch.word_mask.shape[1])
        return replace(
            batch,
            positions=F.pad(batch.positions, more),
            word_mask=F.pad(batch.word_mask, more),
            tags=F.pad(batch.tags, more, value=OUTSIDE_ID),
            gold=F.pad(batch.gold, more, value=NO_LABEL),
        )


def make_optimizer(module: ExtractionModule, fused: bool) -> torch.optim.AdamW:
    """AdamW over the trained parameters."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01, fused=fused)


def compute(module: ExtractionModule, batch: PostBatch, setup: Setup) -> Objective:
    """Objective of a batch in training, for a module that runs as in its setup."""
    device = batch.rows.device
    with torch.autocast(device.type, torch.bfloat16, enabled=setup.bf16), attention_for_training(device):
        objective = module.objective(batch)
        if setup.decoding and isinstance(batch, MNERBatch):
            cast(Any, module).crf.viterbi(objective.scores, batch.word_mask)
    return objective


def training_step(module: ExtractionModule, optimizer: torch.optim.Optimizer, batch: PostBatch, setup: Setup) -> None:
    """Run forward pass, backward pass and optimiser step."""
    objective = compute(module, batch, setup)
    optimizer.zero_grad()
    objective.loss.backward()
    optimizer.step()
