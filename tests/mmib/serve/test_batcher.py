"""Posts that wait are read together, each answer reaches whoever asked, and a failure stays with its own post."""

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
    """An extractor that waits before each pass until it is let go on, and notes what each pass was given."""

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


def test_what_waits_is_read_together_up_to_the_most_posts(batcher: Batcher, held: Held) -> None:
    (first,) = batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    others = [batcher.ask([asked(f"bob {number}")])[0] for number in range(4)]
    held.go_on.release(10)
    assert [answer.result(60).text for answer in (first, *others)] == ["bob alone", "bob 0", "bob 1", "bob 2", "bob 3"]
    assert held.passes == [["bob alone"], ["bob 0", "bob 1", "bob 2"], ["bob 3"]]


def test_posts_that_ask_for_something_else_are_read_apart_and_not_forgotten(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    more = Wanted(evidence=True)
    answers = batcher.ask([asked("bob 1"), asked("bob 2", wanted=more), asked("bob 3"), asked("bob 4", wanted=more)])
    held.go_on.release(10)
    found = [answer.result(60) for answer in answers]
    assert [result.text for result in found] == ["bob 1", "bob 2", "bob 3", "bob 4"]
    assert [result.evidence is not None for result in found] == [False, True, False, True]
    assert held.passes[1:] == [["bob 1", "bob 3"], ["bob 2", "bob 4"]]


def test_images_of_one_pass_have_no_more_pixels_than_may_be(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1", 500), asked("bob 2", 60), asked("bob 3", 40), asked("bob 4", 1)])
    held.go_on.release(10)
    assert all(answer.result(60) for answer in answers)
    assert held.passes[1:] == [["bob 1"], ["bob 2", "bob 3"], ["bob 4"]]


def test_a_post_that_fails_fails_alone(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1"), asked(""), asked("bob fails"), asked("bob 2")])
    held.go_on.release(10)
    assert answers[0].result(60).text == "bob 1"
    assert isinstance(answers[1].exception(60), InputError)
    with pytest.raises(RuntimeError, match="this one fails"):
        answers[2].result(60)
    assert answers[3].result(60).text == "bob 2"


def test_what_nobody_waits_for_any_more_is_not_read(batcher: Batcher, held: Held) -> None:
    batcher.ask([asked("bob alone")])
    assert held.began.acquire(timeout=60)
    answers = batcher.ask([asked("bob 1"), asked("bob 2")])
    assert answers[0].cancel()
    held.go_on.release(10)
    assert answers[1].result(60).text == "bob 2"
    assert held.passes[1:] == [["bob 2"]]


def test_closing_reads_what_waits(held: Held) -> None:
    batcher = Batcher(held, posts=3, pixels=100, seconds=600.0)  # type: ignore[arg-type]
    batcher.start()
    answers = batcher.ask([asked(f"bob {number}") for number in range(5)])
    held.go_on.release(10)
    batcher.close()
    assert [answer.result(0).text for answer in answers] == [f"bob {number}" for number in range(5)]
