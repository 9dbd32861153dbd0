"""Share the slots for waiting posts among clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mmib.serve.receive import RefusedError


@dataclass(eq=False)
class _Holding:
    client: str
    count: int
    timeout: asyncio.Timeout
    displaced: bool = False


class Slots:
    """Slots for posts, held from before a request is received until it is answered; only for use from the event loop.

    If all slots are taken, a client that holds fewer than another displaces the newest request of the client that holds
    most (longest queue drop, Suter et al. 1998), so no client can keep others out by taking all slots.

    Args:
        most: number of slots.
        of_client: maximum number of slots per client.

    Attributes:
        occupied: number of slots in use.
    """

    def __init__(self, most: int, of_client: int) -> None:
        self.most = most
        self.of_client = of_client
        self.occupied = 0
        self._holdings: dict[str, list[_Holding]] = {}

    @asynccontextmanager
    async def hold(self, client: str, count: int = 1) -> AsyncIterator[None]:
        """Hold slots for posts of a client.

        Raises:
            RefusedError: no slots are left for this client, or another client displaced it.
        """
        self._make_room(client, count)
        holding = _Holding(client, count, asyncio.timeout(None))
        self.occupied += count
        self._holdings.setdefault(client, []).append(holding)
        try:
            async with holding.timeout:
                yield
        except TimeoutError as error:
            if not holding.displaced:
                raise
            raise RefusedError(503, "the service is full, and others use less of it: try again in a moment") from error
        finally:
            self._release(holding)

    def _make_room(self, client: str, count: int) -> None:
        held = self._held(client)
        if held + count > self.of_client:
            raise RefusedError(503, f"{held} posts of this client are waiting already: try again in a moment")
        while self.occupied + count > self.most:
            greediest = max(self._holdings, key=self._held, default=client)
            if self._held(greediest) <= held + count:
                raise RefusedError(503, f"{self.occupied} posts are waiting already: try again in a moment")
            newest = self._holdings[greediest][-1]
            newest.displaced = True
            newest.timeout.reschedule(asyncio.get_running_loop().time())
            self._release(newest)

    def _held(self, client: str) -> int:
        return sum(holding.count for holding in self._holdings.get(client, ()))

    def _release(self, holding: _Holding) -> None:
        holdings = self._holdings.get(holding.client, [])
        if holding in holdings:
            holdings.remove(holding)
            self.occupied -= holding.count
        if not holdings:
            self._holdings.pop(holding.client, None)
