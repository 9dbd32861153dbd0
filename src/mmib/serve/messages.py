"""What requests say, and what they are answered."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from mmib.extract.extractor import Post
from mmib.extract.readers import Wanted
from mmib.extract.results import Extraction
from mmib.schema import InputError
from mmib.serve.batcher import Question
from mmib.serve.limits import Limits

# Pillow knows many more, some of which start other programs. What one of these reads no other format takes for its own.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
# Where Pydantic speaks of Python.
REASONS = {
    "extra_forbidden": "this field is unknown",
    "missing": "this field is missing",
    "model_type": "expected a JSON object with the fields of /api/openapi.json",
}


def _image_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):  # of an upload
        return value
    if not isinstance(value, str):
        raise ValueError("an image is its file in base64, no path and no address")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an image is its file in base64, no path and no address: {error}") from error


ImageBytes = Annotated[
    bytes,
    BeforeValidator(_image_bytes),
    WithJsonSchema(
        {
            "type": "string",
            "contentEncoding": "base64",
            "description": f"An image file ({', '.join(FORMATS)}) in base64.",
        }
    ),
]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Box = Annotated[list[Share], Field(min_length=4, max_length=4)]


class Message(BaseModel):
    """Nothing is guessed: no field that is unknown, no number for a string."""

    model_config = ConfigDict(extra="forbid", strict=True)


class GivenEntity(Message):
    """An entity that is known already."""

    start: int = Field(ge=0, description="its first character")
    end: int = Field(ge=1, description="the character behind its last")
    type: str | None = Field(
        None, min_length=1, description="one of `entity_types` of /api/model, or any where no model finds entities"
    )


class PostMessage(Message):
    """A post."""

    text: str = Field(description="as it was written")
    image: ImageBytes | None = None
    crops: list[Box] | None = Field(None, description="boxes x0 y0 x1 y1 in 0..1 of objects in the image")
    entities: list[GivenEntity] | None = Field(
        None,
        description="those that are known already: none are looked for then; a model of relations needs them, where no "
        "other finds entities",
    )


class Wishes(Message):
    """What is asked for beside the result."""

    evidence: bool = Field(False, description="report what results rest on: attention, KL, similarity")
    samples: int = Field(0, ge=0, description="samples of the latents, for the spread of confidence")


class PostRequest(PostMessage, Wishes):
    """A post, and what is asked for."""


class BatchRequest(Wishes):
    """Several posts; one that is none is reported in its place."""

    posts: list[Any] = Field(
        min_length=1, json_schema_extra={"items": {"anyOf": [{"$ref": "#/components/schemas/PostMessage"}, {}]}}
    )


class Problem(BaseModel):
    """Why there is no result."""

    error: str


class BatchAnswer(BaseModel):
    """Of each post, in order, what was found in it or why nothing could be."""

    results: list[Extraction | Problem]


class Health(BaseModel):
    """Whether requests are being answered."""

    ready: bool
    version: str
    tasks: list[str]
    models: list[str] = Field(description="the encoders of each task's model")
    waiting: int = Field(description="posts that are received, wait or are read")


class ModelDescription(BaseModel):
    """One of the models."""

    task: str
    title: str = Field(description="of the task, for people")
    finds: str = Field(description="entities, relations, or labels of whole posts")
    labels: list[str] = Field(description="entity types, relations, or classes of posts")
    negative: str | None = Field(description="the label that stands for none of the others")
    text_encoder: str
    image_encoder: str
    regions: Literal["crops", "grid"]
    max_crops: int
    max_length: int = Field(description="most word pieces that it reads of a post")
    reads_images: bool
    temperature: float = Field(description="of its confidence")


class Description(BaseModel):
    """What the service has, and what it takes."""

    models: list[ModelDescription]
    entity_types: list[str] = Field(description="of the model that finds entities, else those that relations ask for")
    limits: Limits
    formats: list[str] = Field(description="of images")


class Example(BaseModel):
    """A generated post to try: names and image are made up."""

    text: str
    image: str = Field(description="a JPEG file in base64")
    crops: list[list[float]]
    entities: list[GivenEntity]


def question(message: PostMessage, wanted: Wanted, limits: Limits) -> Question:
    """What a message asks, looked over.

    Raises:
        InputError: it is beyond a limit, or its image is none.
    """
    if len(message.text) > limits.characters:
        raise InputError(f"the text has {len(message.text):,} characters: {limits.characters:,} at most are taken")
    given = None if message.entities is None else [entity.model_dump() for entity in message.entities]
    if given is not None and len(given) > limits.entities:
        raise InputError(f"{len(given):,} entities are given: {limits.entities:,} at most are taken")
    pixels = 0 if message.image is None else _pixels(message.image, limits)
    return Question(Post(message.text, message.image, message.crops, given), pixels, wanted)


def wanted_of(wishes: Wishes, limits: Limits) -> Wanted:
    """What is asked for beside the result.

    Raises:
        InputError: more samples than are taken at most.
    """
    if wishes.samples > limits.samples:
        raise InputError(f"{wishes.samples:,} samples are asked for: {limits.samples:,} at most are taken")
    return Wanted(wishes.evidence, wishes.samples)


def reason(error: ValidationError) -> str:
    """What was wrong with a message, as one line."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    reasons = []
    for problem in found[:3]:
        place = ".".join(map(str, problem["loc"]))
        text = REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        reasons.append(f"{place}: {text}" if place else text)
    more = f"; and {len(found) - len(reasons)} more" if len(found) > len(reasons) else ""
    return "; ".join(reasons) + more


def _pixels(data: bytes, limits: Limits) -> int:
    """Pixels that an image says it has, before it is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
    # Pillow's plugins raise errors of every kind for broken files.
    except Exception as error:
        raise InputError(f"the image cannot be read: expected a file of {', '.join(FORMATS)}") from error
    if pixels > limits.pixels:
        raise InputError(f"the image has {pixels:,} pixels: {limits.pixels:,} at most are taken")
    return pixels
