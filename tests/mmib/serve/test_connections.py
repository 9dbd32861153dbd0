"""Idle connections do not block other clients."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from mmib.extract.extractor import Extractor
from mmib.serve.app import create_app
from mmib.serve.connections import bounded
from mmib.serve.process import listen

MOST, SECONDS = 4, 0.3


@pytest.fixture
def port(extractor: Extractor) -> Iterator[int]:
    """The port of a service in a thread that accepts four connections per client, with a short header timeout."""
    connection = bounded(MOST)
    connection.seconds = SECONDS
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(extractor), http=connection, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def opened(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))


def closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection within the socket timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def healthy(port: int, source: str = "127.0.0.1") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(source, 0))
    connection.request("GET", "/api/health")
    found = connection.getresponse().status == 200
    connection.close()
    return found


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:"])
def test_an_incomplete_header_times_out(port: int, sent: bytes) -> None:
    connection = opened(port)
    connection.sendall(sent)
    assert closed(connection)
    assert healthy(port)


def test_an_incomplete_header_after_an_answer_times_out(port: int) -> None:
    connection = opened(port)
    connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET / HTTP/1.1\r\n")
    while rest := connection.recv(10_000):
        assert b"HTTP/1.1" not in rest
    connection.close()


def test_connections_beyond_the_limit_of_a_client_are_closed_and_others_served(port: int) -> None:
    held = [opened(port) for _ in range(MOST)]
    assert closed(opened(port))
    assert healthy(port, source="127.0.0.2")
    for connection in held:
        connection.close()
    while not healthy(port):
        pass
