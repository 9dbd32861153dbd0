"""The web application of the page: serves predictions, and receives corrections."""

from __future__ import annotations

import asyncio
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field

from mmib.datamodules.files import inside
from mmib.datamodules.images import UnreadableImageError, read_image
from mmib.review.corrections import Corrections
from mmib.review.predictions import Annotation, Entity, Relation
from mmib.schema import DataError
from mmib.serve.limits import Limits
from mmib.serve.messages import GivenEntity, Message
from mmib.serve.pages import File, equip
from mmib.serve.receive import JSON, RefusedError, content_type, read_json, receive_body

# Files used only by this page.
PAGE: dict[str, File] = {
    "/": ("mmib.review", "review.html", "text/html"),
    "/review.css": ("mmib.review", "review.css", "text/css"),
    "/review.js": ("mmib.review", "review.js", "text/javascript"),
    "/edits.js": ("mmib.review", "edits.js", "text/javascript"),
}
# Maximum length of the longer side of an image on the page, in pixels.
LONGEST_SIDE = 1024


class GivenRelation(Message):
    """A relation between two entities of a correction."""

    head: int = Field(ge=0)
    tail: int = Field(ge=0)
    type: str = Field(min_length=1)


class Correction(Message):
    """A person's annotation of a post; without `entities` it withdraws an earlier correction."""

    version: int = Field(ge=0, description="version of the post when it was opened")
    text: str = Field(description="text of the post that was annotated")
    entities: list[GivenEntity] | None = Field(None, fail_fast=True)
    relations: list[GivenRelation] = Field(default_factory=list, fail_fast=True)

    def annotation(self) -> Annotation | None:
        """Return the annotation, or None if the correction is withdrawn."""
        if self.entities is None:
            return None
        entities = [Entity(entity.start, entity.end, entity.type) for entity in self.entities]
        return Annotation(entities, [Relation(link.head, link.tail, link.type) for link in self.relations])


def create_app(corrections: Corrections, images: Path | None, hosts: frozenset[str] | None) -> FastAPI:
    """Create the application.

    Args:
        corrections: the corrections to show and save.
        images: the folder of the images, if known.
        hosts: accepted host names, see `mmib.serve.guard.allowed_hosts`.
    """
    app = FastAPI(title="mmib review", docs_url=None, redoc_url=None, openapi_url=None)
    equip(app, PAGE, hosts)
    limits, predictions = Limits(), corrections.predictions

    @app.get("/api/review")
    def overview() -> dict[str, Any]:
        posts = [{"row": post.row, "reviewed": post.row in corrections} for post in predictions.posts]
        return {
            "output": str(corrections.path.absolute()),
            "types": predictions.types,
            "relations": predictions.relations,
            "negative": predictions.negative,
            "posts": posts,
        }

    @app.get("/api/posts/{row}")
    def post(row: int) -> dict[str, Any]:
        found = corrections.post(row)
        return {
            "text": found.text,
            "words": found.words,
            "whole_words": "tokens" in found.content,
            "kl": found.kl,
            "certainty": found.certainty,
            "image": bool(found.image),
            "version": corrections.version(row),
            "reviewed": row in corrections,
            "proposal": asdict(found.proposal),
            **asdict(corrections.annotation(row)),
        }

    @app.put("/api/posts/{row}")
    async def save(row: int, request: Request) -> dict[str, int]:
        content_type(request, (JSON,))
        message = read_json(Correction, await receive_body(request, limits.body, limits.seconds))
        # A page outlives the process, and another one may serve other predictions at its address.
        if message.text != corrections.post(row).text:
            raise RefusedError(409, f"the page does not show post {row} of these predictions: load it again")
        version = await asyncio.to_thread(corrections.save, row, message.annotation(), message.version)
        return {"version": version}

    @app.get("/api/posts/{row}/image")
    def image(row: int) -> Response:
        name = corrections.post(row).image
        if images is None or not name:
            raise RefusedError(404, "the folder of the images is not known: name it with --images")
        try:
            shown = read_image(inside(images, name, "the predictions"))
        except (DataError, UnreadableImageError) as error:
            raise RefusedError(404, f"{name} cannot be read: {error}") from error
        shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        file = io.BytesIO()
        shown.save(file, "WEBP")
        return Response(file.getvalue(), media_type="image/webp")

    return app
