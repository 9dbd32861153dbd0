"""The OpenAPI description: that of FastAPI, plus the request bodies that this service parses itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

COMPONENT = "#/components/schemas/{model}"


def request_body(bodies: dict[str, type[BaseModel]]) -> dict[str, Any]:
    """Describe the body of an operation by content type, for `openapi_extra`."""
    content = {name: {"schema": {"$ref": COMPONENT.format(model=body.__name__)}} for name, body in bodies.items()}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Add the schemas of these bodies to the OpenAPI description of an application."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=COMPONENT)
            found["components"]["schemas"] |= schemas["$defs"]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
