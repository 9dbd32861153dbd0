"""What a person has who installs the wheel and gets an exported folder, and nothing else of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmib.export.folder import write_export
from mmib.export.model import TrainedModel

ROOT = Path(__file__).parent.parent
PACKAGES = ("src/mmib", "datamodules", "lightning_configs")
TEXT = "anna and bob meets carl in the paris head"
# Whatever code asks a network for something, and however it handles errors, ends the process.
NO_NETWORK = """
import os, sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}:
        os.write(2, f"asked of a network: {event} {arguments}".encode())
        os._exit(97)

sys.addaudithook(refuse)
"""
THREE_LINES = """
from mmib import Extractor
found = Extractor.from_pretrained({folder!r}).extract({text!r}, image={image!r})
print(found.to_dict())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves things beside what it builds."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(built), str(source))
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh virtual environment with the wheel in it and no network.

    The packages that mmib needs are those of the environment that runs this test, which a `.pth` file adds; how mmib
    itself is installed there is another `.pth` file, which is not read.
    """
    folder = tmp_path_factory.mktemp("venv") / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", str(own), "install", "--no-deps", "--no-index", str(wheel))
    site = Path(run(str(own), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (site / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    return own


def run(*command: str, folder: Path | None = None, status: int = 0) -> str:
    """What a command prints, with nothing of this process's own environment that could help it."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    environment = {
        **kept,
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder or tempfile.gettempdir()),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr if status else done.stdout


def test_everything_that_is_no_python_is_shipped_too(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT / "src" if name.startswith("src/") else ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"mmib/report/page.css", "mmib/report/page.js", "mmib/py.typed", "lightning_configs/base.yaml"} <= files
    assert not files - shipped
    assert not {name for name in shipped if name.startswith(("tests", "experiments", "src"))}


def test_the_command_works_from_the_wheel(python: Path, tmp_path: Path) -> None:
    usage = run(str(python.with_name("mmib")), "--help", folder=tmp_path)
    assert "extract" in usage
    assert "mre-demo" in usage


@pytest.mark.slow
def test_three_lines_of_python_give_results_without_a_network(
    python: Path, make_trained: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    from PIL import Image

    write_export([make_trained("mner"), make_trained("mre")], tmp_path / "exports")
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(tmp_path / "photo.png")
    (tmp_path / "elsewhere").mkdir()
    lines = THREE_LINES.format(folder=str(tmp_path / "exports"), text=TEXT, image=str(tmp_path / "photo.png"))
    assert len(lines.strip().splitlines()) == 3
    told = (
        "import json, mmib, datamodules; print(json.dumps([mmib.__file__, mmib.datamodules.__file__, found.to_dict()]))"
    )
    printed = run(str(python), "-c", lines + told, folder=tmp_path / "elsewhere")
    *_, own, other, found = json.loads(printed.splitlines()[-1])
    assert {Path(path).is_relative_to(python.parent.parent) for path in (own, other)} == {True}
    assert found["text"] == TEXT
    assert found["entities"]
    assert all(TEXT[one["start"] : one["end"]] == one["text"] for one in found["entities"])


def test_the_network_is_closed_where_this_is_tested(python: Path, tmp_path: Path) -> None:
    code = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept BaseException:\n    pass"
    assert "asked of a network" in run(str(python), "-c", code, folder=tmp_path, status=97)
