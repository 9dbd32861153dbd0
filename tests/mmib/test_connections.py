"""No telemetry: with W&B off and local encoders a training makes no external connection."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

# Python calls audit hooks before it resolves a name or connects; refusals are recorded even if the exception is caught.
GUARD = """
import ipaddress, sys

def is_local(host):
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False

def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not is_local(host):
        print(f"GUARD {event} {host}", file=sys.stderr, flush=True)
        raise ConnectionRefusedError(f"this test lets nobody reach {host}")

sys.addaudithook(guard)
"""


def guarded(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that can reach only this machine, without telling libraries to stay offline."""
    prefixes = ("HF_", "TRANSFORMERS_", "WANDB_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    command = [sys.executable, "-c", GUARD + code, *arguments]
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_training_makes_no_external_connection(workspace: Any) -> None:
    code = "from mmib.cli import main\nsys.exit(main(sys.argv[1:]))"
    one_epoch = ["--trainer.max_epochs", "1"]
    done = guarded(code, "fit", "--config", str(workspace.experiment), "--wandb", "off", *one_epoch)
    assert "GUARD" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_the_guard_detects_a_connection() -> None:
    code = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    assert "GUARD socket.getaddrinfo 192.0.2.1" in guarded(code).stderr
