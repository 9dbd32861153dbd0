"""Every error message follows the project's rule: what is wrong, and why or what to do about it, in one sentence.

The errors are found in the source, so that a new one cannot be forgotten. tests/mmib/test_cli.py checks that a
command prints their text and no traceback.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmib.training.cli import REFUSED

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("src/mmib", "datamodules") for path in sorted((ROOT / folder).rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
# Reason and remedy follow one of these.
NEXT_CLAUSE = re.compile(r"[:;,.?] |:\n")
# Texts of other errors that follow the rule themselves, or that a library's checks have written.
PASSED_ON = {"reason(error)", "str(error)", "lost", "scheme"}


def error_classes() -> set[str]:
    """The names of all user errors: subclasses of MMIBError, and those of the service's answers and of downloads."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"MMIBError", "RefusedError", "DownloadError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def template(node: ast.expr) -> str:
    """A text as written, with the source of its placeholders."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    return REFUSED if ast.unparse(inner) == "REFUSED" else f"{{{ast.unparse(inner)}}}"


def refusals() -> Iterator[tuple[str, ast.expr]]:
    """Locations of all raised errors, and their texts."""
    classes = error_classes()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func)
                if name in classes:
                    assert node.exc.args, f"{path}:{node.lineno} raises {name} without a text"
                    yield f"{path}:{node.lineno}", node.exc.args[-1]


REFUSALS = dict(refusals())


def test_errors_in_the_source_are_found() -> None:
    assert len(REFUSALS) > 500
    assert error_classes() >= {"ConfigError", "DataError", "ForeignTagError", "TrialError"}


@pytest.mark.parametrize("place", REFUSALS)
def test_an_error_describes_the_fault_and_the_remedy(place: str) -> None:
    text = REFUSALS[place]
    if not isinstance(text, ast.Constant | ast.JoinedStr | ast.BinOp):
        assert ast.unparse(text) in PASSED_ON
        return
    written = template(text)
    assert NEXT_CLAUSE.search(written), f"{written!r} gives neither a reason nor a remedy"
    assert not written.endswith((".", "!")), "it stands behind 'error: ', as one sentence without its full stop"
    first = written.split()[0]
    assert first.islower() or first.startswith(("'", "{")) or re.search("[A-Z].*[A-Z]", first), (
        "it begins in small letters"
    )
    assert "Traceback" not in written
