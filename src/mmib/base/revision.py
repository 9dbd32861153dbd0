"""The revision of the running code: version, digest, and the commit of its git checkout, if any."""

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
    """A revision of the code.

    Attributes:
        version: version of the package.
        digest: start of a SHA-256 over the package's modules.
        commit: commit of the checkout that the package is imported from; None if it is not in one.
        dirty: whether the package's files, including new ones, differ from that commit.
    """

    version: str
    digest: str
    commit: str | None = None
    dirty: bool = False

    @property
    def git(self) -> str | None:
        """Abbreviated commit, with the suffix `-dirty` as in `git describe`; None outside of a checkout."""
        return self.commit and self.commit[:SHORT] + "-dirty" * self.dirty

    def __str__(self) -> str:
        """Return version and commit, or version and digest."""
        return f"{self.version} ({f'git {self.git}' if self.git else f'code {self.digest}'})"


@functools.cache
def revision() -> Revision:
    """Return the revision at the first call; a run calls this at its start, as files may change while it runs."""
    return describe(Path(str(resources.files("mmib"))), _version())


def describe(root: Path, version: str) -> Revision:
    """Return the revision of a package's folder.

    Args:
        root: the folder; it may contain links to other folders of the checkout.
        version: version of the package.
    """
    known = Revision(version, _digest(root))
    # A package that is installed inside another checkout, as in its .venv, is not tracked by that checkout.
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
    """Return the version of the package, which is unknown if it is not installed."""
    try:
        return metadata.version("mmib")
    except metadata.PackageNotFoundError:
        return "not installed"


def _digest(root: Path) -> str:
    """Return the start of a SHA-256 over the package's Python sources."""
    digest = hashlib.sha256()
    # Some folders of the package are symbolic links in the repository, and folders in an installed package.
    folders = os.walk(root, followlinks=True)
    for path in sorted(Path(folder, name) for folder, _, names in folders for name in names if name.endswith(".py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:SHORT]


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command; None if git is missing or fails, or there is no checkout."""
    # Without GIT_ variables, which name another repository if this runs in one of its hooks.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
