"""The service as a process: its address, its log, and how it ends."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import webbrowser
from types import FrameType

import uvicorn

from mmib.extract.extractor import Extractor
from mmib.schema import ConfigError
from mmib.serve.app import create_app
from mmib.serve.guard import allowed_hosts
from mmib.serve.limits import Limits

# Requests that have begun when the service is told to end have their own time limits; this is on top.
GRACE = 5
MOST_PORTS = 65535


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections can be made to.

    Raises:
        ConfigError: it cannot be had.
    """
    if not 0 <= port <= MOST_PORTS:
        raise ConfigError(f"the service cannot listen at port {port}: choose --port from 0 to {MOST_PORTS}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family)
    # UnicodeError for what cannot be a name.
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the service cannot listen at {host}, port {port}: {error}; choose others with --host and --port"
        ) from error


def address_of(place: socket.socket) -> str:
    """Where a browser finds what listens at a socket."""
    host, port = place.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(extractor: Extractor, limits: Limits, place: socket.socket, browse: bool = False) -> None:
    """Answer requests until the process is told to end; those that are being answered then are finished.

    Args:
        extractor: what answers.
        limits: of the service.
        place: the socket that listens.
        browse: open the page in a browser.
    """
    address = address_of(place)
    app = create_app(extractor, limits, allowed_hosts(place.getsockname()[0]))
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        # One limit for a request to arrive, one for its answer.
        timeout_graceful_shutdown=round(2 * limits.seconds) + GRACE,
    )
    server = uvicorn.Server(config)

    # While it runs uvicorn listens to signals itself; afterwards it raises them again, which would end the process with
    # their number instead of 0.
    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(f"mmib serves at {address} (Ctrl+C ends it)", file=sys.stderr, flush=True)  # noqa: T201
    if browse and not webbrowser.open(address):
        print("there is no browser here: open the address yourself", file=sys.stderr, flush=True)  # noqa: T201
    server.run(sockets=[place])
