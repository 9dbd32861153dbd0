"""The lock file contains the packages of constraints.txt with hashes and without addresses."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
(LOCK,) = ROOT.glob("requirements-*.lock")
# Platform-specific: build tools, and a package that needs time zones on Windows.
PLATFORM = {"setuptools", "tzdata"}


def versions(path: Path) -> dict[str, str]:
    """The version of each package pinned in a file."""
    pinned = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pinned if name.lower() not in PLATFORM}


def test_lock_and_constraints_pin_the_same_versions() -> None:
    assert versions(LOCK) == versions(ROOT / "constraints.txt")


def test_every_package_has_a_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+(?:\[.*\])?==)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


def test_extras_required_by_packages_are_in_the_lock_file() -> None:
    """With hash checking, pip treats `coverage[toml]` and `coverage` as different requirements."""
    pinned = dict(re.findall(r"^([\w.-]+)\[(.*)\]==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    lacking = [
        f"{name} asks for {needed}"
        for name in versions(LOCK)
        for text in _requirements_of(name)
        if (needed := Requirement(text)).extras and (needed.marker is None or needed.marker.evaluate({"extra": ""}))
        if not needed.extras <= set(re.split(", ?", pinned.get(needed.name, "")))
    ]
    assert not lacking


def _requirements_of(name: str) -> list[str]:
    """Requirements of an installed package."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of another platform
        return []


@pytest.mark.parametrize("path", [LOCK, ROOT / "constraints.txt"], ids=lambda path: path.name)
def test_no_package_index_is_named(path: Path) -> None:
    assert "//" not in path.read_text(encoding="utf-8")
