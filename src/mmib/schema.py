"""Types shared by the whole package: errors, posts, examples, batches, and the interface of tasks.

Shape legend, used throughout: B posts, L word pieces, W words, Q positions that the head reads, R image regions, D
latent width, V image feature width, C classes, K tags. Masks are boolean, and True means "attend". An image id
identifies an image within the data set: rows with the same id share their image, and -1 means no image.
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance

    from mmib.backbone import ExtractionNetwork
    from mmib.encoders.text import WordTokenizer
    from mmib.labels import LabelSet
    from mmib.metrics import ExtractionScores
    from mmib.records import Answer, Confusion, Item, Judgement, Proposal, Record

Span = tuple[int, int]
Box = tuple[float, float, float, float]

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)
UNKNOWN_BOX: Box = (0.0, 0.0, 0.0, 0.0)

# Label id of padding positions, which have no word to label.
NO_LABEL = -1

# Added to the tokenizer as special pieces; the same characters in a post's text are never tokenised as these.
HEAD_START, HEAD_END, TAIL_START, TAIL_END = MARKERS = ("<mmib:head>", "</mmib:head>", "<mmib:tail>", "</mmib:tail>")
# Indices of the markers that open an entity, head first.
OPENING = [MARKERS.index(HEAD_START), MARKERS.index(TAIL_START)]

NO_IMAGE = -1
# The row is beyond the trainer's limits, so it was not checked for an image.
NOT_LOOKED_FOR = -2
NO_WORD = -1
NOT_CACHED = -1


class MMIBError(Exception):
    """Base of all errors raised for users; the message says what is wrong and what to do."""


class ConfigError(MMIBError):
    """Invalid setting or combination of settings."""


class DataError(MMIBError):
    """Missing or malformed data file; the message names the file and, if possible, the line."""


class EncoderError(MMIBError):
    """Pretrained weights that cannot be found, loaded or trusted."""


class JobError(MMIBError):
    """Failure between the processes of a job."""


class RunError(MMIBError):
    """Run folder that is missing or unfinished, or cannot be compared with another."""


class ExportError(MMIBError):
    """Folder that is no export, damaged, or of a newer version; or a run that cannot be exported."""


class InputError(MMIBError):
    """Post that nothing can be extracted from; the message says why."""


class CheckpointError(MMIBError):
    """Checkpoint that is unreadable, or of another task or version."""


class DivergenceError(MMIBError):
    """Training whose losses, gradients or weights are no longer finite."""


class TaskError(MMIBError):
    """Task that no module or more than one module registers."""


class PluginError(MMIBError):
    """Module named by `plugins` that is missing or fails to import."""


@dataclass(frozen=True)
class Picture:
    """A source of regions: the whole image of a post, an object crop of it, or one region of its side texts.

    Attributes:
        file: the image file; for side texts that of the whole image, which may be missing.
        box: its box in the whole image, x0 y0 x1 y1 in 0..1.
        cache_index: index of its features in the feature cache, once they have been located there; for side texts
            without a cache, an index that encodes the text and the region in it.
        is_text: whether it is a region of a side text.
    """

    file: Path
    box: Box
    cache_index: int = field(default=NOT_CACHED, compare=False)
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Post:
    """A post as a reader yields it; tasks add fields for their annotations (`mmib.datamodules.posts`).

    Attributes:
        words: its words, at least one.
        image: file name of its image; empty without an image.
        place: `file:line` of the post, for messages.
    """

    words: list[str]
    image: str
    place: str

    def place_of(self, label: str) -> str:
        """`file:line` of a label that the post is annotated with."""
        del label
        return self.place


@dataclass(kw_only=True)
class Example:
    """A row ready for batching; tasks add fields for their labels.

    Attributes:
        row: position in the split.
        words: all words of the post, including those that are cut off for the encoder.
        input_ids: word pieces, special tokens included.
        word_ids: for each word piece the index of its word, from 0, or -1.
        mentions: for each word piece the number of its gold mention, from 1, or 0.
        image_id: id of the image's content; -1 if no picture of the row is readable, -2 if none was looked for.
        pictures: the readable pictures.
    """

    row: int
    words: list[str]
    input_ids: list[int]
    word_ids: list[int]
    mentions: list[int]
    image_id: int = NO_IMAGE
    pictures: tuple[Picture, ...] = ()

    def spans(self) -> dict[str, Span]:
        """Word spans [start, end) that are marked in the model's input, by name."""
        return {}


