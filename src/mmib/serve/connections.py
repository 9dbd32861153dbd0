"""Connections to the service: limits on their number per client, and on the time to send a request head."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from mmib.serve.fairness import client_of

HEAD_S = 10.0


class BoundedConnection(H11Protocol):
    """A connection that is closed if its client has too many, or does not send a whole request head in time.

    Bodies and answers have their own time limit, see `mmib.serve.limits.Limits.seconds`.

    Attributes:
        most: maximum connections per client; further ones are closed at once.
        seconds: time limit for a request head, from the connection or from the first byte of a later request.
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
    """Return a connection class for `uvicorn.Config` with this limit of connections per client."""

    class Connection(BoundedConnection):
        most = connections

    return Connection
