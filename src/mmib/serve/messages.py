"""Messages of requests and responses."""

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

# Pillow knows many more, some of which start other programs. Files are only read as one of these formats.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
# More errors than this are only counted.
MOST_ERRORS = 100
# Replacements for messages of Pydantic that mention Python.
REASONS = {
    "extra_forbidden": "this field is unknown",
    "missing": "this field is missing",
    "model_type": "expected a JSON object with the fields of /api/openapi.json",
}


def _image_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):  # from an upload
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
    """A message with strict validation: no unknown fields, no numbers for strings.

    Its lists are `fail_fast`: validation ends at the first invalid element, or the errors of millions of elements would
    fill the memory.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class GivenEntity(Message):
    """A known entity."""

    start: int = Field(ge=0, description="offset of the first character")
    end: int = Field(ge=1, description="offset after the last character")
    type: str | None = Field(
        None, min_length=1, description="one of the `entity_types` of /api/model; any type if no model finds entities"
    )


class PostMessage(Message):
    """A post."""

    text: str = Field(description="original text of the post")
    image: ImageBytes | None = None
    crops: list[Box] | None = Field(
        None, fail_fast=True, description="boxes of objects in the image: x0 y0 x1 y1, from 0 to 1"
    )
    entities: list[GivenEntity] | None = Field(
        None,
        fail_fast=True,
        description="known entities; if given, no others are extracted. Required by a relation model if no other model "
        "finds entities",
    )


class Options(Message):
    """What to return besides the result."""

    evidence: bool = Field(False, description="also report the evidence for each result: attention, KL, similarity")
    samples: int = Field(0, ge=0, description="latent samples to estimate the spread of confidence, two or more")


class PostRequest(PostMessage, Options):
    """A post, and what to return for it."""


class BatchRequest(Options):
    """Several posts; an invalid one is reported at its position in the results."""

    posts: list[Any] = Field(
        min_length=1, json_schema_extra={"items": {"anyOf": [{"$ref": "#/components/schemas/PostMessage"}, {}]}}
    )


class Problem(BaseModel):
    """Why there is no result."""

    error: str


class BatchAnswer(BaseModel):
    """The result of each post, in order, or the reason for having none."""

    results: list[Extraction | Problem]


class Liveness(BaseModel):
    """Whether the service is alive."""

    alive: bool = Field(description="whether the thread that processes posts is running")


class Health(BaseModel):
    """Whether the service accepts posts."""

    ready: bool = Field(description="whether the service is running and can accept a post")
    version: str
    tasks: list[str]
    models: list[str] = Field(description="encoders of the model of each task")
    waiting: int = Field(description="posts being received, queued or processed")


class ModelDescription(BaseModel):
    """Description of a model."""

    task: str
    title: str = Field(description="display name of the task")
    finds: str = Field(description="entities, relations, or labels of whole posts")
    labels: list[str] = Field(description="entity types, relations, or classes of posts")
    negative: str | None = Field(description="label for none of the others")
    text_encoder: str
    image_encoder: str
    regions: Literal["crops", "grid"]
    max_crops: int
    max_length: int = Field(description="maximum number of word pieces per post")
    reads_images: bool
    temperature: float = Field(description="temperature that calibrates the confidence")
    summary: str = Field(description="training data and score")
    facts: list[tuple[str, str]] = Field(description="provenance: data, scores, date, versions, settings")


class Description(BaseModel):
    """Models and limits of the service."""

    models: list[ModelDescription]
    entity_types: list[str] = Field(
        description="entity types of the model that finds entities, otherwise of the relation model"
    )
    limits: Limits
    formats: list[str] = Field(description="accepted image formats")


class Example(BaseModel):
    """A generated example post: names and image are made up."""

    text: str
    image: str = Field(description="JPEG file in base64")
    crops: list[list[float]]
    entities: list[GivenEntity]


def question(message: PostMessage, wanted: Wanted, limits: Limits) -> Question:
    """Validate a message and convert it to a question.

    Raises:
        InputError: it exceeds a limit, or its image cannot be read.
    """
    if len(message.text) > limits.characters:
        raise InputError(f"the text has {len(message.text):,} characters: at most {limits.characters:,} are accepted")
    given = None if message.entities is None else [entity.model_dump() for entity in message.entities]
    if given is not None and len(given) > limits.entities:
        raise InputError(f"{len(given):,} entities are given: at most {limits.entities:,} are accepted")
    pixels = 0 if message.image is None else _pixels(message.image, limits)
    return Question(Post(message.text, message.image, message.crops, given), pixels, wanted)


def wanted_of(options: Options, limits: Limits) -> Wanted:
    """What to return besides the result.

    Raises:
        InputError: more samples are requested than the limit, or one, which has no spread.
    """
    if options.samples > limits.samples:
        raise InputError(f"{options.samples:,} samples are requested: at most {limits.samples:,} are accepted")
    return Wanted(options.evidence, options.samples).checked()


def reason(error: ValidationError) -> str:
    """Summarise the errors of a message in one line."""
    count = error.error_count()
    if count > MOST_ERRORS:  # describing them takes seconds, in which nothing else is answered
        return f"{count:,} fields are unknown or invalid: expected the fields of /api/openapi.json"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    reasons = []
    for problem in problems[:3]:
        field = ".".join(map(str, problem["loc"]))
        text = REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        reasons.append(f"{field}: {text}" if field else text)
    more = f"; and {count - len(reasons)} more" if count > len(reasons) else ""
    return "; ".join(reasons) + more


def _pixels(data: bytes, limits: Limits) -> int:
    """Number of pixels of an image from its header, without decoding it."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
    # Pillow's plugins raise any type of error for broken files.
    except Exception as error:
        raise InputError(f"the image cannot be read: expected a file of {', '.join(FORMATS)}") from error
    if pixels > limits.pixels:
        raise InputError(f"the image has {pixels:,} pixels: at most {limits.pixels:,} are accepted")
    return pixels
