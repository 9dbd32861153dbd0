"""List the licences of the pinned packages, and known vulnerabilities in them.

    python -m experiments.audit

pip-audit is installed into a separate virtual environment, so that the project does not depend on it. If it cannot be
installed, or its service does not answer, that half is skipped and the reason printed. Exit status 1 if a pinned
version has a known vulnerability.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

TOOL = "pip-audit==2.10.1"
UNKNOWN = "not stated"
TIMEOUT_S = 300


class Licence(NamedTuple):
    """The licence that a package states."""

    package: str
    version: str
    licence: str


class AuditSkippedError(Exception):
    """The audit is not possible here; the message says why."""


def licences(pins: Path) -> Iterator[Licence]:
    """Yield the licence of each pinned package that is installed."""
    for line in pins.read_text(encoding="utf-8").splitlines():
        name = line.partition("==")[0].strip()
        try:
            described = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        yield Licence(name, described["Version"], licence_of(described))


def licence_of(described: Any) -> str:
    """Licence in a package's metadata: the expression, the classifiers, or the first line of the licence text."""
    classifiers = [text.split(" :: ")[-1] for text in described.get_all("Classifier", []) if text.startswith("License")]
    text = (described.get("License") or "").strip().split("\n")[0]
    stated = described.get("License-Expression") or ", ".join(classifiers) or text
    return UNKNOWN if stated in ("", "UNKNOWN") else stated[:80]


def audit(pins: Path, folder: Path) -> list[dict[str, Any]]:
    """Run pip-audit on the pinned packages, and return its entry for each.

    Raises:
        AuditSkippedError: pip-audit cannot be installed, or knows none of the packages.
    """
    program = folder / "bin" / "pip-audit"
    if not program.is_file():
        venv.create(folder, with_pip=True)
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", TOOL])
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    return audited(_run([str(program), "--requirement", str(pins), *options]))


def audited(output: str) -> list[dict[str, Any]]:
    """Return the packages in pip-audit's JSON that its service knows.

    Raises:
        AuditSkippedError: it knows none, for example because the package index is a mirror.
    """
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditSkippedError(f"pip-audit gave no answer ({type(error).__name__})") from error
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        reasons = sorted({package["skip_reason"].split(":")[0] for package in packages})
        raise AuditSkippedError(f"the vulnerability service knows none of the packages: {', '.join(reasons)}")
    return known


def _run(command: list[str]) -> str:
    """Return the standard output of a program; pip-audit also exits with status 1 if it finds vulnerabilities."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuditSkippedError(f"{Path(command[0]).name} did not answer: {type(error).__name__}") from error
    if done.returncode and not done.stdout:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise AuditSkippedError(f"{Path(command[0]).name} failed: {last[:200]}")
    return done.stdout


def main() -> int:
    """Print both lists."""
    parser = argparse.ArgumentParser(prog="python -m experiments.audit", description=__doc__.split("\n")[0])
    parser.add_argument("--pins", type=Path, default=Path("constraints.txt"), help="the versions (%(default)s)")
    parser.add_argument("--tool", type=Path, default=Path(".cache/audit"), help="where pip-audit goes (%(default)s)")
    chosen = parser.parse_args()
    stated = list(licences(chosen.pins))
    for package in stated:
        print(f"{package.package:36} {package.version:18} {package.licence}")
    unknown = [package.package for package in stated if package.licence == UNKNOWN]
    print(f"{len(stated)} packages; no licence stated by {', '.join(unknown) or 'none'}")
    try:
        known = audit(chosen.pins, chosen.tool)
    except AuditSkippedError as reason:
        print(f"vulnerabilities: skipped, {reason}")
        return 0
    found = [(package, each) for package in known for each in package["vulns"]]
    for package, each in found:
        fixed = ", ".join(each.get("fix_versions", [])) or "no version"
        print(f"{package['name']} {package['version']}: {each['id']}, mended in {fixed}")
    print(f"vulnerabilities: {len(found)} in {len(known)} of {len(stated)} packages that the service knows")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
