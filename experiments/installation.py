"""Install mmib into a fresh virtual environment, and run the smoke tests there.

    python -m experiments.installation .                        # this checkout
    python -m experiments.installation dist/mmib-0.2.0.tar.gz --python 3.13
    python -m experiments.installation . --floor                # the oldest versions that setup.cfg allows

uv creates the environments: it links files from a cache, so that a second environment of several gigabytes takes little
time and space. uv itself is in a separate virtual environment, so that the project does not depend on it. The smoke
tests are those of the checkout, as a wheel has none; mmib is only imported from the environment.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = {"uv": "0.13.9", "twine": "7.0.0"}
EXTRAS = ("encoders", "data", "lora", "sweeps", "extract", "serve", "onnx", "dev")
# Extras whose lower bounds are not tested: not needed to use mmib or, like Ray, without a smoke test.
FREE = ("dev", "docs", "ray")
MARK = "@pytest.mark.smoke"


class StepError(Exception):
    """A command of a check failed; the message names it, and its output is above."""


def run(*command: str | Path, folder: Path = ROOT, variables: dict[str, str] | None = None) -> None:
    """Run a command, and show its output.

    Raises:
        StepError: the command fails.
    """
    words = [str(word) for word in command]
    print(f"$ {' '.join(words)}", flush=True)
    # Prevent accidental imports from this checkout.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, cwd=folder, env={**environment, **(variables or {})}, check=False)
    if done.returncode:
        raise StepError(f"{Path(words[0]).name} {words[1] if len(words) > 1 else ''} failed, status {done.returncode}")


def tool(name: str) -> Path:
    """Return the program of a pinned tool, which is installed on first use."""
    folder = ROOT / ".cache" / "tools"
    installed = folder / f"{name}-{TOOLS[name]}"
    if not installed.is_file():
        venv.create(folder, with_pip=True)
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"{name}=={TOOLS[name]}")
        installed.touch()
    return folder / "bin" / name


def floors(setup: Path) -> Iterator[str]:
    """Yield a constraint to the lowest version of each package that setup.cfg bounds from below."""
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    extras = config["options.extras_require"]
    lists = [config["options"]["install_requires"], *(extras[name] for name in extras if name not in FREE)]
    for requirement in "\n".join(lists).split("\n"):
        if found := re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?\s*>=\s*([\w.]+)(?:\s*,.*)?", requirement.strip()):
            yield f"{found[1]}=={found[2]}"


def check(what: Path, python: str, oldest: bool = False) -> None:
    """Install a checkout, wheel or source archive with all extras, and run the smoke tests; clean up afterwards.

    Args:
        what: the checkout, wheel or source archive.
        python: the interpreter, or its version.
        oldest: install the oldest versions that setup.cfg allows.

    Raises:
        StepError: the installation or a test fails.
    """
    uv = tool("uv")
    with tempfile.TemporaryDirectory(prefix="mmib-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        run(uv, "venv", "--quiet", "--python", python, folder / "venv")
        interpreter = folder / "venv" / "bin" / "python"
        options: list[str | Path] = []
        if oldest:
            (folder / "floors.txt").write_text("\n".join(floors(ROOT / "setup.cfg")) + "\n", encoding="utf-8")
            options = ["--constraints", folder / "floors.txt"]
        requirement = f"mmib[{','.join(EXTRAS)}] @ {what.resolve().as_uri()}"
        run(uv, "pip", "install", "--quiet", "--python", interpreter, *options, requirement, folder=folder)
        # Away from src/, and from the links that point to it.
        for part in ("tests", "experiments", "docs"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "setup.cfg", folder)
        smoke_test(interpreter, folder)


def smoke_test(interpreter: Path, folder: Path) -> None:
    """Run the smoke tests of a folder with an installed mmib.

    Raises:
        StepError: a test fails, or mmib is imported from elsewhere.
    """
    where = "import mmib, pathlib, sys; sys.exit(not pathlib.Path(mmib.__file__).is_relative_to(sys.prefix))"
    run(interpreter, "-c", where, folder=folder)
    run(interpreter.with_name("mmib"), "--version", folder=folder)
    # Only these files: others concern the checkout, such as its lock file.
    files = sorted((folder / "tests").rglob("test_*.py"))
    marked = [path for path in files if MARK in path.read_text(encoding="utf-8")]
    options = ["-m", "smoke", "-q", "-p", "no:cacheprovider"]
    run(interpreter, "-m", "pytest", *options, *marked, folder=folder, variables={"OMP_NUM_THREADS": "1"})


def main(arguments: list[str] | None = None) -> int:
    """Check one installation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", type=Path, help="a checkout, a wheel or a source archive")
    parser.add_argument("--python", default=sys.executable, help="an interpreter or its version (default: this one)")
    parser.add_argument("--floor", action="store_true", help="install the oldest versions that setup.cfg allows")
    chosen = parser.parse_args(arguments)
    try:
        check(chosen.what, chosen.python, chosen.floor)
    except StepError as error:
        print(f"installation: {error}", file=sys.stderr)
        return 1
    print(f"installation: {chosen.what} works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
