"""Receive request bodies up to a size limit, and parse them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import ValidationError
from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, parse_options_header
from starlette.requests import ClientDisconnect, Request

from mmib.base.files import parse_json
from mmib.serve.messages import Message, PostRequest, reason

JSON, FORM = "application/json", "multipart/form-data"
MOST_FIELDS = 10
# Digits of a content length; Python refuses to convert thousands of digits.
DIGITS = 20
MessageT = TypeVar("MessageT", bound=Message)


class RefusedError(Exception):
    """A request that is answered with an HTTP error status and a reason.

    Args:
        status: the HTTP status.
        reason: a sentence.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def receive_body(request: Request, most: int, seconds: float) -> bytes:
    """Receive the body of a request.

    Raises:
        RefusedError: it has more bytes than `most`, takes too long, or ends early.
    """
    too_large = RefusedError(413, f"the request is larger than {most:,} bytes: send a smaller image or fewer posts")
    # If the client announces the length, refuse before it sends the body.
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > DIGITS or int(length) > most):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise RefusedError(
            408, f"the request did not arrive within {seconds:g} seconds: send it again, or less of it"
        ) from error
    except ClientDisconnect as error:
        raise RefusedError(400, "the connection closed before the request was complete: send it again") from error
    return bytes(body)


def content_type(request: Request, known: tuple[str, ...]) -> str:
    """Return the content type of a request.

    Raises:
        RefusedError: it is not one of the known types, or its character set is not UTF-8.
    """
    media, options = parse_options_header(request.headers.get("content-type"))
    found, charset = media.decode("latin-1"), options.get(b"charset", b"utf-8").decode("latin-1")
    if found not in known:
        raise RefusedError(415, f"the content type is {found or 'missing'}: send {' or '.join(known)}")
    if charset.lower() not in ("utf-8", "utf8"):
        raise RefusedError(415, f"the character set is {charset}: send UTF-8")
    return found


def read_json(message: type[MessageT], body: bytes) -> MessageT:
    """Parse the message in a JSON body.

    Raises:
        RefusedError: the body is not JSON, or not a valid message.
    """
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        is_json = error.error_count() > 1 or error.errors(include_input=False)[0]["type"] != "json_invalid"
        raise RefusedError(422 if is_json else 400, reason(error)) from error


def read_form(media: str, body: bytes) -> PostRequest:
    """Parse the post in a form: text, an image as a file, and the other fields as JSON.

    Args:
        media: the content type, with the boundary of the parts.
        body: the form.

    Raises:
        RefusedError: the body is not a form, or not a valid post.
    """
    return _post_of(_parse_form(media, body))


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


def _parse_form(media: str, body: bytes) -> dict[str, str | bytes]:
    fields: dict[str, str | bytes] = {}

    def add(name: bytes | None, value: bytes, is_text: bool) -> None:
        known = (name or b"").decode()
        if known in fields:
            raise RefusedError(422, "the form has a field twice: send one post in a form")
        if len(fields) == MOST_FIELDS:
            raise RefusedError(422, f"the form has more than {MOST_FIELDS} fields: send one post in a form")
        fields[known] = value.decode() if is_text else value

    def add_file(file: File) -> None:
        file.file_object.seek(0)
        add(file.field_name, file.file_object.read(), is_text=False)
        file.close()

    memory = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}  # nothing is written to disk
    try:
        parser = create_form_parser(
            {"Content-Type": media.encode("latin-1")},
            lambda part: add(part.field_name, part.value or b"", is_text=True),
            add_file,
            config=memory,
        )
        parser.write(body)
        parser.finalize()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the form is not UTF-8: {error}") from error
    except (FormParserError, ValueError) as error:
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    return fields
