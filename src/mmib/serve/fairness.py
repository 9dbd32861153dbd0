"""Who a client is, and how clients share the time of the models."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Clients whose use of the models is remembered.
MOST_ACCOUNTS = 1_000
# Seconds in which half of what a client has used is forgotten.
HALF_LIFE_S = 300.0
# How much of an expensive post a client's next posts are still expected to cost.
DECAY = 0.8
# Of seconds a unit of work: the first guess, and how much of it the next pass leaves.
FIRST_RATE, KEPT_RATE = 0.01, 0.8
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
        cost: seconds that its last posts took, the longest ago the least; None before the first.
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

    The next is of the client that would have used least of the last minutes once its post has been read: decay usage
    scheduling (Hellerstein 1993) by finish times (Demers et al. 1989). So clients with cheap posts who ask again when
    they are answered stay ahead of expensive ones, and no more of what a client left unused can be claimed later than
    those minutes hold. For the order, what a post costs is estimated from its work; for how many are read together,
    also from the client's last posts. Those that are expected to be expensive, as the first of each client is, are
    read with few others, so that these do not wait for them long.

    Args:
        seconds: expected for one pass at most; a single post may take longer.
        work: of a post, in any unit.
        clock: tells the time in seconds.
    """

    def __init__(
        self, seconds: float, work: Callable[[ItemT], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._work = work
        self._clock = clock
        self._rate = FIRST_RATE
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
        # By its work alone: a post that once took long for another reason would wait for minutes.
        accounts = sorted(
            waiting, key=lambda account: account.used_by(now) + self._rate * self._work(account.waiting[0])
        )
        taken: list[ItemT] = []
        expected = 0.0
        while accounts:
            for account in list(accounts):
                item = next((item for item in account.waiting if not taken or fits(taken, item)), None)
                if item is None or (taken and expected + self._expected(account, item) > self.seconds):
                    accounts.remove(account)
                    continue
                account.waiting.remove(item)
                taken.append(item)
                expected += self._expected(account, item)
        return taken

    def charge(self, posts: Sequence[tuple[str, ItemT]], seconds: float) -> None:
        """Share the time that a pass took between clients, by the work of their posts.

        Nobody is charged more than twice what its post should have taken, unless that was read alone: which of several
        was the expensive one is not known.
        """
        total = sum(self._work(item) for _, item in posts)
        now = self._clock()
        for client, item in posts:
            account = self._accounts.setdefault(client, _Account())
            share = seconds * self._work(item) / total
            if len(posts) > 1:
                share = min(share, 2 * self._cost(account, item))
            account.used, account.charged = account.used_by(now) + share, now
            account.cost = max(share, DECAY * (account.cost or 0.0))
        if posts:
            measured = min(seconds / total, 2 * self._rate)  # a pass with more work than it seemed says little
            self._rate = KEPT_RATE * self._rate + (1 - KEPT_RATE) * measured

    def _expected(self, account: _Account[ItemT], item: ItemT) -> float:
        """Seconds that a post may take; of a client that nothing is known of, as long as a pass."""
        return max(self.seconds if account.cost is None else 0.0, self._cost(account, item))

    def _cost(self, account: _Account[ItemT], item: ItemT) -> float:
        """Seconds that a post will take, by its work and the client's last posts."""
        return max(account.cost or 0.0, self._rate * self._work(item))
