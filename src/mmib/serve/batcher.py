"""Batch the posts of concurrent requests, so that the models process them together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from mmib.extract.extractor import Extractor, Post
from mmib.extract.readers import Wanted
from mmib.extract.results import Extraction
from mmib.serve.fairness import FairQueue

# Expected duration of one pass through the models; all other requests wait for it.
PASS_S = 2.0
# Assumed for a post whose entities are to be found.
TYPICAL_ENTITIES, TYPICAL_CHARACTERS = 4, 100
# Larger values hardly add work: texts are truncated, and pairs with truncated entities are skipped.
MOST_CHARACTERS, MOST_PAIRS = 500, 150
# Cost of one sample of the latents, relative to processing the post.
WORK_OF_SAMPLE = 0.035


class Question(NamedTuple):
    """A post of a request.

    Attributes:
        post: the post.
        pixels: number of pixels of its image, 0 without one.
        wanted: what is requested besides the result.
    """

    post: Post
    pixels: int
    wanted: Wanted

    @property
    def work(self) -> float:
        """Rough estimate of the work for the models: one text per pair of entities, and the heads for each sample."""
        entities = TYPICAL_ENTITIES if self.post.entities is None else len(self.post.entities)
        pairs = min(entities * (entities - 1), MOST_PAIRS)
        length = max(1.0, min(len(self.post.text), MOST_CHARACTERS) / TYPICAL_CHARACTERS)
        return length * (1 + pairs) * (1 + WORK_OF_SAMPLE * self.wanted.samples)


@dataclass(eq=False)
class Job:
    """A question of a client, and the future of its answer."""

    question: Question
    client: str
    answer: Future[Extraction] = field(default_factory=Future)


class Batcher:
    """A thread that processes waiting posts, fairly among clients, in batches as large as the limits allow.

    Args:
        extractor: extracts from posts.
        posts: maximum number of posts per batch.
        pixels: maximum total pixels of their images; a single post may exceed it.
        seconds: maximum expected duration of a batch; a single post may exceed it.
    """

    def __init__(self, extractor: Extractor, posts: int, pixels: int, seconds: float = PASS_S) -> None:
        self.extractor = extractor
        self.posts = posts
        self.pixels = pixels
        self._waiting: FairQueue[Job] = FairQueue(seconds, lambda job: job.question.work)
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, also after `close`."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mmib-serve", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop once all waiting posts have been processed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self, questions: Sequence[Question], client: str = "") -> list[Future[Extraction]]:
        """Return the futures of the answers; a question that is cancelled before its turn is skipped."""
        jobs = [Job(question, client) for question in questions]
        with self._changed:
            self._waiting.add(client, jobs)
            self._changed.notify()
        return [job.answer for job in jobs]

    def _run(self) -> None:
        while batch := self._next():
            started = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if started:
                self._read(started)

    def _next(self) -> list[Job]:
        """Take the jobs of the next batch, all with the same options; none after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.take(self._fits)

    def _fits(self, jobs: Sequence[Job], other: Job) -> bool:
        pixels = sum(job.question.pixels for job in (*jobs, other))
        same = other.question.wanted == jobs[0].question.wanted
        return same and len(jobs) < self.posts and pixels <= self.pixels

    def _read(self, jobs: Sequence[Job]) -> None:
        """Answer jobs; if the batch fails, process each job alone, so that each has its own answer or error."""
        ready, prepared = [], []
        for job in jobs:
            try:
                with self._charged([job]):
                    prepared.append(self.extractor.prepare(job.question.post))
                ready.append(job)
            except Exception as error:  # any error concerns this post alone and is its answer
                job.answer.set_exception(error)
        try:
            with self._charged(ready):
                results = self.extractor.read(prepared, *jobs[0].question.wanted)
            for job, result in zip(ready, results, strict=True):
                job.answer.set_result(result)
        except Exception as error:
            if len(ready) == 1:
                ready[0].answer.set_exception(error)
                return
            for job in ready:
                self._read([job])

    @contextmanager
    def _charged(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Charge the time of the enclosed work to the clients of the jobs."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            with self._changed:
                self._waiting.charge([(job.client, job) for job in jobs], seconds)