class Window(NamedTuple):
    """Weights of a batch's means among the batches of one optimiser step.

    Each weight is the batch's count divided by the mean count of the step's batches, so that the average of the
    weighted means is the mean over everything in the step. All weights are 1 without gradient accumulation.
    """

    posts: float = 1.0
    tokens: float = 1.0
    regions: float = 1.0
    images: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SideTextBatch:
    """The side texts of a batch's images: T texts of at most S word pieces.

    Exactly one of `features` and `input_ids` is set: features of a frozen text encoder come from the cache, word pieces
    go through the model's text encoder.

    Attributes:
        mask: (B, R) True on regions of side texts.
        features: (B, R, V) float features of these regions, zero elsewhere.
        input_ids: (T, S) word pieces of each text, special ones included, in the order of the regions.
        text_mask: (T, S) True on word pieces; set together with `input_ids`.
    """

    mask: torch.Tensor
    features: torch.Tensor | None = None
    input_ids: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None


@dataclass(kw_only=True)
class PostBatch:
    """Posts padded to the longest of the batch; under DDP, of the batch of all ranks.

    For images exactly one of `features` and `pixels` is set: features of a frozen image encoder come from the cache,
    pixels go through the model's image encoder. If only side texts of the images are read, neither is set.

    Attributes:
        rows: (B,) position of each row in its split, unique within it; -1 marks a padding row, which only equalises
            the batches of all ranks and is excluded from losses and scores.
        input_ids: (B, L) word-piece ids.
        text_mask: (B, L) True on word pieces, special ones included.
        word_ids: (B, L) index of each word piece's word in its row, from 0; -1 for special pieces, markers and padding.
        mentions: (B, L) number of each word piece's gold entity mention in its row, from 1; 0 outside mentions.
        positions: (B, Q) positions in L whose fused states the task's head reads; only these are fused.
        region_mask: (B, R) True on regions; all False for a post without an image. R is at least 1.
        image_ids: (B,) image id, or -1.
        features: (B, R, V) float features of the regions, zero where masked and on regions of side texts.
        pixels: (P, 3, height, width) normalised pixels of the available pictures, row by row: P times the regions of
            a picture is the number of True in `pixel_mask`, so that no padding is encoded.
        boxes: (B, R, 4) x0 y0 x1 y1 in 0..1 of each region in its image; zero where unknown or masked. The whole
            image is 0 0 1 1.
        side_texts: the side texts of the images; None if these are not read.
        markers: (B, P, 4) positions in L of the pieces over which the markers of each row's P entity pairs levitate,
            in the order of `MARKERS`; -1 if a row has fewer pairs. `positions` are then those of the opening markers.
            None if markers are inserted into the text, or if there are none.
        window: weights of the batch under gradient accumulation.
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
    side_texts: SideTextBatch | None = None
    markers: torch.Tensor | None = None
    window: Window = dataclasses.field(default_factory=Window)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def valid(self) -> torch.Tensor:
        """(B,) False on padding rows."""
        return self.rows >= 0

    @property
    def pixel_mask(self) -> torch.Tensor:
        """(B, R) True on regions of images, False on those of side texts."""
        return self.region_mask if self.side_texts is None else self.region_mask & ~self.side_texts.mask

    @property
    def position_mask(self) -> torch.Tensor:
        """(B, Q) True where `positions` holds a position to read; False where it is negative."""
        return self.positions >= 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; called by the DataLoader."""
        return _mapped(self, lambda tensor: tensor.pin_memory())


