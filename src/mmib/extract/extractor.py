"""`mmib.Extractor`: entities and relations out of the text and the image of a post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from mmib.base.devices import usable_device
from mmib.datamodules.words import tokenize
from mmib.export.folder import read_export
from mmib.export.model import TrainedModel, model_of_run
from mmib.extract.pictures import CropSource, ImageSource, in_threads, open_image, views
from mmib.extract.readers import EntityReader, Prepared, RelationReader, Scene, Sight, Wanted
from mmib.extract.results import Entity, Evidence, Extraction, Relation, given_entity
from mmib.network import EntityNetwork, RelationNetwork
from mmib.schema import ExportError, InputError

MOST_CHARACTERS = 100_000
# Posts whose pictures are in memory at a time.
POSTS = 32


@dataclass(frozen=True)
class Post:
    """What can be known of a post beforehand; see `Extractor.extract`."""

    text: str
    image: ImageSource | None = None
    crops: Sequence[CropSource] | None = None
    entities: Sequence[Any] | None = None


class Extractor:
    """Extracts entities, relations, or both, by one trained model of a task each.

    Args:
        models: one, or one of each task; their encoders may differ.
        device: where to compute.

    Raises:
        ExportError: two models of one task, or none at all.
        ConfigError: the device is not there.
    """

    def __init__(self, models: Sequence[TrainedModel], device: str = "cpu") -> None:
        tasks = [model.task for model in models]
        if not tasks or len(set(tasks)) < len(tasks):
            raise ExportError(f"the models given are {tasks}: give one, or one of each task")
        place = usable_device(device)
        self.entities: EntityReader | None = None
        self.relations: RelationReader | None = None
        for model in models:
            if isinstance(model.network, EntityNetwork):
                self.entities = EntityReader(model, model.network, place)
            elif isinstance(model.network, RelationNetwork):
                self.relations = RelationReader(model, model.network, place)
        self.readers = [reader for reader in (self.entities, self.relations) if reader is not None]

    @classmethod
    def from_pretrained(cls, *sources: str | Path, device: str = "cpu") -> Self:
        """An extractor of exported folders, finished runs or checkpoints: of one task, or one of each.

        Exported folders need neither a network nor the run that they were made from.

        Raises:
            ExportError: a source is none of these, is damaged, or was made by a newer version.
        ConfigError: the device is not there.
        """
        return cls([model for source in sources for model in trained_models(Path(source))], device)

    def extract(
        self,
        text: str,
        image: ImageSource | None = None,
        crops: Sequence[CropSource] | None = None,
        entities: Sequence[Any] | None = None,
        evidence: bool = False,
        samples: int = 0,
    ) -> Extraction:
        """Entities and relations of one post.

        Args:
            text: the post as it was written.
            image: its image: a path, the bytes of a file, or a PIL image.
            crops: boxes x0 y0 x1 y1 in 0..1 of objects in the image, or pictures of them. Without any, a model that
                was trained with crops sees the image whole and cut into a grid.
            entities: those that are known already, by start, end and maybe type: none are looked for then. A model
                of relations alone needs them.
            evidence: tell what the results rest on.
            samples: draw the latents so many times, two at least, for the spread of each confidence.

        Raises:
            InputError: nothing can be extracted from this; the text says why.
        """
        (result,) = self.extract_batch([Post(text, image, crops, entities)], evidence, samples)
        return result

    def extract_batch(self, posts: Sequence[Post | str], evidence: bool = False, samples: int = 0) -> list[Extraction]:
        """The same of many posts, in less time than one by one.

        Raises:
            InputError: of the first post that nothing can be extracted from. `prepare` and `read` go on behind one.
        """
        whole = [Post(post) if isinstance(post, str) else post for post in posts]
        # Texts of like length together, so that little of a batch is padding. What is no text is told of later.
        order = sorted(range(len(whole)), key=lambda number: len(str(whole[number].text)))
        result: dict[int, Extraction] = {}
        for start in range(0, len(order), POSTS):
            numbers = order[start : start + POSTS]
            try:
                prepared = in_threads(self.prepare, [whole[number] for number in numbers])
            except InputError:
                for post in whole:  # the first in the order of the caller
                    self.prepare(post)
                raise
            result |= zip(numbers, self.read(prepared, evidence, samples), strict=True)
        return [result[number] for number in range(len(whole))]

    def prepare(self, post: Post) -> Prepared:
        """Look a post over, without asking a model.

        Raises:
            InputError: nothing can be extracted from it.
        """
        text = _checked_text(post.text)
        given = None
        if post.entities is not None:
            if not isinstance(post.entities, list | tuple):
                raise InputError(f"entities are a list, not {post.entities!r}")
            given = [given_entity(text, entity) for entity in post.entities]
        elif self.entities is None:
            raise InputError("this model finds relations between entities that are given with the post: none were")
        cuts = [place for entity in given or () for place in (entity.start, entity.end)]
        tokens = tokenize(text, cuts)
        if not tokens:
            raise InputError("the text is empty, or nothing but space")
        notes, seen = [], {}
        if post.image is not None:
            image = open_image(post.image)
            seen = {most: views(image, post.crops, most) for most in {reader.max_crops for reader in self.readers}}
            if not all(reader.reads_images for reader in self.readers):
                notes.append("the image was not looked at by a model that was trained without images")
        elif post.crops:
            raise InputError("crops without the image that they belong to: give the image too")
        return Prepared(text, tokens, given, seen, notes)

    @torch.inference_mode()
    def read(self, posts: Sequence[Prepared], evidence: bool = False, samples: int = 0) -> list[Extraction]:
        """What is in posts that were prepared.

        Raises:
            InputError: a negative number of samples.
        """
        if samples < 0:
            raise InputError(f"samples is {samples}: latents are drawn 0 times or more")
        if not posts:
            return []
        wanted = Wanted(evidence, samples)
        scenes = self._scenes(posts)
        found, rests_on = self._found(posts, scenes, wanted)
        relations: list[list[Relation]] = [[] for _ in posts]
        if self.relations is not None:
            relations = self.relations.read(posts, found, scenes[self.relations.sight], wanted)
        rows = zip(posts, found, relations, rests_on, strict=True)
        return [Extraction(post.text, own, links, post.notes, reasons) for post, own, links, reasons in rows]

    def _scenes(self, posts: Sequence[Prepared]) -> dict[Sight, list[Scene]]:
        """The regions that each reader sees; readers with the same eyes share them."""
        scenes: dict[Sight, list[Scene]] = {}
        for reader in self.readers:
            if reader.sight not in scenes:
                scenes[reader.sight] = reader.look(posts)
        return scenes

    def _found(
        self, posts: Sequence[Prepared], scenes: dict[Sight, list[Scene]], wanted: Wanted
    ) -> tuple[list[list[Entity]], list[Evidence | None]]:
        """Each post's entities, given or found, in order of the text, and what those found rest on."""
        entities = [sorted(post.given or (), key=lambda entity: (entity.start, entity.end)) for post in posts]
        rests_on: list[Evidence | None] = [None] * len(posts)
        asked = [number for number, post in enumerate(posts) if post.given is None]
        if self.entities is not None and asked:
            own = [scenes[self.entities.sight][number] for number in asked]
            read = self.entities.read([posts[number] for number in asked], own, wanted)
            for number, (found, reasons) in zip(asked, read, strict=True):
                entities[number], rests_on[number] = found, reasons
        return entities, rests_on


def trained_models(source: Path) -> list[TrainedModel]:
    """The models of an export, of a run, or of a checkpoint of one.

    Raises: see `Extractor.from_pretrained`.
    """
    if source.is_file() and source.suffix == ".ckpt":
        return [model_of_run(source.parent.parent, source)]
    if (source / "config.yaml").is_file():
        return [model_of_run(source)]
    if not source.is_dir():
        raise ExportError(f"there is no model {source}: give an exported folder, a run folder or a checkpoint")
    return read_export(source)


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"the text of a post is a string, not {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"the text has {len(text):,} characters: {MOST_CHARACTERS:,} at most are read")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("the text holds half of a surrogate pair, which is no character")
    return text
