"""Waiting posts are batched, each answer reaches its request, and a failure affects only its own post."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mmib.extract.extractor import Extractor, Post
from mmib.extract.readers import Prepared, Wanted
from mmib.extract.results import Extraction
from mmib.schema import InputError
from mmib.serve.batcher import Batcher, Question

PLAIN = Wanted()


class Held:
    """An extractor that waits before each pass until it is released, and records the posts of each pass."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.go_on = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.passes: list[list[str]] = []

    def prepare(self, post: Post) -> Prepared:
        return self.extractor.prepare(post)

    def read(self, posts: Sequence[Prepared], *wanted: Any) -> list[Extraction]:
        self.passes.append([post.text for post in posts])
        self.began.release()
        assert self.go_on.acquire(timeout=60)
        if any(post.text == "bob fails" for post in posts):
            raise RuntimeError("this one fails")
        return self.extractor.read(posts, *wanted)


@pytest.fixture
def held(extractor: Extractor) -> Held:
    return Held(extractor)


@pytest.fixture
def batcher(held: Held) -> Iterator[Batcher]:
    made = Batcher(held, posts=3, pixels=100, seconds=600.0)  # type: ignore[arg-type]
    made.start()
    yield made
    held.go_on.release(100)
    made.close()
    assert not made.running


def asked(text: str, pixels: int = 0, wanted: Wanted = PLAIN) -> Question:
    return Question(Post(text), pixels, wanted)


def test_waiting_posts_are_batched_up_to_the_maximum(batcher: Batcher, held: Held) -> None:
    (first,) = batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    others = [batcher.ask([asked(f"bob {number}")])[0] for number in range(4)]
    held.go_on.release(10)
    assert [answer.result(60).text for answer in (first, *others)] == ["bob alone", "bob 0", "bob 1", "bob 2", "bob 3"]
    assert held.passes == [["bob alone"], ["bob 0", "bob 1", "bob 2"], ["bob 3"]]


def test_posts_with_different_options_are_batched_separately_and_not_starved(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    more = Wanted(evidence=True)
    answers = batcher.ask([asked("bob 1"), asked("bob 2", wanted=more), asked("bob 3"), asked("bob 4", wanted=more)])
    held.go_on.release(10)
    found = [answer.result(60) for answer in answers]
    assert [result.text for result in found] == ["bob 1", "bob 2", "bob 3", "bob 4"]
    assert [result.evidence is not None for result in found] == [False, True, False, True]
    assert held.passes[1:] == [["bob 1", "bob 3"], ["bob 2", "bob 4"]]


def test_images_of_a_batch_do_not_exceed_the_pixel_limit(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1", 500), asked("bob 2", 60), asked("bob 3", 40), asked("bob 4", 1)])
    held.go_on.release(10)
    assert all(answer.result(60) for answer in answers)
    assert held.passes[1:] == [["bob 1"], ["bob 2", "bob 3"], ["bob 4"]]


def test_a_failing_post_does_not_affect_others(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1"), asked(""), asked("bob fails"), asked("bob 2")])
    held.go_on.release(10)
    assert answers[0].result(60).text == "bob 1"
    assert isinstance(answers[1].exception(60), InputError)
    with pytest.raises(RuntimeError, match="this one fails"):
        answers[2].result(60)
    assert answers[3].result(60).text == "bob 2"


def test_cancelled_posts_are_not_read(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1"), asked("bob 2")])
    assert answers[0].cancel()
    held.go_on.release(10)
    assert answers[1].result(60).text == "bob 2"
    assert held.passes[1:] == [["bob 2"]]


def test_closing_processes_waiting_posts(held: Held) -> None:
    batcher = Batcher(held, posts=3, pixels=100, seconds=600.0)  # type: ignore[arg-type]
    batcher.start()
    answers = batcher.ask([asked(f"bob {number}") for number in range(5)])
    held.go_on.release(10)
    batcher.close()
    assert [answer.result(0).text for answer in answers] == [f"bob {number}" for number in range(5)]