BatchT = TypeVar("BatchT", bound="DataclassInstance")


def _mapped(batch: BatchT, function: Callable[[torch.Tensor], torch.Tensor]) -> BatchT:
    """Apply a function to every tensor of a batch."""
    changed: dict[str, Any] = {}
    for part in dataclasses.fields(batch):
        value = getattr(batch, part.name)
        if isinstance(value, SideTextBatch):
            changed[part.name] = _mapped(value, function)
        elif value is not None and not isinstance(value, Window):
            changed[part.name] = function(value)
    return dataclasses.replace(batch, **changed)


class Census(Protocol):
    """Statistics of a split, collected while its posts are read."""

    def add(self, post: Any, example: Any) -> None:
        """Count a post and its example."""

    def __str__(self) -> str:
        """Summary in one line."""


class Prepared(NamedTuple):
    """Settings for encoding posts.

    Attributes:
        tokenizer: the text encoder's tokenizer.
        max_length: maximum number of word pieces of a row, special tokens and markers included.
        labels: the configured label set.
        levitated: whether entity markers levitate over the text instead of being inserted into it.
    """

    tokenizer: WordTokenizer
    max_length: int
    labels: LabelSet
    levitated: bool = False


class Wording(NamedTuple):
    """Terms that the report and the summary use for a task.

    Attributes:
        unit: unit that has a confidence, such as `row`.
        label: name of what is predicted, such as `relation`.
        confidence: definition of the confidence, as the end of a sentence.
        legend: how the report marks findings in a post; empty if it marks none.
    """

    unit: str
    label: str
    confidence: str
    legend: str = ""


