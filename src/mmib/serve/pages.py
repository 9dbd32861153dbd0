"""Shared by the applications with a page: static files and error responses."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from mmib.schema import InputError
from mmib.serve.guard import Guard
from mmib.serve.receive import RefusedError

# Package, file name and media type, by path.
File = tuple[str, str, str]
FILES: dict[str, File] = {
    "/page.css": ("mmib.serve", "page.css", "text/css"),
    "/arcs.js": ("mmib.serve", "arcs.js", "text/javascript"),
    "/evidence.js": ("mmib.serve", "evidence.js", "text/javascript"),
    "/text.js": ("mmib.serve", "text.js", "text/javascript"),
    "/palette.css": ("mmib.charts", "palette.css", "text/css"),
    "/base.css": ("mmib.analysis.report", "base.css", "text/css"),
    "/theme.js": ("mmib.analysis.report", "theme.js", "text/javascript"),
}


def equip(
    app: FastAPI, files: Mapping[str, File], hosts: frozenset[str] | None, names: frozenset[str] = frozenset()
) -> None:
    """Add the page, the protections of `Guard`, and errors as `{"error": "a sentence"}` to an application.

    Args:
        app: the application.
        files: files used only by its page; `FILES` are added too.
        hosts: accepted host names, see `mmib.serve.guard.allowed_hosts`.
        names: names under which a proxy serves it, see `mmib.serve.guard.Guard`.
    """
    app.add_middleware(Guard, hosts=hosts, names=names)
    for error in (RefusedError, InputError, HTTPException):
        app.add_exception_handler(error, _refused)
    for path, (package, name, media) in {**FILES, **files}.items():
        _add_file(app, path, resources.files(package).joinpath(name).read_bytes(), media)


def _add_file(app: FastAPI, path: str, content: bytes, media: str) -> None:
    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=media)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # unknown path, or wrong method
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    status = error.status if isinstance(error, RefusedError) else 422
    return JSONResponse({"error": str(error)}, status, {"Retry-After": "1"} if status == 503 else None)
