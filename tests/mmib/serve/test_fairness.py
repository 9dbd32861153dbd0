"""Clients share slots and model time fairly, whatever a single client sends."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from mmib.serve.fairness import HALF_LIFE_S, MOST_ACCOUNTS, FairQueue, client_of
from mmib.serve.receive import RefusedError
from mmib.serve.slots import Slots


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("testclient", "testclient", True),
        (None, "127.0.0.1", False),
    ],
)
def test_clients_are_identified_by_address_or_network(first: str | None, second: str, same: bool) -> None:
    assert (client_of(first) == client_of(second)) is same


def everything(taken: list[str], item: str) -> bool:
    return True


class Time:
    """A clock that is advanced by tests."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def queue(clock: Time) -> FairQueue[str]:
    return FairQueue(1.0, work_of, clock)


def work_of(item: str) -> float:
    """The expected cost of a post is that of its client's last posts."""
    return 1.0


def run(queue: FairQueue[str], cost: dict[str, float], passes: int) -> list[list[str]]:
    """The posts of each pass with the given costs; the clock does not advance."""
    result = []
    for _ in range(passes):
        result.append(queue.take(everything))
        for client in result[-1]:
            queue.charge([(client, client)], cost[client])
    return result


def test_clients_get_equal_time_for_any_number_of_requests(queue: FairQueue[str]) -> None:
    """The hostile client is first, with a hundred posts that each cost as much as fifty others."""
    cost = {"hostile": 5.0, "a": 0.1, "b": 0.1}
    queue.add("hostile", ["hostile"] * 100)
    queue.add("a", ["a"] * 1000)
    queue.add("b", ["b"] * 1000)
    passes = run(queue, cost, 60)
    read = Counter(client for taken in passes for client in taken)
    assert read["a"] * cost["a"] == pytest.approx(read["hostile"] * cost["hostile"], abs=2 * cost["hostile"])
    assert abs(read["a"] - read["b"]) <= 10
    assert all(taken == ["hostile"] for taken in passes if "hostile" in taken), "nobody waits for two of them"
    assert max(len(taken) for taken in passes) == 10, "cheap posts are read together"


def test_clients_that_wait_for_answers_keep_most_of_the_time(queue: FairQueue[str], clock: Time) -> None:
    """26 clients, each with one post at a time, and six with an endless queue of posts, forty times as expensive."""
    cost = {f"honest {number}": 0.13 for number in range(26)} | {f"hostile {number}": 5.0 for number in range(6)}
    for client in cost:
        queue.add(client, [client] * (1 if client.startswith("honest") else 1000))
    spent = {"honest": 0.0, "hostile": 0.0}
    while sum(spent.values()) < 600:
        taken = queue.take(everything)
        clock.now += sum(cost[client] for client in taken)
        for client in taken:
            spent[client.split()[0]] += cost[client]
            queue.charge([(client, client)], cost[client])
            if client.startswith("honest"):
                queue.add(client, [client])
    # With equal shares they would get 26 of 32.
    assert 0.75 < spent["honest"] / sum(spent.values()) < 0.95


def test_past_use_is_forgotten_and_idle_time_is_not_saved_up(clock: Time) -> None:
    queue: FairQueue[str] = FairQueue(0.5, work_of, clock)  # one post per pass
    cost = {"late": 0.5, "a": 0.5}
    for _ in range(10_000):
        queue.charge([("a", "a")], 0.5)
        clock.now += 0.5
    queue.add("a", ["a"] * 5000)
    queue.add("late", ["late"] * 5000)
    read = Counter(client for taken in run(queue, cost, 2000) for client in taken)
    ahead = read["late"] - read["a"]
    assert ahead * cost["late"] == pytest.approx(HALF_LIFE_S / math.log(2), rel=0.05), "of 5,000 s, some minutes"
    clock.now += 10 * HALF_LIFE_S
    read = Counter(client for taken in run(queue, cost, 20) for client in taken)
    assert abs(read["late"] - read["a"]) <= 2


