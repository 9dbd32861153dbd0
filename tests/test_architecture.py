"""Imports follow the levels without cycles, and every package folder is shipped."""

from __future__ import annotations

import ast
import configparser
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# In src/mmib the last two are symbolic links, which os.walk does not follow.
SOURCES = {
    "mmib": ROOT / "src" / "mmib",
    "mmib.datamodules": ROOT / "datamodules",
    "mmib.lightning_configs": ROOT / "lightning_configs",
}
COMMANDS = ("check", "convert", "demo", "init")
# From the lowest level up. A part is a folder or a module and may import lower levels, but nothing at its own level.
LEVELS = (
    ("mmib.records", "mmib.scores", "mmib.geometry", "mmib.lightning_configs"),
    ("mmib.schema",),
    ("mmib.labels", "mmib.tagging"),
    ("mmib.base",),
    ("mmib.nn", "mmib.encoders", "mmib.optim", "mmib.metrics", "mmib.charts", "mmib.configs", "mmib.plugins"),
    ("mmib.information", "mmib.base.argument_parser"),
    ("mmib.backbone", "mmib.options"),
    ("mmib.datamodules",),
    ("mmib.runs", "mmib.analysis.calibration"),
    ("mmib.tasks", "mmib.released", "mmib.analysis.slices"),
    ("mmib.modules",),
    ("mmib.callbacks",),
    ("mmib.training", "mmib.analysis"),
    (
        "mmib.cli",
        "mmib.search",
        "mmib.export",
        "mmib.encoders.fetch",
        *(f"mmib.datamodules.{name}.command" for name in COMMANDS),
    ),
    ("mmib.__main__", "mmib.extract", "mmib.datamodules.fetch.command"),
    ("mmib.serve",),
    ("mmib.crop_objects", "mmib.review", "mmib"),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
FOR_DATAMODULES = tuple(f"mmib.{name}" for name in ("records", "schema", "labels", "tagging", "base", "nn", "encoders"))
# Commands that need no network start without torch, and errors in them are fast.
TORCH_FREE = ("mmib", "mmib.cli", "mmib.configs", "mmib.runs.reader", "mmib.analysis.report", "mmib.search.study_file")
TORCH_FREE += ("mmib.encoders.fetch", "mmib.options.help")
# Their tests are of folders and commands, not of each module.
TESTED_BY_FOLDER = ("mmib.datamodules", "mmib.analysis.report", "mmib.search", "mmib.export", "mmib.extract")
TESTED_BY_FOLDER += ("mmib.review", "mmib.serve", "mmib.crop_objects", "mmib.training", "mmib.__main__")


def part_of(module: str) -> str:
    """`mmib.nn.attention` to `mmib.nn`: the part that has a level."""
    name = module
    while name not in LEVEL and "." in name:
        name = name.rpartition(".")[0]
    # The package itself is a part; a module in it without a level is not.
    return module if name == "mmib" else name


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for found, _, files in os.walk(folder):
            for path in sorted(Path(found, file) for file in files if file.endswith(".py")):
                parts = [package, *path.relative_to(folder).with_suffix("").parts]
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Absolute names of all that a file imports, inside functions too: `from a import b` gives `a.b`.

    What is imported for type checkers alone is not.
    """
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: levels are read from absolute names"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def violation(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, or None."""
    top = imported.partition(".")[0]
    if top in ("experiments", "tests"):
        return f"nothing imports {top}"
    if top in ("datamodules", "lightning_configs"):
        return f"{top} is mmib.{top}"
    if top != "mmib":
        return None
    importing, other = part_of(importer), part_of(imported)
    if importing == other:
        return None
    if other not in LEVEL:
        return f"{other} has no level"
    if importing == "mmib.datamodules" and other not in FOR_DATAMODULES:
        return f"of mmib datamodules import {', '.join(FOR_DATAMODULES)} only"
    return None if LEVEL[other] < LEVEL[importing] else f"level {LEVEL[importing]} imports level {LEVEL[other]}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_lower_levels(module: str, path: Path) -> None:
    found = {name: reason for name in imports(path) if (reason := violation(module, name))}
    assert not found


def test_the_page_on_architecture_lists_these_levels() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\d+\. ((?:.+\n)(?: +.+\n)*)", page, re.M)
    names = [set(re.findall(r"`([\w.]+)`", line)) for line in listed]
    assert names == [{part.removeprefix("mmib.") for part in level} for level in LEVELS]


def test_every_part_of_mmib_has_a_level() -> None:
    assert {part_of(name) for name, _ in modules()} <= LEVEL.keys()


def test_there_are_no_import_cycles() -> None:
    """Importing a module also runs the packages that contain it, unless they are already being imported."""
    paths = dict(modules())
    graph = {}
    for module, path in paths.items():
        needed = {name if name in paths else name.rpartition(".")[0] for name in imports(path)}
        around = {name.rpartition(".")[0] for name in needed if not f"{module}.".startswith(name.rpartition(".")[0])}
        graph[module] = ((needed | around) & paths.keys()) - {module, "mmib"}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mmib.schema", "mmib.nn.attention"),
        ("mmib.schema", "mmib.labels"),
        ("mmib.base.distributed", "mmib.nn.attention"),
        ("mmib.information", "mmib.backbone"),
        ("mmib.tasks.mre", "mmib.modules"),
        ("mmib.runs.reader", "mmib.tasks.mre"),
        ("mmib.callbacks.information_plane", "mmib.analysis.report"),
        ("mmib.nn.attention", "mmib.encoders.text"),
        ("mmib.nn.fusion", "mmib.backbone"),
        ("mmib.backbone", "mmib.modules"),
        ("mmib.modules", "mmib.callbacks.monitor"),
        ("mmib.backbone", "mmib.datamodules.base"),
        ("mmib.callbacks.monitor", "mmib.training.summary"),
        ("mmib.runs.loggers", "mmib.callbacks"),
        ("mmib.configs", "mmib.training.cli"),
        ("mmib.analysis.report", "mmib.training.summary"),
        ("mmib.analysis.report", "mmib.search.study_file"),
        ("mmib.training.cli", "mmib.cli"),
        ("mmib.extract.extractor", "mmib.serve.app"),
        ("mmib.serve.app", "mmib.crop_objects"),
        ("mmib.datamodules.base", "mmib.metrics"),
        ("mmib.datamodules.base", "mmib.configs"),
        ("mmib.datamodules.base", "mmib.cli"),
        ("mmib.datamodules.base", "mmib.datamodules.demo.command"),
        ("mmib.training.cli", "mmib.datamodules.check.command"),
        ("mmib.nn.attention", "mmib.nowhere"),
        ("mmib.nn.attention", "mmib.Extractor"),
        ("mmib.cli", "experiments.sweeps"),
        ("mmib.cli", "datamodules.base"),
        ("mmib.configs", "lightning_configs"),
    ],
)
def test_the_rule_detects_imports_in_the_wrong_direction(importer: str, imported: str) -> None:
    assert violation(importer, imported)


