"""The revision of the code according to git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mmib.base.revision import Revision, describe


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout, with a linked folder as in this project."""
    root = tmp_path / "src" / "package"
    root.mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (root / "linked").symlink_to("../../linked")
    for path in (root / "__init__.py", tmp_path / "linked" / "module.py", tmp_path / "README.md"):
        path.write_text("1\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return root


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a commit")


def test_the_commit_matches_the_checkout(package: Path) -> None:
    found = describe(package, "1.0")
    head = git(package, "rev-parse", "HEAD")
    assert (found.commit, found.dirty, found.git) == (head, False, head[:12])
    assert str(found) == f"1.0 (git {head[:12]})"


@pytest.mark.parametrize("changed", ["src/package/__init__.py", "linked/module.py", "src/package/new.py"])
def test_changed_and_new_files_of_the_package_make_it_dirty(package: Path, changed: str) -> None:
    clean = describe(package, "1.0")
    (package.parent.parent / changed).write_text("2\n", encoding="utf-8")
    found = describe(package, "1.0")
    assert found.dirty
    assert found.git == f"{clean.git}-dirty"
    assert found.commit == clean.commit
    assert found.digest != clean.digest


def test_other_files_of_the_checkout_have_no_effect(package: Path) -> None:
    (package.parent.parent / "README.md").write_text("2\n", encoding="utf-8")
    assert not describe(package, "1.0").dirty


def test_a_package_installed_inside_another_checkout_has_only_a_digest(package: Path) -> None:
    """`.venv` inside somebody's repository."""
    installed = package.parent.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("1\n", encoding="utf-8")
    found = describe(installed, "1.0")
    assert (found.commit, found.git) == (None, None)
    assert str(found) == f"1.0 (code {found.digest})"


def test_without_git_there_is_a_digest(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = describe(package, "1.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe(package, "1.0") == Revision("1.0", known.digest)


def test_a_repository_in_the_environment_variables_is_ignored(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert describe(package, "1.0").commit == git(package, "rev-parse", "HEAD")
