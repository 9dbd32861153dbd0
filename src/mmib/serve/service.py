"""Connects requests and models: queueing, timeouts, and the answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from mmib.export.card import facts
from mmib.extract.extractor import Extractor
from mmib.extract.readers import ModelReader
from mmib.extract.results import Extraction
from mmib.runs.reader import dotted
from mmib.schema import InputError
from mmib.serve.batcher import Batcher, Question
from mmib.serve.limits import Limits
from mmib.serve.messages import FORMATS, Description, Health, ModelDescription
from mmib.serve.observation import Metrics
from mmib.serve.receive import RefusedError
from mmib.serve.slots import Slots

SPLITS = {"val": "validation", "test": "test"}
LOG = logging.getLogger("uvicorn.error")


class Service:
    """Answers questions; only for use from the event loop.

    Args:
        extractor: extracts from posts.
        limits: limits of requests.
    """

    def __init__(self, extractor: Extractor, limits: Limits) -> None:
        self.extractor = extractor
        self.limits = limits
        self.batcher = Batcher(extractor, limits.posts, limits.pixels)
        self.slots = Slots(limits.waiting, limits.client)
        self.metrics = Metrics(lambda: self.slots.occupied, lambda: self.ready)

    async def answer(self, questions: Sequence[Question], client: str) -> list[Extraction | InputError | RefusedError]:
        """Return the extraction from each post, or the reason for having none.

        Raises:
            RefusedError: the request timed out.
        """
        answers = [asyncio.wrap_future(answer) for answer in self.batcher.ask(questions, client)]
        try:
            async with asyncio.timeout(self.limits.seconds):
                results = await asyncio.gather(*answers, return_exceptions=True)
        except TimeoutError as error:
            self.metrics.posts.labels("late").inc(len(answers))
            raise RefusedError(
                504,
                f"there was no result within {self.limits.seconds:g} seconds: send fewer posts, or try again later",
            ) from error
        found = [_public(result) for result in results]
        for result in found:
            self.metrics.posts.labels(_outcome(result)).inc()
        return found

    def count_refused(self, posts: int) -> None:
        """Count posts that were refused before they were processed."""
        self.metrics.posts.labels("refused").inc(posts)

    @property
    def alive(self) -> bool:
        """Whether the thread that processes posts is running."""
        return self.batcher.running

    @property
    def ready(self) -> bool:
        """Whether a post would be accepted now."""
        return self.alive and self.slots.occupied < self.slots.most

    def health(self) -> Health:
        """Report whether posts are accepted."""
        models = self.description().models
        return Health(
            ready=self.ready,
            version=metadata.version("mmib"),
            tasks=[model.task for model in models],
            models=[f"{model.text_encoder}; {model.image_encoder}" for model in models],
            waiting=self.slots.occupied,
        )

    def given_types(self) -> frozenset[str] | None:
        """Types that given entities may have; None for any."""
        entities = self.extractor.entities
        return None if entities is None else frozenset(entities.labels.names)

    def description(self) -> Description:
        """Describe models and limits."""
        models = [_describe(reader) for reader in self.extractor.readers]
        types = self.extractor.entity_types
        return Description(models=models, entity_types=types, limits=self.limits, formats=list(FORMATS))


def _public(result: Extraction | BaseException) -> Extraction | InputError | RefusedError:
    """Convert a result for the client; an unexpected error is logged."""
    if isinstance(result, Extraction | InputError):
        return result
    LOG.error("a post could not be read", exc_info=result)
    return RefusedError(500, "reading this post failed inside the service; its log has the error")


def _outcome(result: Extraction | InputError | RefusedError) -> str:
    if isinstance(result, Extraction):
        return "answered"
    return "refused" if isinstance(result, InputError) else "failed"


def _describe(reader: ModelReader) -> ModelDescription:
    text, image = reader.network.backbone.text_encoder.encoder.config, reader.image_encoder
    return ModelDescription(
        task=reader.task.name,
        title=reader.task.title,
        finds=reader.task.finds,
        labels=list(reader.labels.names),
        negative=reader.labels.negative,
        text_encoder=f"{text.model_type}, {text.num_hidden_layers} layers, width {text.hidden_size}",
        image_encoder=image.architecture,
        regions=image.regions,
        max_crops=reader.max_crops,
        max_length=reader.max_length,
        reads_images=reader.reads_images,
        temperature=reader.temperature.value,
        summary=_summary(reader),
        facts=_facts(reader),
    )


def _summary(reader: ModelReader) -> str:
    card = reader.model.card
    known = [(name, _mapping(card, split).get("f1")) for split, name in SPLITS.items()]
    scores = [f"F1 {100 * score:.1f} % on {name}" for name, score in known if isinstance(score, float)]
    return "; ".join([str(card.get("corpus", "unnamed data")), *scores])


def _facts(reader: ModelReader) -> list[tuple[str, str]]:
    """Facts from the model card."""
    card = reader.model.card
    known: list[tuple[str, Any]] = [("data", card.get("corpus")), *facts(reader.model)]
    for split in _mapping(card, "data"):
        part = _mapping(card["data"], split)
        known.append((f"data, {split}", part and f"{part.get('rows')} rows, SHA-256 {part.get('sha256')}"))
    for split, name in SPLITS.items():
        scores = [f"{n} {value:.4f}" for n, value in _mapping(card, split).items() if isinstance(value, float)]
        known.append((f"scores, {name}", ", ".join(scores)))
    known += dotted(_mapping(card, "settings"))
    return [(name, str(value)) for name, value in known if value not in (None, "", {})]


def _mapping(card: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a card; empty if there is none, since an export may be untrusted."""
    found = card.get(name)
    return found if isinstance(found, dict) else {}
