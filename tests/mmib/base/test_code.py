"""Code of custom classes: it changes exactly with edits to anything a class uses."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmib.base.code import custom_code

PACKAGE = {
    "__init__.py": "",
    "reading.py": "from . import parsing\nimport torch\nclass Base: pass\nclass Custom(Base): pass\n",
    "parsing.py": "import beside_it\nMARK = '-'\n",
    "unused.py": "",
}
CELL = """
import re
MARKS = {"-", "+"}
def helper(line):
    return [word for word in line.lower().split() if word not in MARKS]
class Base:
    mark = 5
    @property
    def pattern(self):
        return re.compile("a+")
class Custom(Base):
    def scan(self, line="a"):
        return helper(line)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in a package, and a module next to the package."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "custom_package"
    folder.mkdir()
    for name, content in PACKAGE.items():
        (folder / name).write_text(content)
    (tmp_path / "beside_it.py").write_text("")
    names = ["custom_package", "custom_package.reading", "custom_package.parsing", "custom_package.unused", "beside_it"]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module("custom_package.unused")
    yield importlib.import_module("custom_package.reading")
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("custom_package/reading.py", True),
        ("custom_package/parsing.py", True),
        ("beside_it.py", True),
        ("custom_package/unused.py", False),
    ],
)
def test_code_includes_the_modules_imported_by_the_class(
    package: ModuleType, tmp_path: Path, file: str, changes: bool
) -> None:
    before = custom_code(package.Custom, package.Base)
    assert custom_code(package.Custom, package.Base) == before
    with (tmp_path / file).open("a") as opened:
        opened.write("# edited\n")
    assert (custom_code(package.Custom, package.Base) != before) == changes


def test_a_base_class_has_no_code_and_a_subclass_has(package: ModuleType) -> None:
    assert custom_code(package.Base, package.Base) == ""
    assert custom_code(package.Base) != custom_code(package.Custom)


def in_notebook(monkeypatch: pytest.MonkeyPatch, cell: str) -> str:
    notebook = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", notebook)
    exec(compile(cell, "<cell>", "exec"), vars(notebook))
    return custom_code(notebook.Custom)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lower()", "upper()"),
        ("return helper(line)", "return helper(line * 2)"),
        ('line="a"', 'line="b"'),
        ('"+"', '"*"'),
        ("mark = 5", "mark = 6"),
        ('"a+"', '"b+"'),
    ],
)
def test_code_of_a_notebook_depends_on_what_its_class_uses(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    before = in_notebook(monkeypatch, CELL)
    assert in_notebook(monkeypatch, f"unused = 3\n{CELL}") == before
    assert old in CELL
    assert in_notebook(monkeypatch, CELL.replace(old, new)) != before


def test_code_of_a_notebook_is_the_same_in_the_next_process() -> None:
    script = f"{CELL}\nfrom mmib.base.code import custom_code\nprint(custom_code(Custom))"
    codes = {
        subprocess.run(
            [sys.executable, "-"],
            input=script,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(codes) == 1