class Task(ABC):
    """Interface of a task; all task-specific code is behind it.

    A task is stateless: one instance is registered when its module is imported (`register_task`), and is looked up by
    name. `mmib.tasks.base.PostClassification` implements the interface for tasks that give each post one label.

    Attributes:
        name: short name, used in configurations, summaries and exports.
        title: name for display.
        rows: noun for its rows, in the plural.
        example: class of its examples.
        network: class of its network, backbone and head.
        columns: scores in the table of a run, with their headings.
        wording: terms of the report.
        finds: type of the extracted items: `entities`, `relations` between entities, or `labels` of posts.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rows: ClassVar[str] = "rows"
    example: ClassVar[type[Any]] = Example
    network: ClassVar[type[Any]]
    columns: ClassVar[dict[str, str]] = {
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "f1_se": "± (s.e.)",
        "accuracy": "accuracy",
    }
    wording: ClassVar[Wording]
    finds: ClassVar[str] = "labels"

    def outputs(self, labels: LabelSet) -> tuple[str, ...]:
        """Names of the head's outputs, by id: the labels, unless a task derives others from them."""
        return labels.names

    # From posts to batches.

    @abstractmethod
    def labels_of(self, post: Any) -> list[str]:
        """Return the labels that a post is annotated with, once per occurrence, the negative label included."""

    @abstractmethod
    def encode(self, row: int, post: Any, pieces: list[list[int]], prepared: Prepared) -> Any:
        """Encode a post as an example.

        Args:
            row: its position in the split.
            post: the post from its reader; its labels are already checked against the label set.
            pieces: word pieces of each of its words.
            prepared: the settings.

        Raises:
            DataError: If the required part of the post does not fit into `max_length`.
        """

    @abstractmethod
    def collate(self, examples: Sequence[Any], fields: dict[str, Any], labels: LabelSet) -> PostBatch:
        """Build a batch of examples; `fields` are those of `PostBatch` except `positions`."""

    @abstractmethod
    def census(self) -> Census:
        """Return an empty census of a split."""

    def example_labels(self, example: Any, labels: LabelSet) -> Sequence[str]:
        """Return the distinct labels of an example; empty if the task does not implement it.

        They stratify subsamples of the training rows, and describe the latents.
        """
        del example, labels
        return ()

    def example_items(self, example: Any, labels: LabelSet) -> list[Item]:
        """Return the gold items of an example, the negative label included; empty if the task does not implement it.

        Slices of the scores use their surface forms and labels in the training rows.
        """
        del example, labels
        return []

    def counts(self, examples: Iterable[Any], labels: LabelSet) -> dict[str, int]:
        """Return further counts of a split, beside its number of rows."""
        del examples, labels
        return {}

    # The model.

    def build_network(self, backbone: Any, labels: LabelSet, **settings: Any) -> ExtractionNetwork:
        """Build the network with random weights; `settings` are those of `ExtractionNetwork.settings`."""
        built: ExtractionNetwork = self.network(backbone, labels, **settings)
        return built

    @abstractmethod
    def metric(self, labels: LabelSet, **options: Any) -> ExtractionScores:
        """Return the metric of predicted against gold label ids."""

    # Prediction records, written and read back.

    def attention_rows(self, words: int) -> int:
        """Number of positions whose attention is kept in the prediction of a post with this many words."""
        del words
        return 1

    @abstractmethod
    def items(self, record: Record, labels: LabelSet) -> tuple[list[Item], list[Item]]:
        """Return the gold and the predicted items of a record, the negative label included; correct ones are in both.

        Raises:
            ValueError, KeyError, TypeError, IndexError: If the record is damaged.
        """

    @abstractmethod
    def judge(self, records: Sequence[Record], labels: LabelSet) -> list[Judgement]:
        """Return the logits of each prediction, and whether it is right.

        Raises:
            ValueError, KeyError, TypeError, IndexError: If a record is damaged.
        """

    @abstractmethod
    def confusion(self, records: Sequence[Record], labels: LabelSet) -> Confusion:
        """Return the confusion matrix of the classes.

        Raises:
            ValueError, KeyError, TypeError, IndexError: If a record is damaged.
        """

    @abstractmethod
    def answer(self, record: Record, labels: LabelSet) -> Answer:
        """Return a prediction as the report shows it.

        Raises:
            ValueError, KeyError, TypeError, IndexError: If the record is damaged.
        """

    def proposal(self, record: Record, labels: LabelSet) -> Proposal:
        """Return the items of a prediction for review and correction, without using the gold labels.

        Raises:
            TaskError: If the task finds neither entities nor relations.
            ValueError, KeyError, TypeError, IndexError: If the record is damaged.
        """
        del record, labels
        raise TaskError(
            f"predictions of the task {self.name!r} cannot be reviewed: it finds {self.finds}, and corrections are "
            "saved as JSON lines, which hold entities and relations only"
        )


# Modules of the built-in tasks; each registers its task when it is imported.
SHIPPED_TASKS = {"mre": "mmib.tasks.mre", "mner": "mmib.tasks.mner"}
_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Register a task under its name; modules call this when they are imported.

    Raises:
        TaskError: If another module has registered a task of this name.
    """
    known = _TASKS.get(task.name)
    if known is not None and _origin(known) != _origin(task):
        raise TaskError(
            f"two tasks are named {task.name!r}, {_origin(known)} and {_origin(task)}: give one of them another name"
        )
    _TASKS[task.name] = task


def task_named(name: Any) -> Task:
    """Return the registered task of a name.

    Raises:
        TaskError: If there is none.
    """
    if not isinstance(name, str) or name not in {**_TASKS, **SHIPPED_TASKS}:
        raise TaskError(
            f"there is no task {name!r}: choose from {', '.join(task_names())}, or import the module that registers it "
            "with --plugin MODULE (or `plugins: [MODULE]` in the configuration)"
        )
    if name not in _TASKS:
        importlib.import_module(SHIPPED_TASKS[name])
    return _TASKS[name]


def task_names() -> list[str]:
    """Return the names of the built-in tasks, and of those registered by imported modules."""
    return [*SHIPPED_TASKS, *(name for name in _TASKS if name not in SHIPPED_TASKS)]


def _origin(task: Task) -> str:
    return f"{type(task).__module__}.{type(task).__qualname__}"
