"""Commands of README and documentation exist, with the documented options.

Those of the tutorials are also run (`test_tutorials.py`, `test_extending.py`). Others train for hours, or need a
cluster, a model hub or data that is not available here: they are only parsed, as on the command line.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mmib.cli import MODULES, TRAINER_COMMANDS
from mmib.configs import expand_configs
from mmib.options.composition import check
from mmib.plugins import trainer_plugins

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAMS = ("mmib", "make", "python")
# Replaces placeholders for the reader's files by existing files.
PLACEHOLDERS = re.compile(r"\S*(?:\bRUN\b|\bmy\b|\bmine\b|\bmore\b|\bproducts\b)\S*\.yaml")


class ParsedError(Exception):
    """Raised when the command line was parsed."""


def commands(page: Path) -> list[str]:
    """Command lines of a page's blocks, one line each, without comments and what follows them in a pipeline."""
    found = []
    for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:\||&&|>)\s", line.removeprefix("$ ")):
                words = re.sub(r"^(?:\w+=\S+ )+", "", part.strip())
                if words.startswith(PROGRAMS) and re.match(r"(?:mmib|make|python -m) [\w-]", words):
                    found.append(words)
    return found


COMMANDS = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line[:70]}") for page in PAGES for line in commands(page)
]


@pytest.fixture
def stops_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> NoReturn:
        parse(parser, *arguments, **options)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)


def make_words() -> tuple[set[str], set[str]]:
    """Targets and variables of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", text, re.M))
    benchmarks = re.search(r"^BENCHMARKS := (.*)", text, re.M)
    assert benchmarks is not None
    return targets | {f"bench-{name}" for name in benchmarks[1].split()}, set(
        re.findall(r"\$\((?:or \$\()?([A-Z_]+)", text)
    )


def test_pages_contain_commands() -> None:
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.usefixtures("stops_after_parsing")
def test_a_documented_command_can_be_parsed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = tmp_path / "config.yaml"
    run.write_text("include: [experiment/mre-demo.yaml]\n", encoding="utf-8")
    line = PLACEHOLDERS.sub("mre-demo", line).replace("--run RUN", f"--run {tmp_path}")
    words = shlex.split(line, comments=True)
    words = [word for word in words if word not in ("…", "...")]
    program, *words = words
    if program == "make":
        targets, variables = make_words()
        for word in words:
            name, assigned, _ = word.partition("=")
            assert name in (variables if assigned else targets), f"make has no {name}"
    elif program == "python":
        module = importlib.import_module(words[1])
        with pytest.raises(ParsedError):
            module.main(words[2:])
    elif words[0] in TRAINER_COMMANDS:
        _, expanded = trainer_plugins(expand_configs(words))
        check(words[0], expanded[1:])
    elif words[0] not in ("--version", "--help"):
        with pytest.raises(ParsedError):
            importlib.import_module(MODULES[words[0]]).run(words[1:])
