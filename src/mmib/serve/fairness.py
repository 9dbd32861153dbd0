"""Who a client is, and how clients share the time of the models."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Clients whose use of the models is remembered.
MOST_ACCOUNTS = 1_000
# Seconds in which half of what a client has used is forgotten.
HALF_LIFE_S = 60.0
# How much of an expensive post a client's next posts are still expected to cost.
DECAY = 0.8
ItemT = TypeVar("ItemT")


def client_of(host: str | None) -> str:
    """Who is behind an address: of IPv6, where a household has a whole network, all addresses of one."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host or ""
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@dataclass
class _Account(Generic[ItemT]):
    """What a client has used of the models.

    Attributes:
        used: seconds, as far as they were not forgotten when it was last charged.
        charged: when that was.
        cost: seconds that a post of it is expected to take; None before the first.
        waiting: its posts, in order of arrival.
    """

    used: float = 0.0
    charged: float = 0.0
    cost: float | None = None
    waiting: deque[ItemT] = field(default_factory=deque)

    def used_by(self, now: float) -> float:
        """Seconds that it has used, of which half are forgotten in each half-life."""
        return float(self.used * 0.5 ** ((now - self.charged) / HALF_LIFE_S))


class FairQueue(Generic[ItemT]):
    """What waits for the models, in an order in which each client gets the same share of their time.

    The next is of the client that has used least in the last minutes (decay usage scheduling, Hellerstein 1993). Of
    time left unused no more can be claimed later than those minutes hold, and clients with cheap posts who ask again
    when they are answered stay ahead of expensive ones: in a queue without memory they would lose their place with
    each answer. What a client's post costs is known when it has been read: posts of a client that are expected to be
    expensive, as the first of each is, are read with few others, so that these do not wait for them long.

    Args:
        seconds: expected for one pass at most; a single post may take longer.
        clock: tells the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._accounts: OrderedDict[str, _Account[ItemT]] = OrderedDict()

    def __bool__(self) -> bool:
        return any(account.waiting for account in self._accounts.values())

    def add(self, client: str, items: Iterable[ItemT]) -> None:
        """Let posts of a client wait."""
        account = self._accounts.setdefault(client, _Account())
        account.waiting.extend(items)
        self._accounts.move_to_end(client)
        while len(self._accounts) > MOST_ACCOUNTS:
            oldest = next(iter(self._accounts))
            if self._accounts[oldest].waiting:
                break
            del self._accounts[oldest]

    def take(self, fits: Callable[[list[ItemT], ItemT], bool]) -> list[ItemT]:
        """Posts for one pass, one of each client in turn.

        Args:
            fits: whether a post may be read with those that were taken; the first always is.
        """
        now = self._clock()
        waiting = (account for account in self._accounts.values() if account.waiting)
        accounts = sorted(waiting, key=lambda account: account.used_by(now))
        taken: list[ItemT] = []
        expected = 0.0
        while accounts:
            for account in list(accounts):
                cost = self.seconds if account.cost is None else account.cost
                item = next((item for item in account.waiting if not taken or fits(taken, item)), None)
                if item is None or (taken and expected + cost > self.seconds):
                    accounts.remove(account)
                    continue
                account.waiting.remove(item)
                taken.append(item)
                expected += cost
        return taken

    def charge(self, client: str, seconds: float) -> None:
        """Note the time that a post of a client took."""
        account = self._accounts.setdefault(client, _Account())
        now = self._clock()
        account.used, account.charged = account.used_by(now) + seconds, now
        account.cost = max(seconds, DECAY * (account.cost or 0.0))
