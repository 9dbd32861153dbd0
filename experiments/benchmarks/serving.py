"""Load test of the service: requests per second and their latency, with 1, 8 and 32 concurrent clients.

    python -m experiments.benchmarks.serving --model exports

Starts `mmib serve` as a separate process. Each client keeps one connection and sends one post after the other, each
with a unique text; an answer to another post, or a missing answer, ends the measurement. The clients run on the same
machine and take some of its time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.measure import machine, table, to_standard_error
from mmib.datamodules.demo import DemoSettings
from mmib.datamodules.demo.posts import draw_post
from mmib.serve.examples import example_of

CLIENTS = (1, 8, 32)
TIMEOUT = 300
# Number of posts with different words and images, from which all requests are made.
DISTINCT = 40


class Load(NamedTuple):
    """Measurements for a number of clients.

    Attributes:
        rate: requests per second.
        middle: median latency in seconds.
        tail: 95th percentile of the latency in seconds.
    """

    rate: float
    middle: float
    tail: float


class Running(NamedTuple):
    """A service: its host and port, and its process ID."""

    place: str
    process_id: int


@contextmanager
def service(models: Sequence[Path], options: Sequence[str] = ()) -> Iterator[Running]:
    """Run a service, and stop it afterwards.

    Raises:
        RuntimeError: it did not start, or did not stop cleanly.
    """
    named = [part for model in models for part in ("--model", str(model))]
    with started(["serve", *named, *options]) as running:
        yield running


@contextmanager
def started(arguments: Sequence[str], folder: Path | None = None) -> Iterator[Running]:
    """Run an mmib command that serves a page on any free port, in a folder, and stop it afterwards.

    Raises:
        RuntimeError: it did not start, or did not stop cleanly.
    """
    command = [sys.executable, "-m", "mmib", *arguments, "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        output = ""
        while not (found := re.search(r"http://([\w.]+:\d+)", output)):
            line = process.stderr.readline()
            if not line:
                raise RuntimeError(f"the service did not start: {output}")
            output += line
        yield Running(found[1], process.pid)
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=TIMEOUT)
    if process.returncode != 0:
        raise RuntimeError(f"the service ended with {process.returncode}: {rest}")


def posts(images: bool, entities: bool) -> list[dict[str, Any]]:
    """Generate posts, optionally with images, and with entities, which a model of relations alone requires."""
    settings = DemoSettings()
    left_out = (set() if images else {"image", "crops"}) | (set() if entities else {"entities"})
    found = []
    for number in range(DISTINCT):
        example = example_of(draw_post(settings, "test", number, ("easy", "hard")[number % 2]), settings.seed)
        found.append(example.model_dump(exclude_none=True, exclude=left_out))
    return found


def ask(connection: http.client.HTTPConnection, post: dict[str, Any]) -> float:
    """Send a post, and return the seconds until its answer.

    Raises:
        RuntimeError: there is no answer, or it belongs to another post.
    """
    body = json.dumps(post).encode()
    began = time.perf_counter()
    connection.request("POST", "/api/extract", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    seconds = time.perf_counter() - began
    if answer.status != 200 or content["text"] != post["text"]:
        raise RuntimeError(f"an answer was lost: {post['text']!r} got {answer.status}, {str(content)[:300]}")
    given = [(entity["start"], entity["end"]) for entity in post.get("entities", [])]
    if given and [(entity["start"], entity["end"]) for entity in content["entities"]] != sorted(given):
        raise RuntimeError(f"an answer belongs to another post: {post['text']!r} got {content['entities']}")
    return seconds


def load(place: str, clients: int, requests: int, drawn: Sequence[dict[str, Any]]) -> Load:
    """Run concurrent clients that send `requests` requests in total.

    Raises:
        RuntimeError: a request failed.
    """
    numbers = iter(range(requests))
    taking = threading.Lock()
    seconds: list[float] = []
    troubles: list[Exception] = []

    def client() -> None:
        connection = http.client.HTTPConnection(place, timeout=TIMEOUT)
        try:
            while True:
                with taking:
                    number = next(numbers, None)
                if number is None or troubles:
                    return
                post = drawn[number % len(drawn)]
                # The text is extended by the number, to identify its answer.
                seconds.append(ask(connection, {**post, "text": f"{post['text']} #{clients}of{number}"}))
        except (OSError, RuntimeError, http.client.HTTPException, ValueError) as error:
            troubles.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - began
    if troubles or len(seconds) != requests:
        reason = f"{len(seconds)} of {requests} answers came: {troubles}"
        raise RuntimeError(reason)
    ordered = sorted(seconds)
    return Load(requests / whole, statistics.median(ordered), ordered[math.ceil(0.95 * requests) - 1])


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("exports")], help="as for mmib serve")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="at a time")
    parser.add_argument("--requests", type=int, default=320, help="for each number of clients")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of each measurement (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    print(f"{machine()}\n")
    with service(chosen.model) as (place, _):
        connection = http.client.HTTPConnection(place, timeout=TIMEOUT)
        connection.request("GET", "/api/model")
        models = json.loads(connection.getresponse().read())["models"]
        connection.close()
        given = all(model["finds"] != "entities" for model in models)
        tasks = ", ".join(model["task"] for model in models)
        print(f"{tasks}; {chosen.requests} requests each, entities {'given' if given else 'to be found'}\n")
        for images in (True, False):
            drawn = posts(images, given)
            load(place, max(chosen.clients), 2 * max(chosen.clients), drawn)  # warm-up
            rows: dict[int, list[Load]] = {clients: [] for clients in chosen.clients}
            for _ in range(chosen.repeats):
                for clients, found in rows.items():
                    found.append(load(place, clients, chosen.requests, drawn))
                    to_standard_error(f"  {clients} clients: {found[-1]}")
            print(f"### {'text and image' if images else 'text alone'}\n")
            head = ["clients", "requests a second: median (range)", "median, ms", "95th percentile, ms", "lost"]
            print(table(head, (row(clients, found) for clients, found in rows.items())), "\n", flush=True)


def row(clients: int, found: Sequence[Load]) -> list[object]:
    """Format a line of the table; the column of lost answers is 0, as a loss would have stopped the measurement."""
    rates = [measured.rate for measured in found]
    times = [
        f"{1000 * statistics.median(getattr(measured, name) for measured in found):.0f}" for name in ("middle", "tail")
    ]
    return [clients, f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})", *times, 0]


if __name__ == "__main__":
    main()
