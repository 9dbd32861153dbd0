"""Receives the bodies of requests, up to a limit, and parses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mmib.base.files import parse_json
from mmib.serve.messages import Message, PostRequest, reason

JSON, FORM = "application/json", "multipart/form-data"
MOST_FIELDS = 10
MessageT = TypeVar("MessageT", bound=Message)


class RefusedError(Exception):
    """A request that is answered with an HTTP status and a reason.

    Args:
        status: the status.
        reason: a sentence.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def receive_body(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it has more bytes than `most`, takes too long, or ends early.
    """
    too_large = RefusedError(413, f"the request is larger than {most:,} bytes: send a smaller image or fewer posts")
    # Clients that announce a length are refused before they send the body.
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise RefusedError(408, f"the request did not arrive within {seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise RefusedError(400, "the request broke off") from error
    return bytes(body)


def content_type(request: Request, known: tuple[str, ...]) -> str:
    """The content type of a request.

    Raises:
        RefusedError: it is not one of those known.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in known:
        raise RefusedError(415, f"the content type is {found or 'missing'}: send {' or '.join(known)}")
    return found


def read_json(message: type[MessageT], body: bytes) -> MessageT:
    """The message of a JSON body.

    Raises:
        RefusedError: it is no JSON, or no such message.
    """
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        is_json = error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid"
        raise RefusedError(422 if is_json else 400, reason(error)) from error


async def read_form(request: Request, body: bytes) -> PostRequest:
    """The post of a form: text, an image as a file, the other fields as JSON.

    Raises:
        RefusedError: it is no form, or no such post.
    """
    form = await _parse_form(request, body)
    fields = {name: await value.read() if isinstance(value, UploadFile) else value for name, value in form.items()}
    return await asyncio.to_thread(_post_of, fields)


def _post_of(fields: dict[str, str | bytes]) -> PostRequest:
    try:
        values: dict[str, Any] = {
            name: value if isinstance(value, bytes) or name in ("text", "image") else parse_json(value)
            for name, value in fields.items()
        }
        return PostRequest.model_validate(values)
    except ValidationError as error:
        raise RefusedError(422, reason(error)) from error
    except ValueError as error:
        raise RefusedError(422, f"a field of the form is no JSON: {error}") from error


async def _parse_form(request: Request, body: bytes) -> dict[str, str | UploadFile]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, chunks(), max_files=1, max_fields=MOST_FIELDS, max_part_size=max(1, len(body))
    )
    parser.spool_max_size = len(body) + 1  # nothing is written to disk
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    if len(form) < len(form.multi_items()):
        raise RefusedError(422, "the form has a field twice")
    return dict(form.items())