def test_imports_inside_functions_and_of_submodules_are_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "from mmib import cli\ndef run():\n    import mmib.nn.attention\nif TYPE_CHECKING:\n    import mmib.serve\n"
    )
    assert imports(tmp_path / "module.py") == {"mmib.cli", "mmib.nn.attention"}


def test_every_source_is_read_once() -> None:
    """Two folders in the package are links."""
    paths = [path.resolve() for _, path in modules()]
    assert len(paths) == len(set(paths))
    for name in ("datamodules", "lightning_configs"):
        assert (SOURCES["mmib"] / name).resolve() == SOURCES[f"mmib.{name}"]


def in_a_fresh_process(statements: str) -> None:
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linked_folders_are_imported_under_one_name() -> None:
    """Under two names each of their classes would exist twice."""
    twice = "{'datamodules', 'lightning_configs'} & {name.partition('.')[0] for name in sys.modules}"
    in_a_fresh_process(f"import sys, mmib.datamodules.base, mmib.cli; sys.exit({twice} or None)")


@pytest.mark.parametrize("module", TORCH_FREE)
def test_parts_without_networks_do_not_import_torch(module: str) -> None:
    in_a_fresh_process(f"import sys, {module}; sys.exit('torch' in sys.modules)")


def test_setup_cfg_lists_every_package_folder() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    assert named == {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules()}


def test_no_device_is_hard_coded() -> None:
    """Defect 26: `.cuda()` throughout."""
    for module, path in modules():
        calls = [
            node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        assert "cuda" not in names, f"{module} moves tensors to a device of its own choice"


def test_tests_mirror_the_source() -> None:
    """Each module has its test file in the corresponding folder."""
    for module, path in modules():
        if path.name != "__init__.py" and not module.startswith(TESTED_BY_FOLDER):
            mirrored = ROOT / "tests" / "mmib" / path.relative_to(SOURCES["mmib"]).with_name(f"test_{path.name}")
            assert mirrored.is_file() or module == "mmib.nn.precision", f"{mirrored} is missing"
