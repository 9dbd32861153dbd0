"""The service as a process: its socket, its log, and its shutdown."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import webbrowser
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mmib.extract.extractor import Extractor
from mmib.schema import ConfigError
from mmib.serve.app import create_app
from mmib.serve.connections import bounded
from mmib.serve.guard import allowed_hosts
from mmib.serve.limits import Limits
from mmib.serve.observation import REQUESTS, log_as_json

# Seconds to wait at shutdown beyond the timeouts of running requests.
GRACE = 5
MOST_PORTS = 65535


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that accepts connections.

    Raises:
        ConfigError: the socket cannot be opened.
    """
    if not 0 <= port <= MOST_PORTS:
        raise ConfigError(f"the service cannot listen at port {port}: choose --port from 0 to {MOST_PORTS}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family)
    # UnicodeError if the host is not a valid name.
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the service cannot listen at {host}, port {port}: {error}; choose others with --host and --port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(
    extractor: Extractor,
    limits: Limits,
    listener: socket.socket,
    names: frozenset[str] = frozenset(),
    browse: bool = False,
    json_log: bool = False,
) -> None:
    """Serve until the process is told to stop; running requests are finished.

    Args:
        extractor: extracts from posts.
        limits: limits of the service.
        listener: the listening socket.
        names: names under which a proxy serves it, see `mmib.serve.guard.Guard`.
        browse: open the page in a browser.
        json_log: log requests, and all other records, as lines of JSON.
    """
    app = create_app(extractor, limits, allowed_hosts(listener.getsockname()[0], names), names)
    if json_log:
        log_as_json()
    # Errors in a form are reported to its client.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    run(app, limits, listener, "mmib serves", browse, json_log)


def run(
    app: FastAPI,
    limits: Limits,
    listener: socket.socket,
    announcement: str,
    browse: bool = False,
    json_log: bool = False,
) -> None:
    """Run an application until the process is told to stop; running requests are finished.

    Args:
        app: the application.
        limits: limits on connections and on the duration of a request.
        listener: the listening socket.
        announcement: text printed with the address.
        browse: open the page in a browser.
        json_log: report the address as a line of JSON, and leave the log format as it is.
    """
    address = address_of(listener)
    config = uvicorn.Config(
        app,
        log_config=None if json_log else uvicorn.config.LOGGING_CONFIG,
        http=bounded(limits.connections),
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        # A request and its response each have this time limit.
        timeout_graceful_shutdown=round(2 * limits.seconds) + GRACE,
    )
    server = uvicorn.Server(config)

    # While running, uvicorn handles signals itself; afterwards it raises them again, which would end the process with
    # the exit status of the signal instead of 0.
    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if json_log:
        REQUESTS.info(announcement, extra={"facts": {"address": address}})
    else:
        print(f"{announcement} at {address} (Ctrl+C ends it)", file=sys.stderr, flush=True)  # noqa: T201
    if browse and not webbrowser.open(address):
        print("there is no browser here: open the address yourself", file=sys.stderr, flush=True)  # noqa: T201
    server.run(sockets=[listener])
