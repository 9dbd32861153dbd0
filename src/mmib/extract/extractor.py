"""`mmib.Extractor`: extracts entities, relations and labels from the text and the image of a post."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import torch

from mmib.base.devices import check_bf16, usable_device
from mmib.base.files import is_file, is_folder
from mmib.datamodules.words import tokenize
from mmib.extract.pictures import CropSource, ImageSource, in_threads, open_image, views
from mmib.extract.readers import (
    EntityReader,
    LabelReader,
    ModelReader,
    PreparedPost,
    Regions,
    RelationReader,
    ViewKey,
    Wanted,
)
from mmib.extract.results import Entity, Evidence, Extraction, PostLabel, Relation, given_entity
from mmib.runs.checkpoints import run_of
from mmib.schema import ConfigError, ExportError, InputError, task_named

if TYPE_CHECKING:
    from mmib.encoders.image import Runtime
    from mmib.export.model import TrainedModel

Precision = Literal["float32", "bf16"]
MOST_CHARACTERS = 100_000
SURROGATE = re.compile("[\ud800-\udfff]")
# Number of posts whose images are in memory at the same time.
POSTS = 32
ReaderT = TypeVar("ReaderT", bound=ModelReader)


@dataclass(frozen=True)
class Post:
    """A post with everything known about it before extraction; see `Extractor.extract`."""

    text: str
    image: ImageSource | None = None
    crops: Sequence[CropSource] | None = None
    entities: Sequence[Any] | None = None


# Keyed by what a task finds, see `Task.finds`.
READERS: dict[str, type[ModelReader]] = {"entities": EntityReader, "relations": RelationReader, "labels": LabelReader}


class Extractor:
    """Extracts entities, relations between them, and labels of whole posts, with one trained model per task.

    Args:
        models: one model, or one of each task; their encoders may differ.
        device: the device to compute on.
        precision: `float32`, or `bf16` for the matrix products of the text encoder, the bottlenecks and the heads.

    Attributes:
        entities: the reader that finds entities; None without such a model.
        relations: the reader that finds relations; None without such a model.
        labels: the readers that label whole posts, one for each such model.
        readers: all readers.

    Raises:
        ExportError: there is no model, two models of the same task, or two that both find entities or relations; or
            the entity types of the relations are unknown to the model of entities.
        ConfigError: the device is not available or does not support bf16, or the precision is unknown.
        EncoderError: the runtime of an image encoder cannot run it.
    """

    def __init__(self, models: Sequence[TrainedModel], device: str = "cpu", precision: Precision = "float32") -> None:
        tasks = [model.task for model in models]
        if not tasks or len(set(tasks)) < len(tasks):
            raise ExportError(f"the models given are {tasks}: give one, or one of each task")
        place = usable_device(device)
        if precision not in ("float32", "bf16"):
            raise ConfigError(f"the precision {precision!r} is unknown: choose 'float32' or 'bf16'")
        if precision == "bf16":
            check_bf16(place)
        self.readers = [_reader_class(model)(model, place, precision == "bf16") for model in models]
        self.entities = _only([reader for reader in self.readers if isinstance(reader, EntityReader)], "entities")
        self.relations = _only([reader for reader in self.readers if isinstance(reader, RelationReader)], "relations")
        self.labels = [reader for reader in self.readers if isinstance(reader, LabelReader)]
        self._unknown_types = self._check_types()

    @property
    def entity_types(self) -> list[str]:
        """Types that entities may have: those of the model of entities, or else the argument types of the relations."""
        if self.entities is not None:
            return list(self.entities.labels.names)
        return [] if self.relations is None else self.relations.labels.argument_types

    def _check_types(self) -> list[str]:
        """Argument types of relations that the model of entities does not have.

        Raises:
            ExportError: no relation fits any pair of entity types.
        """
        if self.entities is None or self.relations is None:
            return []
        types, labels = self.entities.labels.names, self.relations.labels
        if not labels.relates(types):
            raise ExportError(
                f"the model of {self.entities.task.title} finds {self.entities.labels}, and the model of "
                f"{self.relations.task.title} relates {', '.join(labels.argument_types)}: give two models "
                "whose entity types are the same"
            )
        return [name for name in labels.argument_types if name not in types]

    @classmethod
    def from_pretrained(
        cls,
        *sources: str | Path,
        device: str = "cpu",
        runtime: Runtime = "torch",
        precision: Precision = "float32",
    ) -> Self:
        """Load exported folders, finished runs or checkpoints: one, or one of each task.

        A source `USER/NAME` or `USER/NAME@REVISION` that does not exist on this machine is the name of an export on the
        Hugging Face hub. Exported folders need neither a network nor the run they were made from. Loading imports no
        modules that a model names: import those of custom tasks or parts first.

        Args:
            sources: the models.
            device: the device to compute on.
            runtime: the runtime that encodes images on a CPU, see `ImageEncoder`.
            precision: see the class.

        Raises:
            ExportError: a source is not one of these, is damaged, was edited, or was made by a newer version; or
                the hub refuses it.
            TaskError: its task is not registered; the message names the module that registers it.
            ConfigError: the device is not available or does not support bf16, or the runtime or precision is unknown.
            EncoderError: the packages of the runtime are not installed, or it cannot run an image encoder.
        """
        for source in sources:
            if not isinstance(source, str | Path):
                raise ExportError(
                    f"a model is given by its path or name, not {type(source).__name__}: give several one after another"
                )
        models = [model for source in sources for model in trained_models(Path(source))]
        for model in models:
            model.image_encoder.run_by(runtime)
        return cls(models, device, precision)

    def extract(
        self,
        text: str,
        image: ImageSource | None = None,
        crops: Sequence[CropSource] | None = None,
        entities: Sequence[Any] | None = None,
        evidence: bool = False,
        samples: int = 0,
    ) -> Extraction:
        """Extract the entities, relations and labels of one post.

        Args:
            text: the text of the post, as written.
            image: its image: a path, the bytes of a file, or a PIL image.
            crops: boxes x0 y0 x1 y1 in 0..1 of objects in the image, or images of the objects. Without crops, a model
                that was trained with them sees the whole image and the cells of a grid.
            entities: known entities, by start, end and optionally type; no others are then searched for. They are
                required, and may have any type, if there is a model of relations and none of entities.
            evidence: report the evidence for the results.
            samples: number of samples of the latents, at least two, that estimate the spread of each confidence.

        Raises:
            InputError: nothing can be extracted from this input; the message says why.
        """
        (result,) = self.extract_batch([Post(text, image, crops, entities)], evidence, samples)
        return result

    def extract_batch(self, posts: Sequence[Post | str], evidence: bool = False, samples: int = 0) -> list[Extraction]:
        """Extract from many posts, which is faster than one by one.

        Raises:
            InputError: nothing can be extracted from a post. To continue past such a post, use `prepare` and `read`.
        """
        whole = _checked_posts(posts)
        # Sort by length, so that batches have little padding. A text that is not a string is refused later.
        order = sorted(range(len(whole)), key=lambda number: len(str(whole[number].text)))
        result: dict[int, Extraction] = {}
        for start in range(0, len(order), POSTS):
            numbers = order[start : start + POSTS]
            try:
                prepared = in_threads(self.prepare, [whole[number] for number in numbers])
            except InputError:
                for post in whole:  # raise for the first in the caller's order
                    self.prepare(post)
                raise
            result |= zip(numbers, self.read(prepared, evidence, samples), strict=True)
        return [result[number] for number in range(len(whole))]

    def prepare(self, post: Post) -> PreparedPost:
        """Validate a post and load its image, without running a model.

        Raises:
            InputError: nothing can be extracted from the post.
        """
        text = _checked_text(post.text)
        given = None
        if post.entities is not None:
            if not isinstance(post.entities, list | tuple):
                raise InputError(f"entities are a list, not {post.entities!r}")
            types = None if self.entities is None else self.entities.labels.names
            given = [given_entity(text, entity, types) for entity in post.entities]
        elif self.entities is None and self.relations is not None:
            raise InputError("this model finds relations between given entities, and none were given with the post")
        cuts = [place for entity in given or () for place in (entity.start, entity.end)]
        tokens = tokenize(text, cuts)
        if not tokens:
            raise InputError("the text is empty, or nothing but space")
        notes, seen = self._notes(), {}
        if post.image is not None:
            looking = [reader for reader in self.readers if reader.reads_images]
            if looking:
                image = open_image(post.image)
                seen = {most: views(image, post.crops, most) for most in {reader.max_crops for reader in looking}}
            if len(looking) < len(self.readers):
                notes.append("the image was not used by a model that was trained without images")
        elif post.crops:
            raise InputError("crops were given without their image: give the image too")
        return PreparedPost(text, tokens, given, seen, notes)

    def _notes(self) -> list[str]:
        """Notes that apply to every result."""
        if not self._unknown_types:
            return []
        types = ", ".join(self._unknown_types)
        return [f"relations of {types} fit no entity: the model of entities has no such type"]

    @torch.inference_mode()
    def read(self, posts: Sequence[PreparedPost], evidence: bool = False, samples: int = 0) -> list[Extraction]:
        """Extract from prepared posts.

        Raises:
            InputError: the number of samples is negative or one.
        """
        wanted = Wanted(evidence, samples).checked()
        if not posts:
            return []
        regions = self.look(posts)
        entities, reasons = self._entities(posts, regions, wanted)
        relations: list[list[Relation]] = [[] for _ in posts]
        if self.relations is not None:
            relations = self.relations.read(posts, entities, regions[self.relations.view_key], wanted)
        labels: list[dict[str, PostLabel]] = [{} for _ in posts]
        for reader in self.labels:
            for found, label in zip(labels, reader.read(posts, regions[reader.view_key], wanted), strict=True):
                found[reader.task.name] = label
        rows = zip(posts, entities, relations, reasons, labels, strict=True)
        return [
            Extraction(post.text, found, links, post.notes, reason, given) for post, found, links, reason, given in rows
        ]

    def look(self, posts: Sequence[PreparedPost]) -> dict[ViewKey, list[Regions]]:
        """Regions of posts by the view of the readers; readers with the same image encoder share one forward pass."""
        regions: dict[ViewKey, list[Regions]] = {}
        for reader in self.readers:
            if reader.view_key not in regions:
                regions[reader.view_key] = reader.look(posts)
        return regions

    def _entities(
        self, posts: Sequence[PreparedPost], regions: dict[ViewKey, list[Regions]], wanted: Wanted
    ) -> tuple[list[list[Entity]], list[Evidence | None]]:
        """Entities of each post, given or found, in text order, and the evidence for those found."""
        entities = [sorted(post.given or (), key=lambda entity: (entity.start, entity.end)) for post in posts]
        reasons: list[Evidence | None] = [None] * len(posts)
        asked = [number for number, post in enumerate(posts) if post.given is None]
        if self.entities is not None and asked:
            seen = [regions[self.entities.view_key][number] for number in asked]
            read = self.entities.read([posts[number] for number in asked], seen, wanted)
            for number, (found, reason) in zip(asked, read, strict=True):
                entities[number], reasons[number] = found, reason
        return entities, reasons


def _checked_posts(posts: Any) -> list[Post]:
    # The characters of a text would be taken for posts.
    if isinstance(posts, str | bytes | Mapping) or not isinstance(posts, Iterable):
        raise InputError(
            f"posts are a list of texts or Post objects, not {type(posts).__name__}; for one post, extract"
        )
    whole = [Post(post) if isinstance(post, str) else post for post in posts]
    for number, post in enumerate(whole):
        if not isinstance(post, Post):
            raise InputError(f"a post is a text or a Post object, and number {number} is {type(post).__name__}")
    return whole


def _reader_class(model: TrainedModel) -> type[ModelReader]:
    finds = task_named(model.task).finds
    if finds not in READERS:
        raise ExportError(f"the task {model.task!r} finds {finds!r}: extraction knows {', '.join(READERS)}")
    return READERS[finds]


def _only(readers: list[ReaderT], finds: str) -> ReaderT | None:
    if len(readers) > 1:
        names = " and ".join(reader.task.name for reader in readers)
        raise ExportError(f"{names} both find {finds}: give one of these models")
    return readers[0] if readers else None


def trained_models(source: Path) -> list[TrainedModel]:
    """Load the models of an export (local or on the hub), of a run, or of a checkpoint of a run.

    Raises: see `Extractor.from_pretrained`.
    """
    # The encoders' packages take seconds to import, and some import more than models need: timm imports wandb.
    from mmib.export.folder import read_export
    from mmib.export.hub import located
    from mmib.export.model import model_of_run

    source = located(source)
    if is_file(source) and source.suffix == ".ckpt":
        run = run_of(source)
        if not (run / "config.yaml").is_file():
            raise ExportError(
                f"the checkpoint {source} is in no run folder: it is read together with the run's config.yaml, so give "
                "the one in RUN/checkpoints"
            )
        return [model_of_run(run, source)]
    if is_file(source / "config.yaml"):
        return [model_of_run(source)]
    if not is_folder(source):
        raise ExportError(
            f"there is no model {source}: give an exported folder, a run folder, a checkpoint, or USER/NAME on the hub"
        )
    return read_export(source)


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"the text of a post is a string, not {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"the text has {len(text):,} characters: {MOST_CHARACTERS:,} at most are read")
    if SURROGATE.search(text):
        raise InputError("the text contains an unpaired surrogate, which is not a character")
    return text
