"""Monitoring: metrics as parsed by Prometheus, liveness and readiness, request logs without contents."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mmib.base.revision import revision
from mmib.extract.extractor import Extractor
from mmib.serve.observation import JSONFormatter
from tests.mmib.serve.conftest import MakeClient

SECRET = "bob meets anna in paris"


def scrape(client: TestClient) -> dict[str, Any]:
    """Values by name and labels, as parsed by Prometheus."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    return {
        " ".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Lines as written by `--log json`."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.setFormatter(JSONFormatter())
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    loggers = [logging.getLogger("mmib.requests"), logging.getLogger("uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    with caplog.at_level(logging.INFO, "mmib.requests"):
        yield lines
    for logger in loggers:
        logger.removeHandler(handler)


def test_requests_and_posts_are_counted(client: TestClient) -> None:
    client.post("/api/extract", json={"text": SECRET})
    client.post("/api/extract", json={"text": ""})
    client.post("/api/extract-batch", json={"posts": [{"text": "bob"}, {"text": "anna"}, {"text": 7}]})
    client.get(f"/{SECRET}")
    client.get("/api/model", headers={"Origin": "http://elsewhere.example"})
    found = scrape(client)
    assert found["mmib_requests_total method=POST path=/api/extract status=200"] == 1
    assert found["mmib_requests_total method=POST path=/api/extract status=422"] == 1
    assert found["mmib_requests_total method=GET path=other status=404"] == 1
    assert found["mmib_requests_total method=GET path=/api/model status=403"] == 1, "what the guard refuses counts too"
    assert found["mmib_request_seconds_count path=/api/extract"] == 2
    assert found["mmib_posts_total outcome=answered"] == 3
    assert found["mmib_posts_total outcome=refused"] == 2
    assert (found["mmib_posts_waiting"], found["mmib_ready"]) == (0, 1)
    state = revision()
    assert found[f"mmib_build_info code={state.digest} git={state.git or ''} version={state.version}"] == 1
    assert SECRET not in client.get("/metrics").text


def test_two_services_have_separate_counters(make_client: MakeClient) -> None:
    one, other = make_client(), make_client()
    one.get("/api/model")
    assert "mmib_requests_total method=GET path=/api/model status=200" in scrape(one)
    assert "mmib_requests_total method=GET path=/api/model status=200" not in scrape(other)


def test_a_full_service_is_alive_and_not_ready(
    make_client: MakeClient, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, release, prepare = make_client(waiting=1, client=1, posts=1), threading.Event(), extractor.prepare

    def slow(post: Any) -> Any:
        release.wait(60)
        return prepare(post)

    monkeypatch.setattr(extractor, "prepare", slow)
    asking = threading.Thread(target=client.post, args=("/api/extract",), kwargs={"json": {"text": "bob"}})
    asking.start()
    try:
        while client.get("/api/health").status_code == 200:
            pass
        assert client.get("/api/health").json()["ready"] is False
        assert scrape(client)["mmib_ready"] == 0
        assert client.get("/api/live").json() == {"alive": True}
    finally:
        release.set()
        asking.join()
    assert client.get("/api/health").status_code == 200


def test_a_service_with_a_dead_reading_thread_is_neither_alive_nor_ready(
    make_client: MakeClient, extractor: Extractor
) -> None:
    client = make_client()
    app: Any = client.app
    assert client.get("/api/live").status_code == 200
    client.__exit__(None, None, None)  # as when the process exits
    closed = TestClient(app)  # without restarting it
    assert closed.get("/api/live").status_code == 503
    assert closed.get("/api/health").status_code == 503
    client.__enter__()


def test_each_request_is_logged_in_one_line_without_contents(client: TestClient, logged: list[str]) -> None:
    answer = client.post(f"/api/extract?q={SECRET}", json={"text": SECRET})
    client.get(f"/{SECRET}")
    extract, other = (json.loads(line) for line in logged)
    assert extract["id"] == answer.headers["X-Request-Id"] != other["id"]
    assert (extract["message"], extract["method"], extract["path"], extract["status"]) == (
        "request",
        "POST",
        "/api/extract",
        200,
    )
    assert extract["bytes_in"] > len(SECRET)
    assert extract["bytes_out"] == len(answer.content)
    assert extract["seconds"] >= 0
    assert extract["time"].endswith("+00:00")
    assert (other["path"], other["status"]) == ("other", 404)
    assert not any(word in line for line in logged for word in ("bob", "anna", "testclient"))


def test_failures_are_logged_with_their_traceback(
    client: TestClient, extractor: Extractor, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(extractor, "read", broken)
    assert client.post("/api/extract", json={"text": SECRET}).status_code == 500
    failed, request = (json.loads(line) for line in logged)
    assert failed["level"] == "error"
    assert "RuntimeError: unforeseen" in failed["error"]
    assert request["status"] == 500
    assert not any(SECRET in line for line in logged)
