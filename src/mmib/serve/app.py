"""The web application: the page, and the API that the page and other programs use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.routing import Route

from mmib.extract.extractor import Extractor
from mmib.extract.readers import Wanted
from mmib.extract.results import Extraction
from mmib.schema import InputError
from mmib.serve.batcher import Question
from mmib.serve.description import describe, request_body
from mmib.serve.examples import generate_examples
from mmib.serve.fairness import client_of
from mmib.serve.limits import Limits
from mmib.serve.messages import (
    BatchAnswer,
    BatchRequest,
    Description,
    Example,
    Health,
    Liveness,
    PostMessage,
    PostRequest,
    Problem,
    question,
    reason,
    wanted_of,
)
from mmib.serve.observation import MEDIA_TYPE, Observer
from mmib.serve.pages import File, equip
from mmib.serve.receive import FORM, JSON, RefusedError, content_type, read_form, read_json, receive_body
from mmib.serve.service import Service

# Files used only by this page.
PAGE: dict[str, File] = {
    "/": ("mmib.serve", "page.html", "text/html"),
    "/page.js": ("mmib.serve", "page.js", "text/javascript"),
    "/program.js": ("mmib.serve", "program.js", "text/javascript"),
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "No JSON, or no form"},
    403: {"model": Problem, "description": "Requested by a page of another site"},
    408: {"model": Problem, "description": "It did not arrive in time"},
    413: {"model": Problem, "description": "Too large"},
    415: {"model": Problem, "description": "Neither JSON nor a form"},
    421: {"model": Problem, "description": "Requested with a host name that is not the service's"},
    422: {"model": Problem, "description": "Nothing can be extracted from this, for the reason given"},
    500: {"model": Problem, "description": "Internal error of the service"},
    503: {"model": Problem, "description": "Too many posts wait"},
    504: {"model": Problem, "description": "There was no result in time"},
}


def create_app(
    extractor: Extractor,
    limits: Limits | None = None,
    hosts: frozenset[str] | None = None,
    names: frozenset[str] = frozenset(),
) -> FastAPI:
    """Create the application.

    Args:
        extractor: extracts from posts.
        limits: limits of requests.
        hosts: accepted host names, see `mmib.serve.guard.allowed_hosts`; None accepts any.
        names: names under which a proxy serves it, see `mmib.serve.guard.Guard`.
    """
    service = Service(extractor, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.close)

    # No documentation pages: those of FastAPI load scripts from other sites.
    app = FastAPI(
        title="mmib",
        version=metadata.version("mmib"),
        description="Extract entities, relations and labels from posts, each a text with an optional image.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    equip(app, PAGE, hosts, names)
    _add_answers(app, service)
    _add_facts(app, service)
    describe(app, [PostMessage, PostRequest, BatchRequest])
    # Added last, it is the outermost middleware, and also sees requests that the guard refuses.
    paths = {route.path for route in app.routes if isinstance(route, Route)}
    app.add_middleware(Observer, metrics=service.metrics, paths=paths)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    limits = service.limits

    @app.post(
        "/api/extract",
        summary="Entities, relations and labels of one post",
        responses={200: {"model": Extraction}, **PROBLEMS},
        openapi_extra=request_body({JSON: PostRequest, FORM: PostRequest}),
    )
    async def extract(request: Request) -> Response:
        media, client = content_type(request, (JSON, FORM)), _client(request)
        async with service.slots.hold(client):
            body = await receive_body(request, limits.body, limits.seconds)
            if media == FORM:
                message = await asyncio.to_thread(read_form, request.headers["content-type"], body)
            else:
                message = await asyncio.to_thread(read_json, PostRequest, body)
            try:
                item = await asyncio.to_thread(question, message, wanted_of(message, limits), limits)
            except InputError:
                service.count_refused(1)
                raise
            (result,) = await service.answer([item], client)
            if isinstance(result, Exception):
                raise result
            return await asyncio.to_thread(lambda: JSONResponse(result.to_dict()))

    @app.post(
        "/api/extract-batch",
        summary="Entities, relations and labels of several posts",
        responses={200: {"model": BatchAnswer}, **PROBLEMS},
        openapi_extra=request_body({JSON: BatchRequest}),
    )
    async def extract_batch(request: Request) -> Response:
        content_type(request, (JSON,))
        client = _client(request)
        async with service.slots.hold(client):
            body = await receive_body(request, limits.body, limits.seconds)
            message = await asyncio.to_thread(read_json, BatchRequest, body)
            if len(message.posts) > limits.posts:
                raise RefusedError(
                    422, f"{len(message.posts):,} posts: at most {limits.posts:,} are accepted at a time"
                )
            wanted = wanted_of(message, limits)
            async with service.slots.hold(client, len(message.posts) - 1):
                items = await asyncio.to_thread(_questions, message.posts, wanted, limits)
                service.count_refused(sum(isinstance(item, InputError) for item in items))
                answers = iter(await service.answer([item for item in items if isinstance(item, Question)], client))
                results = [next(answers) if isinstance(item, Question) else item for item in items]
            return await asyncio.to_thread(lambda: JSONResponse({"results": [_plain(result) for result in results]}))


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get(
        "/api/live",
        summary="Liveness: whether the service is alive; if not, restart it",
        response_model=Liveness,
        responses={503: {"model": Liveness, "description": "The service is not alive"}},
    )
    async def live() -> Response:
        alive = service.alive
        return JSONResponse({"alive": alive}, 200 if alive else 503)

    @app.get(
        "/api/health",
        summary="Readiness: whether posts are accepted now; if not, use another instance",
        response_model=Health,
        responses={503: {"model": Health, "description": "Posts are not accepted now"}},
    )
    async def health() -> Response:
        state = service.health()
        return JSONResponse(state.model_dump(), 200 if state.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    @app.get("/api/model", summary="Labels, encoders and limits")
    async def model() -> Description:
        return service.description()

    @app.get("/api/examples", summary="Generated posts to try")
    def examples() -> list[Example]:
        return generate_examples(service.given_types())


def _client(request: Request) -> str:
    return client_of(request.client.host if request.client else None)


def _questions(posts: Sequence[Any], wanted: Wanted, limits: Limits) -> list[Question | InputError]:
    """Validate each post of a request: the question, or an error with the reason for having none."""
    items: list[Question | InputError] = []
    for content in posts:
        try:
            items.append(question(PostMessage.model_validate(content), wanted, limits))
        except ValidationError as error:
            items.append(InputError(reason(error)))
        except InputError as error:
            items.append(error)
    return items


def _plain(result: Extraction | Exception) -> dict[str, Any]:
    return {"error": str(result)} if isinstance(result, Exception) else result.to_dict()
