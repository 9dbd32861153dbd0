"""Which state of the code is running: the commit of its git checkout, and a digest where there is none."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from importlib import metadata, resources
from pathlib import Path
from typing import NamedTuple

SHORT = 12
TIMEOUT_S = 10


class Revision(NamedTuple):
    """A state of the code.

    Attributes:
        version: of the package.
        digest: start of a SHA-256 over the package's own modules as they are.
        commit: the commit of the checkout that the package is imported from; None where it is not in one.
        dirty: whether the package's files differ from that commit, new ones included.
    """

    version: str
    digest: str
    commit: str | None = None
    dirty: bool = False

    @property
    def git(self) -> str | None:
        """Start of the commit, and `-dirty` as `git describe` says it; None outside of a checkout."""
        return self.commit and self.commit[:SHORT] + "-dirty" * self.dirty

    def __str__(self) -> str:
        """Version and commit, or version and digest."""
        return f"{self.version} ({f'git {self.git}' if self.git else f'code {self.digest}'})"


@functools.cache
def revision() -> Revision:
    """The state of the code when this was first asked; a run asks at its start, for files may change while it runs."""
    return describe(Path(str(resources.files("mmib"))), _version())


def describe(root: Path, version: str) -> Revision:
    """The state of a package's folder.

    Args:
        root: the folder; it may hold links to other folders of the checkout.
        version: of the package.
    """
    known = Revision(version, _digest(root))
    # A package that is installed below somebody's checkout, as in its .venv, is no file of that checkout.
    if _git(root, "ls-files", "--error-unmatch", "__init__.py") is None:
        return known
    folders = [root, *(path.resolve() for path in root.iterdir() if path.is_symlink() and path.is_dir())]
    status = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", *map(str, folders))
    lines = (status or "").splitlines()
    commits = [line.rpartition(" ")[2] for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return known
    return known._replace(commit=commits[0], dirty=any(not line.startswith("#") for line in lines))


def _version() -> str:
    """Of the package; unknown where its sources were copied and nothing was installed."""
    try:
        return metadata.version("mmib")
    except metadata.PackageNotFoundError:
        return "not installed"


def _digest(root: Path) -> str:
    """Start of a SHA-256 over the source of everything that a run can use."""
    digest = hashlib.sha256()
    # In the repository some folders of the package are symbolic links; in an installed one they are folders.
    folders = os.walk(root, followlinks=True)
    for path in sorted(Path(folder, name) for folder, _, names in folders for name in names if name.endswith(".py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:SHORT]


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints; None where git is not there, refuses, or knows no checkout."""
    # As in a hook of another repository, which names that one here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
