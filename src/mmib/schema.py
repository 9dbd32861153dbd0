"""What every part of the project agrees on: errors, posts, examples, batches, and the interface of tasks.

Shape legend, used throughout: B posts, L word pieces, W words, Q positions that the head reads, R image regions, D
latent width, V image feature width, C classes, K tags. Masks are boolean and True means "attend". An image id names
an image within the data set; two rows with the same id share their image, and -1 says that the row has none.
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

# Stands where a padded post has no word to label.
NO_LABEL = -1

# Added to the tokenizer as pieces of their own; the same characters in a post's text are never read as these.
HEAD_START, HEAD_END, TAIL_START, TAIL_END = MARKERS = ("<mmib:head>", "</mmib:head>", "<mmib:tail>", "</mmib:tail>")
# Which of them open an entity, head first.
OPENING = [MARKERS.index(HEAD_START), MARKERS.index(TAIL_START)]

NO_IMAGE = -1
# Beyond the limits of the trainer: whether there is an image has not been looked for.
NOT_LOOKED_FOR = -2
NO_WORD = -1
NOT_CACHED = -1


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


class DivergenceError(MMIBError):
    """A training whose losses, gradients or weights are no longer finite."""


class TaskError(MMIBError):
    """A task that no module registered, or that two modules register."""


class PluginError(MMIBError):
    """A module named by `plugins` that is not there, or fails when it is imported."""


@dataclass(frozen=True)
class Picture:
    """What becomes regions: the whole image of a post or an object crop of it, or one region of its side texts.

    Attributes:
        file: the file; of side texts that of the whole image, which need not be there.
        box: where in the whole image it lies, x0 y0 x1 y1 in 0..1.
        cache_index: number of its features in the feature cache, once the file has been located there; of side texts
            also that of the text and the place in it, where nothing is cached.
        is_text: whether it is a region of a side text.
    """

    file: Path
    box: Box
    cache_index: int = field(default=NOT_CACHED, compare=False)
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Post:
    """A post as a reader yields it; a task adds fields for what it labels (`mmib.datamodules.posts`).

    Attributes:
        words: its words, at least one.
        image: file name of its image; empty where it has none.
        place: `file:line` where it stands, for messages.
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
    """A row ready for batching; a task adds fields for its labels.

    Attributes:
        row: position in the split.
        words: the post's words, seen by the encoder or not.
        input_ids: word pieces, special tokens included.
        word_ids: for each of them the word that it belongs to, counted from 0, or -1.
        mentions: for each of them the gold mention it belongs to, counted from 1, or 0.
        image_id: id of what the image shows, -1 where no picture of the row can be read, -2 where none was looked for.
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
        """Words [start, end) of what is marked in the post for the model to see, by name."""
        return {}


class Window(NamedTuple):
    """What the means of a batch weigh among the batches of one optimiser step.

    Each weight is the batch's count over the mean count of the step's batches, so that the average of the weighted
    means is the mean over everything that the step sees. All 1 where gradients are not accumulated.
    """

    posts: float = 1.0
    tokens: float = 1.0
    regions: float = 1.0
    images: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SideTextBatch:
    """The side texts of a batch's images: T texts of S word pieces at most.

    Exactly one of `features` and `input_ids` is set: features of a frozen text encoder come from the cache, word pieces
    go through the model's text encoder.

    Attributes:
        mask: (B, R) True on the regions that are of side texts.
        features: (B, R, V) float features of these, zero elsewhere.
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

    Of images exactly one of `features` and `pixels` is set: features of a frozen image encoder come from the cache,
    pixels go through the model's own encoder. Where only side texts of the images are read, neither is.

    Attributes:
        rows: (B,) position of each row in its split, unique within it; -1 marks a padding row, which only keeps the
            batches of all ranks alike and counts in no loss and no score.
        input_ids: (B, L) word-piece ids.
        text_mask: (B, L) True on word pieces, special ones included.
        word_ids: (B, L) which word of its row a word piece belongs to, counted from 0; -1 for special pieces, markers
            and padding.
        mentions: (B, L) which gold entity mention of its row a word piece belongs to, counted from 1; 0 outside.
        positions: (B, Q) places in L whose fused states the task's head reads; the others are not fused at all.
        region_mask: (B, R) True on regions; all False for a post without an image. R is at least 1.
        image_ids: (B,) image id, or -1.
        features: (B, R, V) float features of the regions, zero where masked and on regions of side texts.
        pixels: (P, 3, height, width) normalised pixels of the pictures that are there, row by row: P times the
            regions of a picture is the number of True in `pixel_mask`, so that nothing is encoded for padding.
        boxes: (B, R, 4) x0 y0 x1 y1 in 0..1 of each region in its image; zero where unknown or masked. The whole
            image is 0 0 1 1.
        side_texts: the side texts of the images; None where these are not read.
        markers: (B, P, 4) places in L of the pieces over which the markers of each row's P pairs of entities levitate,
            in the order of `MARKERS`; -1 where a row has fewer pairs. None where markers stand in the text, or there
            are none. `positions` then are the places of the opening ones.
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
        """(B, Q) False where `positions` has nothing to read; every row has something in each place, unless told."""
        return self.positions >= 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, as a DataLoader asks for it."""
        return _mapped(self, lambda tensor: tensor.pin_memory())


BatchT = TypeVar("BatchT", bound="DataclassInstance")


def _mapped(batch: BatchT, function: Callable[[torch.Tensor], torch.Tensor]) -> BatchT:
    """A batch with what a function makes of each tensor in it."""
    changed: dict[str, Any] = {}
    for part in dataclasses.fields(batch):
        value = getattr(batch, part.name)
        if isinstance(value, SideTextBatch):
            changed[part.name] = _mapped(value, function)
        elif value is not None and not isinstance(value, Window):
            changed[part.name] = function(value)
    return dataclasses.replace(batch, **changed)


class Census(Protocol):
    """Counts the posts of a split while they are read."""

    def add(self, post: Any, example: Any) -> None:
        """Count a post and what was made of it."""

    def __str__(self) -> str:
        """What there is to say, in one line."""


class Prepared(NamedTuple):
    """How posts are prepared for a model.

    Attributes:
        tokenizer: the text encoder's.
        max_length: most word pieces of a row, special tokens and markers included.
        labels: what the configuration says that posts may be labelled with.
        levitated: whether markers of entities levitate over the text instead of standing in it.
    """

    tokenizer: WordTokenizer
    max_length: int
    labels: LabelSet
    levitated: bool = False


class Wording(NamedTuple):
    """What the report and the summary call things.

    Attributes:
        unit: what confidence is given for, such as `row`.
        label: what is predicted, such as `relation`.
        confidence: what confidence is, as the end of a sentence.
        legend: how the report marks what was found in a post; empty where nothing is marked.
    """

    unit: str
    label: str
    confidence: str
    legend: str = ""


class Task(ABC):
    """All that is particular to a task; everything else of the project works for any.

    A task holds no state: one instance serves, found by its name once its module has been imported (`register_task`).
    `mmib.tasks.base.PostClassification` has working methods for tasks that give each post one label.

    Attributes:
        name: short name, as in configurations, summaries and exports.
        title: its name for people.
        rows: what its rows are called, in the plural.
        example: class of its rows ready for batching.
        network: class of backbone and head.
        columns: scores that the table of a run shows, with their headings.
        wording: what the report calls things.
        finds: what extraction makes of its predictions: `entities`, `relations` between entities, or `labels` of posts.
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
        """Names of what the head scores, by id: the labels, unless a task makes others of them."""
        return labels.names

    # From posts to batches.

    @abstractmethod
    def labels_of(self, post: Any) -> list[str]:
        """The labels that a post is annotated with, repeated as often as they occur; the negative one included."""

    @abstractmethod
    def encode(self, row: int, post: Any, pieces: list[list[int]], prepared: Prepared) -> Any:
        """The example of a post.

        Args:
            row: its position in the split.
            post: as its reader yields it; its labels are known to be in the label set.
            pieces: word pieces of each of its words.
            prepared: how to prepare it.

        Raises:
            DataError: what has to be seen of it does not fit into `max_length`.
        """

    @abstractmethod
    def collate(self, examples: Sequence[Any], fields: dict[str, Any], labels: LabelSet) -> PostBatch:
        """The batch of examples; `fields` are those of `PostBatch` but `positions`."""

    @abstractmethod
    def census(self) -> Census:
        """Counts what is read."""

    def example_labels(self, example: Any, labels: LabelSet) -> Sequence[str]:
        """The labels that an example has, each once; nothing where the task does not tell.

        A part of the training rows is stratified by them, and latents are described by them.
        """
        del example, labels
        return ()

    def example_items(self, example: Any, labels: LabelSet) -> list[Item]:
        """What an example is annotated with, the negative label included; nothing where the task does not tell.

        Surface forms and labels of the training rows are taken from it, for slices of the scores.
        """
        del example, labels
        return []

    def counts(self, examples: Iterable[Any], labels: LabelSet) -> dict[str, int]:
        """What to note of a split beside its number of rows."""
        del examples, labels
        return {}

    # The model.

    def build_network(self, backbone: Any, labels: LabelSet, **settings: Any) -> ExtractionNetwork:
        """Backbone and head, of random weights; `settings` are those that the network's own `settings` tells."""
        built: ExtractionNetwork = self.network(backbone, labels, **settings)
        return built

    @abstractmethod
    def metric(self, labels: LabelSet, **options: Any) -> ExtractionScores:
        """The scores of predicted against gold label ids."""

    # What is written of a prediction, and read back.

    def attention_rows(self, words: int) -> int:
        """Of how many positions a prediction of a post of so many words keeps the attention."""
        del words
        return 1

    @abstractmethod
    def items(self, record: Record, labels: LabelSet) -> tuple[list[Item], list[Item]]:
        """What is gold and what is predicted in a record, the negative label included; what is right is in both.

        Raises:
            ValueError, KeyError, TypeError, IndexError: the record is damaged.
        """

    @abstractmethod
    def judge(self, records: Sequence[Record], labels: LabelSet) -> list[Judgement]:
        """How sure the model was of each prediction, and whether it is right.

        Raises:
            ValueError, KeyError, TypeError, IndexError: a record is damaged.
        """

    @abstractmethod
    def confusion(self, records: Sequence[Record], labels: LabelSet) -> Confusion:
        """How often each gold class got each predicted class.

        Raises:
            ValueError, KeyError, TypeError, IndexError: a record is damaged.
        """

    @abstractmethod
    def answer(self, record: Record, labels: LabelSet) -> Answer:
        """What the report shows of a prediction.

        Raises:
            ValueError, KeyError, TypeError, IndexError: the record is damaged.
        """

    def proposal(self, record: Record, labels: LabelSet) -> Proposal:
        """What a person reviews of a prediction, and corrects; gold is not read.

        Raises:
            TaskError: the task finds neither entities nor relations.
            ValueError, KeyError, TypeError, IndexError: the record is damaged.
        """
        del record, labels
        raise TaskError(
            f"predictions of the task {self.name!r} cannot be reviewed: it finds {self.finds}, and corrections are "
            "saved as JSON lines, which hold entities and relations only"
        )


# Where the project's own tasks are; each registers itself when its module is imported.
SHIPPED_TASKS = {"mre": "mmib.tasks.mre", "mner": "mmib.tasks.mner"}
_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Make a task known under its name; a module does so when it is imported.

    Raises:
        TaskError: another module has registered a task of this name.
    """
    known = _TASKS.get(task.name)
    if known is not None and _origin(known) != _origin(task):
        raise TaskError(
            f"two tasks are named {task.name!r}, {_origin(known)} and {_origin(task)}: give one of them another name"
        )
    _TASKS[task.name] = task


def task_named(name: Any) -> Task:
    """The registered task of a name.

    Raises:
        TaskError: there is none.
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
    """Names of the project's tasks, and of those that imported modules have registered."""
    return [*SHIPPED_TASKS, *(name for name in _TASKS if name not in SHIPPED_TASKS)]


def _origin(task: Task) -> str:
    return f"{type(task).__module__}.{type(task).__qualname__}"
