"""The lock file holds the packages of constraints.txt, each with its hashes, and no address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
(LOCK,) = ROOT.glob("requirements-*.lock")
# Of the platform alone: what builds the package, and what needs time zones on Windows.
PLATFORM = {"setuptools", "tzdata"}


def versions(path: Path) -> dict[str, str]:
    """The version of each package that a file pins."""
    pinned = re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pinned if name.lower() not in PLATFORM}


def test_lock_and_constraints_pin_the_same_versions() -> None:
    assert versions(LOCK) == versions(ROOT / "constraints.txt")


def test_every_package_has_a_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("path", [LOCK, ROOT / "constraints.txt"], ids=lambda path: path.name)
def test_no_host_of_packages_is_named(path: Path) -> None:
    assert "//" not in path.read_text(encoding="utf-8")
