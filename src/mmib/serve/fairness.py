"""Identify clients, and share the time of the models among them."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Number of clients whose usage is remembered.
MOST_ACCOUNTS = 1_000
# Half-life of a client's usage, in seconds.
HALF_LIFE_S = 300.0
# Decay, per post, of the cost expected from a client after an expensive post.
DECAY = 0.8
# Seconds per unit of work: the initial estimate, and its weight in the running average.
FIRST_RATE, KEPT_RATE = 0.01, 0.8
ItemT = TypeVar("ItemT")


def client_of(host: str | None) -> str:
    """Return the client of an address; for IPv6, where one household has a whole /64 network, that network."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host or ""
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@dataclass
class _Account(Generic[ItemT]):
    """Usage of the models by a client.

    Attributes:
        used: decayed usage in seconds, as of the last charge.
        charged: time of the last charge.
        cost: seconds that its recent posts took, decayed per post; None before the first.
        waiting: its waiting posts, in order of arrival.
    """

    used: float = 0.0
    charged: float = 0.0
    cost: float | None = None
    waiting: deque[ItemT] = field(default_factory=deque)

    def used_by(self, now: float) -> float:
        """Usage in seconds, decayed to the present."""
        return float(self.used * 0.5 ** ((now - self.charged) / HALF_LIFE_S))


class FairQueue(Generic[ItemT]):
    """A queue of posts that gives each client the same share of the models' time.

    The next post is of the client with the lowest recent usage after that post: decay usage scheduling (Hellerstein
    1993) by finish times (Demers et al. 1989). So clients with cheap posts who ask again once answered stay ahead of
    expensive ones, and unused time can only be claimed while it is recent. For the order, the cost of a post is
    estimated from its work; for the batch size, also from the client's last posts. Posts that are expected to be
    expensive, which include the first of each client, are batched with few others, so that these do not wait long.

    Args:
        seconds: maximum expected duration of a pass; a single post may exceed it.
        work: returns the work of a post, in any unit.
        clock: returns the time in seconds.
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
        """Add waiting posts of a client."""
        account = self._accounts.setdefault(client, _Account())
        account.waiting.extend(items)
        self._accounts.move_to_end(client)
        while len(self._accounts) > MOST_ACCOUNTS:
            oldest = next(iter(self._accounts))
            if self._accounts[oldest].waiting:
                break
            del self._accounts[oldest]

    def take(self, fits: Callable[[list[ItemT], ItemT], bool]) -> list[ItemT]:
        """Take posts for one pass, one of each client in turn.

        Args:
            fits: whether a post may join those already taken; it is not asked about the first.
        """
        now = self._clock()
        waiting = (account for account in self._accounts.values() if account.waiting)
        # Only by work: otherwise a post after one that was slow for another reason would wait for minutes.
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
        """Divide the duration of a pass among clients, by the work of their posts.

        A client is charged at most twice the expected cost of its post, unless the post was processed alone: in a batch
        it is unknown which post was the expensive one.
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
            measured = min(seconds / total, 2 * self._rate)  # limits passes with more work than estimated
            self._rate = KEPT_RATE * self._rate + (1 - KEPT_RATE) * measured

    def _expected(self, account: _Account[ItemT], item: ItemT) -> float:
        """Expected seconds for a post; for an unknown client, at least those of a whole pass."""
        return max(self.seconds if account.cost is None else 0.0, self._cost(account, item))

    def _cost(self, account: _Account[ItemT], item: ItemT) -> float:
        """Estimated seconds for a post, from its work and the client's last posts."""
        return max(account.cost or 0.0, self._rate * self._work(item))
