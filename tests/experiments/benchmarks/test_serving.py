"""The load test detects an answer that is lost or belongs to another post."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from experiments.benchmarks import serving

POSTS = [{"text": "Ada", "entities": [{"start": 0, "end": 3}]}, {"text": "Bob", "entities": [{"start": 0, "end": 3}]}]


class Service:
    """Answers with the text of a post by default."""

    def __init__(self) -> None:
        self.wrong: dict[str, Any] = {}
        self.status = 200
        self.seen: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                post = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.seen.append(post["text"])
                content = json.dumps({"text": post["text"], "entities": post["entities"], **service.wrong}).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_each_request_is_sent_once_by_some_client(service: Service) -> None:
    found = serving.load(service.place, 4, 21, POSTS)
    assert sorted(service.seen) == sorted(f"{('Ada', 'Bob')[number % 2]} #4of{number}" for number in range(21))
    assert 0 < found.middle <= found.tail
    assert found.rate > 0


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [({"text": "Bob"}, 200, "was lost"), ({"entities": []}, 200, "belongs to another post"), ({}, 503, "got 503")],
)
def test_a_wrong_answer_is_no_measurement(service: Service, wrong: dict[str, Any], status: int, message: str) -> None:
    service.wrong, service.status = wrong, status
    with pytest.raises(RuntimeError, match=message):
        serving.load(service.place, 2, 4, POSTS)


def test_posts_are_distinct_and_have_the_requested_options() -> None:
    with_images, without = serving.posts(images=True, entities=False), serving.posts(images=False, entities=True)
    assert len({post["text"] for post in with_images}) == serving.DISTINCT
    assert all(post.keys() == {"text", "image", "crops"} for post in with_images)
    assert all(post.keys() == {"text", "entities"} for post in without)
