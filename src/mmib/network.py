"""The network of each task as it is used: backbone and head, without objective, metrics and optimiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmib.backbone import MultimodalIB
from mmib.nn.crf import LinearChainCRF, bio_constraints
from mmib.nn.precision import at_least_float32
from mmib.nn.relation import RelationHead, likeliest_relation
from mmib.schema import NO_RELATION, RELATION_IDS, RELATIONS, TAGS, PostBatch, Task


def relation_head(dim: int, dropout: float) -> RelationHead:
    """The head of relation extraction on latents of width `dim`."""
    return RelationHead(dim, len(RELATIONS), dropout)


def entity_head(dim: int, dropout: float, constrained: bool) -> tuple[nn.Sequential, LinearChainCRF]:
    """The head of entity recognition: what computes emissions, and the CRF on them."""
    emissions = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, len(TAGS)))
    return emissions, LinearChainCRF(len(TAGS), *(bio_constraints(TAGS) if constrained else ()))


class ExtractionNetwork(nn.Module, ABC):
    """Backbone and head of a trained model. Its parameters have the names that they have in the task's module.

    Args:
        backbone: the shared network.
    """

    task: ClassVar[Task]
    head: nn.Module

    def __init__(self, backbone: MultimodalIB) -> None:
        super().__init__()
        self.backbone = backbone

    def scores(self, states: Tensor) -> Tensor:
        """(B, Q, D) fused states to what is decoded, in at least float32: logits (B, C), or emissions (B, W, K)."""
        return at_least_float32(self.head(states))

    @abstractmethod
    def settings(self) -> dict[str, float | bool | None]:
        """What decides how scores are decoded, as its constructor takes it."""


class RelationNetwork(ExtractionNetwork):
    """Relation extraction; see `MREModule` for the threshold."""

    task: ClassVar[Task] = "mre"

    def __init__(self, backbone: MultimodalIB, threshold: float | None = None) -> None:
        super().__init__(backbone)
        self.threshold = threshold
        self.head = relation_head(backbone.dim, dropout=0.0)

    def settings(self) -> dict[str, float | bool | None]:
        """See `ExtractionNetwork.settings`."""
        return {"threshold": self.threshold}

    def predict(self, logits: Tensor) -> Tensor:
        """(B, C) logits to (B,) class ids."""
        return likeliest_relation(logits, RELATION_IDS[NO_RELATION], self.threshold)


class EntityNetwork(ExtractionNetwork):
    """Entity recognition; see `MNERModule` for the constraints."""

    task: ClassVar[Task] = "mner"

    def __init__(self, backbone: MultimodalIB, constrained: bool = True) -> None:
        super().__init__(backbone)
        self.constrained = constrained
        self.head, self.crf = entity_head(backbone.dim, 0.0, constrained)

    def settings(self) -> dict[str, float | bool | None]:
        """See `ExtractionNetwork.settings`."""
        return {"constrained": self.constrained}


NETWORKS: dict[Task, type[RelationNetwork] | type[EntityNetwork]] = {"mre": RelationNetwork, "mner": EntityNetwork}


@torch.no_grad()
def evidence(attention: Tensor | None, kl: dict[str, Tensor], batch: PostBatch) -> dict[str, Tensor]:
    """What the predictions of a batch rest on; NaN where there is nothing.

    Args:
        attention: the weights over the regions, (B, Q, R); None for a fusion that does not attend.
        kl: by modality, (B, T, D) nats.
        batch: the batch.

    Returns:
        `kl` (B, W) nats of each word that the encoder sees, summed over its pieces; `kl_image` (B, R) nats of each
        region; and, where the fusion attends, `attention` (B, Q, R), the weights with which each position that the
        head reads took from the regions.
    """
    places = batch.word_ids + 1  # what belongs to no word goes into a column of its own, before the words
    nats = kl["text"].sum(dim=2)
    by_word = nats.new_zeros(len(batch), int(places.max()) + 1).scatter_add(1, places, nats)
    seen = torch.zeros_like(by_word, dtype=torch.bool).scatter(1, places, True)
    found = {
        "kl": by_word.masked_fill(~seen, torch.nan)[:, 1:],
        "kl_image": kl["image"].sum(dim=2).masked_fill(~batch.region_mask, torch.nan),
    }
    if attention is not None:
        there = batch.position_mask[:, :, None] & batch.region_mask[:, None, :]
        found["attention"] = attention.masked_fill(~there, torch.nan)
    return found