def test_visible_work_is_taken_into_account(clock: Time) -> None:
    """An expensive post of an unknown client waits for cheap posts that arrived later."""
    queue: FairQueue[str] = FairQueue(1.0, lambda item: 500.0 if item == "large" else 1.0, clock)
    for _ in range(50):
        queue.charge([("a", "small")], 0.1)
    clock.now += 10 * HALF_LIFE_S
    queue.add("new", ["large"])
    queue.add("a", ["small"])
    assert queue.take(everything) == ["small"]
    assert queue.take(everything) == ["large"]


def test_a_client_is_not_charged_for_other_posts_in_its_batch(queue: FairQueue[str]) -> None:
    """The other client's post took fifty times as long as expected."""
    for client in ("honest", "sly", "third"):
        queue.charge([(client, "post")], 0.1)
    queue.charge([("honest", "post"), ("sly", "post")], 10.0)
    for client in ("third", "honest"):
        queue.add(client, [client] * 10)
    read = Counter(client for taken in run(queue, {"third": 0.1, "honest": 0.1}, 2) for client in taken)
    assert read["honest"] >= 3


def test_cheap_posts_do_not_hide_an_expensive_one(queue: FairQueue[str]) -> None:
    queue.charge([("sly", "post")], 5.0)
    queue.charge([("sly", "post")], 0.1)
    queue.charge([("a", "post")], 0.1)
    queue.add("a", ["a"])
    queue.add("sly", ["sly"])
    assert queue.take(everything) == ["a"]
    assert queue.take(everything) == ["sly"]
    assert not queue


def test_inactive_clients_are_forgotten(queue: FairQueue[str]) -> None:
    for number in range(MOST_ACCOUNTS + 10):
        queue.add(str(number), ["post"])
        assert queue.take(everything) == ["post"]
    assert len(queue._accounts) == MOST_ACCOUNTS


async def holding(slots: Slots, client: str, ended: asyncio.Event, count: int = 1) -> str:
    try:
        async with slots.hold(client, count):
            await ended.wait()
    except RefusedError as error:
        return str(error)
    return "answered"


def with_slots(check: Callable[[Slots, asyncio.Event], Awaitable[None]]) -> None:
    async def main() -> None:
        slots = Slots(most=8, of_client=8)
        await check(slots, asyncio.Event())
        assert slots.occupied == 0

    asyncio.run(main())


def test_a_client_with_all_slots_makes_room_until_shares_are_equal() -> None:
    async def check(slots: Slots, ended: asyncio.Event) -> None:
        hostile = [asyncio.create_task(holding(slots, "hostile", ended)) for _ in range(8)]
        await asyncio.sleep(0)
        honest = [asyncio.create_task(holding(slots, "honest", ended)) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert slots.occupied == 8
        ended.set()
        first, second = await asyncio.gather(*hostile), await asyncio.gather(*honest)
        assert first == ["answered"] * 4 + ["the service is full, and others use less of it: try again in a moment"] * 4
        assert second[:4] == ["answered"] * 4
        assert all("are waiting already" in reason for reason in second[4:])

    with_slots(check)


def test_a_large_request_does_not_displace_smaller_clients() -> None:
    async def check(slots: Slots, ended: asyncio.Event) -> None:
        small = [asyncio.create_task(holding(slots, str(number), ended)) for number in range(4)]
        await asyncio.sleep(0)
        assert "are waiting already" in await holding(slots, "large", ended, count=6)
        ended.set()
        assert await asyncio.gather(*small) == ["answered"] * 4

    with_slots(check)


def test_a_timeout_inside_the_block_is_not_that_of_the_slot() -> None:
    async def check(slots: Slots, ended: asyncio.Event) -> None:
        with pytest.raises(TimeoutError):
            async with slots.hold("a"):
                raise TimeoutError

    with_slots(check)
