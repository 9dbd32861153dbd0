"""The wheel and an exported folder work without the rest of the project."""

from __future__ import annotations

import configparser
import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmib.export.folder import write_export
from mmib.export.model import TrainedModel

ROOT = Path(__file__).parent.parent
LINKED = ("datamodules", "lightning_configs")
COPIED = ("src/mmib", *LINKED)
ADDRESS = "https://example.org/mmib"
TEXT = "anna and bob meets carl in the paris head"
# Any network access ends the process, however the code handles errors.
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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with links preserved: setuptools leaves files next to them."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    settings = configparser.ConfigParser()
    settings.read(folder / "setup.cfg", encoding="utf-8")
    addresses = settings.get("metadata", "project_urls", fallback="")
    settings["metadata"]["project_urls"] = f"{addresses}\nSource = {ADDRESS}"
    with (folder / "setup.cfg").open("w", encoding="utf-8") as file:
        settings.write(file)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel built from a source folder or archive."""
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source))
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh virtual environment with the wheel installed."""
    return environment(tmp_path_factory.mktemp("venv") / "fresh", str(wheel))


def environment(folder: Path, *what: str) -> Path:
    """The Python of a fresh virtual environment without a network, in which pip has installed something.

    The packages that mmib needs are those of the environment that runs this test, which a `.pth` file adds; how mmib
    itself is installed there is another `.pth` file, which is not read.
    """
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(run(str(interpreter), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "--python", str(interpreter), "install", *offline, *what)
    (site / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    return interpreter


def packed(wheel: Path) -> dict[str, bytes]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}


def run(*command: str, folder: Path | None = None, status: int = 0) -> str:
    """Runs a command without this process's environment variables; returns its output."""
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


def test_links_of_the_readme_work_on_a_package_index(wheel: Path) -> None:
    """If the project has an address, the description links to the version's tag, and images to their files."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    description, tag = str(metadata.get_payload()), f"v{metadata['Version']}"
    targets = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", description)
    assert len(targets) > 20
    assert [target for _, target in targets if not target.startswith("https://")] == []
    assert f"{ADDRESS}/blob/{tag}/docs/index.md" in description
    assert [target for picture, target in targets if picture and f"{ADDRESS}/raw/{tag}/" not in target] == []
    linked = {target.partition("#")[0].partition(f"/{tag}/")[2] for _, target in targets if f"/{tag}/" in target}
    assert [path for path in linked if not (ROOT / path).is_file()] == []


def test_all_non_python_files_are_shipped(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    files = {
        Path(folder, name).relative_to(ROOT / "src").as_posix()
        for folder, _, names in os.walk(ROOT / "src" / "mmib", followlinks=True)
        for name in names
        if "__pycache__" not in folder
    }
    assert {"mmib/serve/page.css", "mmib/serve/page.js", "mmib/py.typed"} <= files
    assert {"mmib/datamodules/base.py", "mmib/lightning_configs/base.yaml"} <= files
    assert not files - shipped
    assert {name.partition("/")[0] for name in shipped if ".dist-info/" not in name} == {"mmib"}


@pytest.mark.slow
def test_the_source_archive_has_files_instead_of_links_and_gives_the_same_wheel(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, str(tmp_path), folder=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert {member.type for member in file.getmembers()} == {tarfile.REGTYPE, tarfile.DIRTYPE}
        (top,) = {member.name.partition("/")[0] for member in file.getmembers()}
        assert {f"{top}/src/mmib/{name}" for name in LINKED} <= set(file.getnames())
    again = build_wheel(archive, tmp_path / "wheel")
    one, other = (packed(path) for path in (wheel, again))
    assert one == other


@pytest.mark.slow
def test_an_editable_install_uses_the_linked_folders(source: Path, tmp_path: Path) -> None:
    interpreter = environment(tmp_path / "venv", "--editable", str(source))
    report = "from mmib.datamodules import files; from mmib.configs import shipped_experiments as found; "
    printed = run(str(interpreter), "-c", f"{report}print(files.__file__, found()[0], sep='\\n')", folder=tmp_path)
    assert [Path(line).resolve().relative_to(source).parts[0] for line in printed.splitlines()] == list(LINKED)


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
    report = (
        "import json, mmib.datamodules; print(json.dumps([mmib.__file__, mmib.datamodules.__file__, found.to_dict()]))"
    )
    printed = run(str(python), "-c", lines + report, folder=tmp_path / "elsewhere")
    *_, first, other, found = json.loads(printed.splitlines()[-1])
    assert {Path(path).is_relative_to(python.parent.parent) for path in (first, other)} == {True}
    assert found["text"] == TEXT
    assert found["entities"]
    assert all(TEXT[one["start"] : one["end"]] == one["text"] for one in found["entities"])


def test_the_network_is_blocked_in_these_tests(python: Path, tmp_path: Path) -> None:
    code = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept BaseException:\n    pass"
    assert "asked of a network" in run(str(python), "-c", code, folder=tmp_path, status=97)
