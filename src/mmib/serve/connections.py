"""Connections to the service: how many a client may have, and how long they may take for the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from mmib.serve.fairness import client_of

HEAD_S = 10.0


class BoundedConnection(H11Protocol):
    """A connection that is closed where its client has too many, or sends no whole head of a request in time.

    Bodies and answers have their own time, see `mmib.serve.limits.Limits.seconds`.

    Attributes:
        most: connections of one client; those beyond are closed at once.
        seconds: until the head of a request has arrived, from its connection or its first byte on.
    """

    most: int = 64
    seconds: float = HEAD_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if self._of_same_client() > self.most:
            transport.abort()
            return
        self._deadline = self.loop.call_later(self.seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._disarm()
        super().connection_lost(exc)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _of_same_client(self) -> int:
        client = _client(self)
        return sum(_client(connection) == client for connection in self.connections)


def _client(connection: Any) -> str:
    address = connection.client
    return client_of(address[0] if address else None)


def bounded(connections: int) -> type[BoundedConnection]:
    """Connections of which a client may have so many, for `uvicorn.Config`."""

    class Connection(BoundedConnection):
        most = connections

    return Connection
