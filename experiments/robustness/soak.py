"""Run honest and hostile clients at the same time: no honest answer may be lost, and at most half of the throughput.

    python -m experiments.robustness.soak --model exports --requests 2000 --clients 32

Starts `mmib serve` as a separate process. The honest clients first run alone, then beside the hostile ones, a fifth of
all clients. Each client has its own address, as all of 127.x.x.x are this machine. Exit status 1 if an honest answer
was lost or belonged to another post, if the honest clients kept less than half of their throughput, or if the memory of
the service grew beyond its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import json
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.benchmarks.measure import machine, table
from experiments.benchmarks.serving import TIMEOUT, Running, posts, service

JSON = {"Content-Type": "application/json"}
ONE_BYTE_BODY = b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
HOSTILE_SHARE, KEPT = 0.2, 0.5
# Growth limit of the service's memory after warm-up: the images of one pass, and waiting posts.
MEMORY_MB = 1500
# How long a hostile client holds a silent connection.
HOLD_S = 3.0


@dataclass
class Load:
    """Measurements of the clients.

    Attributes:
        seconds: duration of each honest request, including retries.
        wall: seconds from the first request to the last answer.
        lost: reasons why honest requests had no answer.
        refused: number of honest requests that were refused (503) and retried.
        hostile: number of hostile requests by status or error.
    """

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    hostile: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Honest requests per second."""
        return len(self.seconds) / self.wall

    @property
    def tail(self) -> float:
        """95th percentile of the duration of honest requests, in seconds."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]


def connected(place: str, address: str) -> http.client.HTTPConnection:
    """Open a connection from one of this machine's addresses."""
    return http.client.HTTPConnection(place, timeout=TIMEOUT, source_address=(address, 0))


def ask(place: str, address: str, post: dict[str, Any], load: Load) -> None:
    """Send a request as an honest client does: retry after a while if the service is full."""
    began = time.perf_counter()
    while True:
        connection = connected(place, address)
        try:
            connection.request("POST", "/api/extract", json.dumps(post), JSON)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            load.lost.append(f"{type(error).__name__}: {error}")
            return
        finally:
            connection.close()
        if answer.status != 503:
            break
        load.refused += 1
        time.sleep(0.1)
    if answer.status != 200 or content["text"] != post["text"]:
        load.lost.append(f"{answer.status}: {str(content)[:200]}")
        return
    load.seconds.append(time.perf_counter() - began)


def _large_image() -> bytes:
    """An image with the maximum number of pixels, in a few kilobytes."""
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(file, "PNG")
    return file.getvalue()


def attacks(rng: random.Random) -> Iterator[Callable[[str, str], str]]:
    """Yield hostile requests without end; each takes place and address, and returns its status."""
    entities = [{"start": 2 * number, "end": 2 * number + 1} for number in range(50)]
    heavy = {"text": "_." * 5_000, "entities": entities, "evidence": True, "samples": 50}
    field_of_form = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    image = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + _large_image() + b"\r\n"
    form = field_of_form % (b"text", b"a") + image + b"--x--\r\n"
    media = "multipart/form-data; boundary=x"

    def post(body: bytes, headers: dict[str, str], path: str = "/api/extract") -> Callable[[str, str], str]:
        def attack(place: str, address: str) -> str:
            connection = connected(place, address)
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                answer.read()
            finally:
                connection.close()
            return str(answer.status)

        return attack

    def held(sent: bytes) -> Callable[[str, str], str]:
        def attack(place: str, address: str) -> str:
            host, _, port = place.rpartition(":")
            connections = []
            try:
                for _ in range(20):
                    connection = socket.create_connection((host, int(port)), TIMEOUT, source_address=(address, 0))
                    connections.append(connection)
                    connection.sendall(sent)
                time.sleep(HOLD_S)
            finally:
                for connection in connections:
                    connection.close()
            return "held"

        return attack

    known = [
        post(json.dumps(heavy).encode(), JSON),
        post(json.dumps({"posts": [heavy] * 32, "samples": 50}).encode(), JSON, "/api/extract-batch"),
        post(form, {"Content-Type": media}),
        post(field_of_form % (b"text", b"a" * 300_000), {"Content-Type": f"{media}; charset=punycode"}),
        post(b"".join(field_of_form % (b"%d" % number, b"1") for number in range(50_000)), {"Content-Type": media}),
        post(b'{"text": ' + b"[" * 100_000, JSON),
        post(rng.randbytes(5_000), JSON),
        post(b"{}", {**JSON, "Origin": "http://["}),
        held(b"POST /api/extract HTTP/1.1\r\nHost: 127"),
        held(b"POST /api/extract HTTP/1.1\r\nHost: 127.0.0.1\r\n" + ONE_BYTE_BODY),
        held(rng.randbytes(500)),
    ]
    while True:
        yield rng.choice(known)


