"""What every part of the project agrees on: label sets, typed batches and errors.

Shape legend, used throughout: B posts, L word pieces, W words, Q positions that the head reads, R image regions, D
latent width, V image feature width, C relations, K tags. Masks are boolean and True means "attend". An image id names
an image within the data set; two rows with the same id share their image, and -1 says that the row has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

if TYPE_CHECKING:
    import torch

Task = Literal["mre", "mner"]
TASK_NAMES: dict[Task, str] = {"mre": "relation extraction", "mner": "named entity recognition"}

NO_RELATION = "None"

# MNRE version 2, in the order of its own ours_rel2id.json; the position is the class id.
RELATIONS: tuple[str, ...] = (
    NO_RELATION,
    "/per/per/parent",
    "/per/per/siblings",
    "/per/per/couple",
    "/per/per/neighbor",
    "/per/per/peer",
    "/per/per/charges",
    "/per/per/alumi",
    "/per/per/alternate_names",
    "/per/org/member_of",
    "/per/loc/place_of_residence",
    "/per/loc/place_of_birth",
    "/org/org/alternate_names",
    "/org/org/subsidiary",
    "/org/loc/locate_at",
    "/loc/loc/contain",
    "/per/misc/present_in",
    "/per/misc/awarded",
    "/per/misc/race",
    "/per/misc/religion",
    "/per/misc/nationality",
    "/misc/misc/part_of",
    "/misc/loc/held_on",
)
RELATION_IDS: dict[str, int] = {name: number for number, name in enumerate(RELATIONS)}

ENTITY_TYPES: tuple[str, ...] = ("PER", "LOC", "ORG", "MISC")

# BIO; the position is the tag id, and there is none where a padded post has no word.
TAGS: tuple[str, ...] = ("O", *(f"{prefix}-{name}" for name in ENTITY_TYPES for prefix in ("B", "I")))
TAG_IDS: dict[str, int] = {name: number for number, name in enumerate(TAGS)}
NO_TAG = -1

# Names of what a task's model predicts, by id.
LABELS: dict[Task, tuple[str, ...]] = {"mre": RELATIONS, "mner": TAGS}

# Added to the tokenizer as pieces of their own; the same characters in a post's text are never read as these.
HEAD_START, HEAD_END, TAIL_START, TAIL_END = MARKERS = ("<mmib:head>", "</mmib:head>", "<mmib:tail>", "</mmib:tail>")

NO_IMAGE = -1
NO_WORD = -1


class MMIBError(Exception):
    """Base of every error that this project raises for its user; its text says what was wrong and what to do."""


class ConfigError(MMIBError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(MMIBError):
    """A data file that is missing or malformed; the text names the file and, where there is one, the line."""


class EncoderError(MMIBError):
    """Pretrained weights that cannot be found, loaded or trusted."""


class JobError(MMIBError):
    """Something went wrong between the processes of a job."""


class RunError(MMIBError):
    """A run folder that is not there, not finished, or cannot be compared with another."""


class ExportError(MMIBError):
    """A folder that is no export, is damaged, or was made by a newer version; or a run that cannot be exported."""


class InputError(MMIBError):
    """A post that nothing can be extracted from; the text says why."""


class CheckpointError(MMIBError):
    """A checkpoint that is unreadable, or was made by another task or version."""


class Window(NamedTuple):
    """What the means of a batch weigh among the batches of one optimiser step.

    Each weight is the batch's count over the mean count of the step's batches, so that the average of the weighted
    means is the mean over everything that the step sees. All 1 where gradients are not accumulated.
    """

    posts: float = 1.0
    tokens: float = 1.0
    regions: float = 1.0
    images: float = 1.0


@dataclass(kw_only=True)
class PostBatch:
    """Posts padded to the longest of the batch; under DDP, of the batch of all ranks.

    Exactly one of `features` and `pixels` is set: features of a frozen image encoder come from the cache, pixels go
    through the model's own encoder.

    Attributes:
        rows: (B,) position of each row in its split, unique within it; -1 marks a filler, which only keeps the
            batches of all ranks alike and counts in no loss and no score.
        input_ids: (B, L) word-piece ids.
        text_mask: (B, L) True on word pieces, special ones included.
        word_ids: (B, L) which word of its row a word piece belongs to, counted from 0; -1 for special pieces, markers
            and padding.
        mentions: (B, L) which gold entity mention of its row a word piece belongs to, counted from 1; 0 outside.
        positions: (B, Q) places in L whose fused states the task's head reads; the others are not fused at all.
        region_mask: (B, R) True on regions; all False for a post without an image. R is at least 1.
        image_ids: (B,) image id, or -1.
        features: (B, R, V) float features of the regions, zero where masked.
        pixels: (P, 3, height, width) normalised pixels of the pictures that are there, row by row: P times the
            regions of a picture is the number of True in `region_mask`, so that nothing is encoded for padding.
        boxes: (B, R, 4) x0 y0 x1 y1 in 0..1 of each region in its image; zero where unknown or masked. The whole
            image is 0 0 1 1.
        window: what the batch weighs where gradients are accumulated.
    """

    rows: torch.Tensor
    input_ids: torch.Tensor
    text_mask: torch.Tensor
    word_ids: torch.Tensor
    mentions: torch.Tensor
    positions: torch.Tensor
    region_mask: torch.Tensor
    image_ids: torch.Tensor
    features: torch.Tensor | None
    pixels: torch.Tensor | None
    boxes: torch.Tensor
    window: Window = dataclasses.field(default_factory=Window)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def counted(self) -> torch.Tensor:
        """(B,) False on fillers."""
        return self.rows >= 0

    @property
    def position_mask(self) -> torch.Tensor:
        """(B, Q) False where `positions` has nothing to read; every row has something in each place, unless told."""
        return self.positions >= 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, as a DataLoader asks for it."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            changed[field.name] = value if value is None or isinstance(value, Window) else function(value)
        return type(self)(**changed)


@dataclass(kw_only=True)
class MREBatch(PostBatch):
    """Rows of relation extraction: posts with two marked entities; `positions` are their opening markers, head first.

    Attributes:
        relations: (B,) gold class id in `RELATIONS`.
    """

    relations: torch.Tensor


@dataclass(kw_only=True)
class MNERBatch(PostBatch):
    """Posts of entity recognition, padded to W words; `positions` (B, W) are their first pieces, 0 where there is none.

    Attributes:
        word_mask: (B, W) True on words that the encoder sees; False on padding and on words beyond the longest input.
        tags: (B, W) gold tag ids to train on, with stray I- tags repaired; O where padded.
        gold: (B, W) the file's own tag ids, to score against; -1 where padded.
    """

    word_mask: torch.Tensor
    tags: torch.Tensor
    gold: torch.Tensor

    @property
    def position_mask(self) -> torch.Tensor:
        """See `PostBatch.position_mask`."""
        return self.word_mask
