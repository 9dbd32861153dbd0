"""The audit: stated licences, and no clean bill of health without an answer."""

from __future__ import annotations

import json
from email.message import Message
from pathlib import Path

import pytest

from experiments import audit
from experiments.audit import UNKNOWN, AuditSkippedError, audited, licence_of, licences


def described(*headers: tuple[str, str]) -> Message:
    message = Message()
    for name, value in headers:
        message[name] = value
    return message


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "a\nb")], "BSD License"),
        ([("License", "Apache 2.0\nwith its text")], "Apache 2.0"),
        ([("License", "UNKNOWN"), ("Classifier", "Topic :: X")], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_a_licence_is_found_in_any_metadata_field(headers: list[tuple[str, str]], licence: str) -> None:
    assert licence_of(described(*headers)) == licence


def test_installed_pins_are_listed_and_others_omitted(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("pytest==0\nno-such-package-at-all==1.0\n")
    (found,) = licences(tmp_path / "pins.txt")
    assert (found.package, found.version, found.licence) == ("pytest", pytest.__version__, "MIT")


def test_packages_unknown_to_the_service_are_not_audited() -> None:
    known = {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (1)"}
    assert audited(json.dumps({"dependencies": [known, skipped]})) == [known]
    with pytest.raises(AuditSkippedError, match="knows none of the packages: Dependency not found on PyPI"):
        audited(json.dumps({"dependencies": [skipped]}))


@pytest.mark.parametrize("output", ["", "no JSON", "[]", "{}"])
def test_an_invalid_answer_is_a_reason_to_skip(output: str) -> None:
    with pytest.raises(AuditSkippedError, match="no answer"):
        audited(output)


@pytest.mark.parametrize(("vulnerabilities", "status"), [([], 0), ([{"id": "X-1", "fix_versions": ["2"]}], 1)])
def test_a_known_vulnerability_sets_the_exit_status(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    vulnerabilities: list[dict[str, object]],
    status: int,
) -> None:
    """With a stub of pip-audit."""
    program = tmp_path / "tool" / "bin" / "pip-audit"
    program.parent.mkdir(parents=True)
    answer = json.dumps({"dependencies": [{"name": "pytest", "version": "0", "vulns": vulnerabilities}]})
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {status}\n")
    program.chmod(0o755)
    (tmp_path / "pins.txt").write_text("pytest==0\n")
    monkeypatch.setattr("sys.argv", ["audit", "--pins", str(tmp_path / "pins.txt"), "--tool", str(tmp_path / "tool")])
    assert audit.main() == status
    shown = capsys.readouterr().out
    assert f"vulnerabilities: {status} in 1 of 1 packages" in shown
    assert ("pytest 0: X-1, mended in 2" in shown) == bool(status)