def run_clients(running: Running, drawn: Sequence[dict[str, Any]], honest: int, hostile: int, requests: int) -> Load:
    """Run clients until the honest ones have sent this many requests; hostile ones continue until then."""
    load, numbers, over, taking = Load(), itertools.count(), threading.Event(), threading.Lock()

    def ask_on(client: int) -> None:
        while True:
            with taking:
                number = next(numbers)
            if number >= requests:
                return
            post = drawn[number % len(drawn)]
            # The text is extended by the number, to identify its answer.
            ask(running.place, f"127.0.0.{2 + client}", {**post, "text": f"{post['text']} #{number}"}, load)

    def attack_on(client: int) -> None:
        for attack in attacks(random.Random(client)):
            if over.is_set():
                return
            try:
                ended = attack(running.place, f"127.0.1.{2 + client}")
            except (OSError, http.client.HTTPException) as error:
                ended = type(error).__name__
            load.hostile[ended] += 1

    asking = [threading.Thread(target=ask_on, args=(client,)) for client in range(honest)]
    attacking = [threading.Thread(target=attack_on, args=(client,), daemon=True) for client in range(hostile)]
    began = time.perf_counter()
    for thread in (*attacking, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    load.wall = time.perf_counter() - began
    over.set()
    for thread in attacking:
        thread.join(TIMEOUT)
    return load


def memory_mb(running: Running) -> float:
    """Resident memory of the service, in MB."""
    lines = Path(f"/proc/{running.process_id}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def soak(running: Running, drawn: Sequence[dict[str, Any]], clients: int, requests: int) -> tuple[Load, Load, float]:
    """Measure honest clients alone and beside hostile ones, and the growth of the service's memory in MB."""
    hostile = max(1, round(HOSTILE_SHARE * clients))
    honest = clients - hostile
    run_clients(running, drawn, honest, 0, 2 * honest)  # warm-up
    before = memory_mb(running)
    alone = run_clients(running, drawn, honest, 0, requests // 4)
    beside = run_clients(running, drawn, honest, hostile, requests - requests // 4)
    return alone, beside, memory_mb(running) - before


def main(arguments: list[str] | None = None) -> int:
    """Run the clients, and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("exports")], help="as for mmib serve")
    parser.add_argument("--clients", type=int, default=32, help="honest and hostile (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="of the honest ones (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    with service(chosen.model) as running:
        connection = http.client.HTTPConnection(running.place, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request("GET", "/api/model")
            models = json.loads(connection.getresponse().read())["models"]
        drawn = posts(images=True, entities=all(model["finds"] != "entities" for model in models))
        alone, beside, grown = soak(running, drawn, chosen.clients, chosen.requests)
    print(f"{machine()}\n")
    names = ["honest clients", "answers", "lost", "tried again", "requests a second", "95th percentile, s"]
    rows = [
        [name, len(load.seconds), len(load.lost), load.refused, f"{load.rate:.1f}", f"{load.tail:.2f}"]
        for name, load in (("alone", alone), ("beside hostile ones", beside))
    ]
    print(table(names, rows))
    print(f"\nhostile requests by how they ended: {dict(beside.hostile.most_common())}")
    print(f"memory of the service: {grown:+.0f} MB; throughput kept: {beside.rate / alone.rate:.0%}")
    for reason in (alone.lost + beside.lost)[:5]:
        print(f"lost: {reason}")
    return int(bool(alone.lost or beside.lost) or beside.rate < KEPT * alone.rate or grown > MEMORY_MB)


if __name__ == "__main__":
    raise SystemExit(main())
