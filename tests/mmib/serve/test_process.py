"""The service as a process: startup, answers, graceful shutdown, and errors."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmib.cli import main
from mmib.serve.process import address_of, listen

Refused = Callable[..., str]
BODY = json.dumps({"posts": [{"text": f"bob {number} meets anna"} for number in range(20)]}).encode()


@pytest.fixture
def process(exported: Path, log: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mmib", "serve", "--model", str(exported), "--port", "0", "--log", log]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    yield started
    started.kill()
    started.communicate()


def connect(process: subprocess.Popen[str]) -> http.client.HTTPConnection:
    """A connection to the address printed by the service."""
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    place = next(found for line in lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
    return http.client.HTTPConnection("127.0.0.1", int(place[1]), timeout=120)


@pytest.mark.smoke
@pytest.mark.parametrize(("number", "log"), [(signal.SIGTERM, "text"), (signal.SIGINT, "json")])
def test_a_started_request_is_answered_before_shutdown(
    process: subprocess.Popen[str], number: signal.Signals, log: str
) -> None:
    begun, other = connect(process), None
    port = begun.port
    begun.putrequest("POST", "/api/extract-batch")
    begun.putheader("Content-Type", "application/json")
    begun.putheader("Content-Length", str(len(BODY)))
    begun.endheaders(BODY[:100])
    waiting = 0
    while not waiting:  # until the service has received the header
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        other.request("GET", "/api/health")
        waiting = json.loads(other.getresponse().read())["waiting"]
        other.close()
    process.send_signal(number)
    while True:  # until it accepts no more connections
        try:
            socket.create_connection(("127.0.0.1", port), timeout=120).close()
        except OSError:
            break
    begun.send(BODY[100:])
    answer = begun.getresponse()
    results = json.loads(answer.read())["results"]
    assert [result["text"] for result in results] == [f"bob {place} meets anna" for place in range(20)]
    assert process.wait(120) == 0
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    if log == "text":
        assert lines == []
        return
    requests = [json.loads(line) for line in lines]
    assert (requests[-1]["path"], requests[-1]["status"]) == ("/api/extract-batch", 200)
    assert {"request"} == {request["message"] for request in requests}


def test_a_port_in_use_is_refused_before_loading_models(refused: Refused) -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        message = refused("serve", "--model", "nowhere", "--port", str(port))
    assert f"cannot listen at 127.0.0.1, port {port}" in message
    assert "--port" in message


@pytest.mark.parametrize(
    ("option", "value"), [("--port", "70000"), ("--host", "no.such.name.invalid"), ("--host", "." * 99)]
)
def test_an_invalid_address_is_refused(refused: Refused, option: str, value: str) -> None:
    assert "cannot listen at" in refused("serve", "--model", "nowhere", option, value)


def test_a_folder_without_an_export_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert "is no exported model" in refused("serve", "--model", str(tmp_path), "--port", "0")
    assert "there is no model" in refused("serve", "--model", str(tmp_path / "nowhere"), "--port", "0")


def test_addresses_are_printed_for_use_in_a_browser() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        with listen("::1", 0) as listener:
            assert address_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("mmib.serve.find_spec", lambda name: None if name == "uvicorn" else True)
    assert "needs uvicorn: pip install 'mmib[serve]'" in refused("serve", "--model", "nowhere")


def test_help_needs_no_torch() -> None:
    code = "import sys; from mmib.cli import main\ntry: main(['serve', '--help'])\nexcept SystemExit: pass\n"
    code += (
        "sys.exit(str({'torch', 'fastapi', 'uvicorn', 'numpy'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--seconds" in done.stdout
    assert main(["--help"]) == 0
