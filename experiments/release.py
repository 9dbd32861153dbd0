"""`make release`: build and test the artefacts of a release; nothing is published.

1. Check that the tree is clean, and that CHANGELOG.md and CITATION.cff name its version.
2. Build source archive and wheel, and check their metadata with twine.
3. Install each into a fresh virtual environment with all extras, and run the smoke tests.
4. Export and pack the demo models, if runs of them exist.
5. Print the name of the tag.

The only network access is to the package index.
"""

from __future__ import annotations

import argparse
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from experiments.demo import EXPERIMENTS, newest_run
from experiments.installation import ROOT, StepError, check, run, tool
from mmib.schema import MMIBError


def version() -> str:
    """Version in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["metadata"]["version"]


def unready(root: Path, version: str) -> list[str]:
    """List the reasons why a checkout cannot be released as this version; empty if it can."""
    reasons = []
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False)
    if status.returncode:
        reasons.append("this is no git checkout: a release is made from a commit")
    elif status.stdout:
        reasons.append(f"files differ from the commit, {status.stdout.split()[1]} among them: commit them first")
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        reasons.append(f"{version} in setup.cfg is no version to release: write one such as 0.2.0")
    named = {"CHANGELOG.md": rf"^## {re.escape(version)}\b(?!.*unreleased)", "CITATION.cff": rf"^version: {version}$"}
    for name, line in named.items():
        path = root / name
        if not path.is_file() or not re.search(line, path.read_text(encoding="utf-8"), re.MULTILINE):
            reasons.append(f"{name} does not name the version {version} as released")
    return reasons


def build(folder: Path) -> list[Path]:
    """Build wheel and source archive in an empty folder, and check their metadata.

    Raises:
        StepError: the build fails, or the metadata is invalid.
    """
    shutil.rmtree(folder, ignore_errors=True)
    run(tool("uv"), "build", "--quiet", "--out-dir", folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))
    run(tool("twine"), "check", "--strict", *files)
    return files


def pack_models(runs: Path, folder: Path, version: str) -> str:
    """Export both demo models into an archive; return a sentence about it, or about how to train missing models."""
    found = {experiment: newest_run(runs, experiment) for experiment in EXPERIMENTS}
    missing = [experiment for experiment, trained in found.items() if trained is None]
    if missing:
        return (
            f"no demo models are packed: there is no run of {' or '.join(missing)} in {runs}; make them with make demo"
        )
    name = f"mmib-demo-models-{version}"
    with tempfile.TemporaryDirectory() as temporary:
        export = Path(temporary) / name
        run(sys.executable, "-m", "mmib", "export", *(one.folder for one in found.values() if one), "-o", export)
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(export, name)
    return f"demo models: {folder / name}.tar.gz"


def main(arguments: list[str] | None = None) -> int:
    """Build a release that could be published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the artefacts (default: dist)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where runs of the demo are (default: runs)")
    parser.add_argument("--python", default=sys.executable, help="of the fresh environments (default: this one)")
    parser.add_argument("--rehearse", action="store_true", help="go on where the tree is not ready for a release")
    chosen = parser.parse_args(arguments)
    named = version()
    reasons = unready(ROOT, named)
    for reason in reasons:
        print(f"release: {reason}", file=sys.stderr)
    if reasons and not chosen.rehearse:
        return 1
    try:
        files = build(chosen.output)
        for file in files:
            check(file, chosen.python)
        print(pack_models(chosen.runs, chosen.output, named))
    except (StepError, MMIBError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"built and tested: {file}")
    print(f"tag: v{named}" + " (a rehearsal: see above what is not ready)" * bool(reasons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
