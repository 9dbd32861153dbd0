"""Observability of the service: metrics for Prometheus, and a line of JSON for each request.

Neither contains posts, queries or clients: paths are those of the service, and any other path is `other`.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmib.base.revision import revision

REQUESTS = logging.getLogger("mmib.requests")
REQUEST_ID = "X-Request-Id"
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")
# From the time for a file of the page to the default timeout of a request.
SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Metrics of one service, in the text format of Prometheus.

    Args:
        waiting: returns the number of posts being received, waiting or processed.
        ready: returns whether posts are accepted.
    """

    def __init__(self, waiting: Callable[[], int], ready: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mmib_requests", "Requests that were answered.", ["method", "path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "mmib_request_seconds",
            "Seconds from a request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.posts = Counter("mmib_posts", "Posts by outcome.", ["outcome"], registry=self.registry)
        Gauge("mmib_posts_waiting", "Posts being received, waiting or processed.", registry=self.registry).set_function(
            waiting
        )
        Gauge("mmib_ready", "1 while posts are taken.", registry=self.registry).set_function(ready)
        state = revision()
        Info("mmib_build", "The code that runs.", registry=self.registry).info(
            {"version": state.version, "git": state.git or "", "code": state.digest}
        )

    def text(self) -> bytes:
        """All metrics in the format that Prometheus reads."""
        return generate_latest(self.registry)


class Observer:
    """Counts and logs every request, including refused ones, and adds a request id to the response and the log.

    Args:
        app: the application.
        metrics: the metrics to update.
        paths: paths of the service.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, received, sent, status = time.monotonic(), 0, 0, 500
        identity = uuid.uuid4().hex[:16]

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal sent, status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = identity
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        finally:
            path = scope["path"] if scope["path"] in self.paths else OTHER
            method = scope["method"] if scope["method"] in METHODS else OTHER
            seconds = time.monotonic() - began
            self.metrics.requests.labels(method, path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            facts = {"id": identity, "method": method, "path": path, "status": status, "seconds": round(seconds, 4)}
            REQUESTS.info("request", extra={"facts": {**facts, "bytes_in": received, "bytes_out": sent}})


class JSONFormatter(logging.Formatter):
    """Formats records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line; `facts` in its extra become top-level fields."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Write all log records, including one per request, to standard error as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    REQUESTS.setLevel(logging.INFO)
