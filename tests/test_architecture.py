"""Imports go one way, and every package folder is shipped."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"mmib": ROOT / "src" / "mmib", "datamodules": ROOT / "datamodules"}
LEVELS = {
    **dict.fromkeys(["mmib.schema", "mmib.base.distributed", "mmib.base.files", "mmib.base.seeding"], 0),
    **dict.fromkeys(
        [
            "mmib.nn",
            "mmib.encoders",
            "mmib.optim",
            "mmib.metrics",
            "mmib.callbacks.information_plane",
            "mmib.runs.reader",
        ],
        1,
    ),
    "mmib.analysis.calibration": 1,
    "mmib.base.devices": 1,
    "mmib.base.argument_parser": 1,
    "mmib.runs.checkpoints": 1,
    "mmib.base.resampling": 1,
    **dict.fromkeys(["mmib.backbone", "mmib.network", "mmib.information", "mmib.runs.folder", "mmib.search.trials"], 2),
    "mmib.training.parser_errors": 2,
    "mmib.analysis.triples": 2,
    **dict.fromkeys(["mmib.modules", "mmib.callbacks.monitor", "mmib.callbacks.latents"], 3),
    **dict.fromkeys(
        ["mmib.cli", "mmib.__main__", "mmib.training.cli", "mmib.training.summary", "mmib.datamodules.demo.command"], 4
    ),
    **dict.fromkeys(
        [
            "mmib.analysis.aggregate",
            "mmib.analysis.report",
            "mmib.search.sweep",
            "mmib.search.study_file",
            "mmib.search.study",
        ],
        4,
    ),
    "mmib.datamodules.check.command": 4,
    "mmib.crop_objects": 4,
    "mmib.export": 4,
    "mmib.extract": 4,
    "mmib.serve": 4,
}
# Within one level: a part may import itself and, where listed, these.
SAME_LEVEL = {
    "mmib.callbacks.monitor": {"mmib.modules"},
    "mmib.callbacks.latents": {"mmib.modules"},
    "mmib.network": {"mmib.backbone"},
}
TOP = 4
FOR_DATAMODULES = ("mmib.schema", "mmib.base.files", "mmib.base.seeding", "mmib.encoders")


def part_of(module: str) -> str:
    """`mmib.nn.attention` to `mmib.nn`: what has a level of its own."""
    return ".".join(module.split(".")[:2])


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: levels are read from absolute names"
            assert node.module is not None
            # `from mmib import schema` imports mmib.schema.
            found.update(
                f"{node.module}.{alias.name}" if node.module == "mmib" else node.module for alias in node.names
            )
    return found


def violation(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, or None."""
    top = imported.split(".", maxsplit=1)[0]
    if top == "experiments":
        return "nothing imports experiments"
    if top == "tests":
        return "nothing imports tests"
    if importer.split(".", maxsplit=1)[0] == "datamodules":
        allowed = top != "mmib" or part_of(imported) in FOR_DATAMODULES
        return None if allowed else f"datamodules import {', '.join(FOR_DATAMODULES)} only"
    level = LEVELS.get(part_of(importer))
    if top == "datamodules":
        return None if level == TOP else "of mmib only the top level imports datamodules"
    if top != "mmib" or level is None:
        return None
    own, other = part_of(importer), part_of(imported)
    if own == other or other in SAME_LEVEL.get(own, ()) or level == TOP == LEVELS[other]:
        return None
    return None if LEVELS[other] < level else f"level {level} imports level {LEVELS[other]}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_module_imports_lower_levels_only(module: str, path: Path) -> None:
    found = {name: reason for name in imports(path) if (reason := violation(module, name))}
    assert not found


def test_every_part_of_mmib_has_a_level() -> None:
    parts = {part_of(name) for name, _ in modules() if name.startswith("mmib.")}
    assert parts == set(LEVELS)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mmib.schema", "mmib.nn.attention"),
        ("mmib.base.distributed", "mmib.schema"),
        ("mmib.information", "mmib.backbone"),
        ("mmib.callbacks.information_plane", "mmib.datamodules.files"),
        ("mmib.nn.attention", "mmib.encoders.text"),
        ("mmib.nn.fusion", "mmib.backbone"),
        ("mmib.backbone", "mmib.modules"),
        ("mmib.modules", "mmib.callbacks.monitor"),
        ("mmib.modules", "mmib.datamodules.base"),
        ("mmib.callbacks.monitor", "mmib.training.summary"),
        ("mmib.datamodules.base", "mmib.metrics"),
        ("mmib.datamodules.base", "mmib.base.distributed"),
        ("mmib.datamodules.base", "mmib.cli"),
        ("mmib.cli", "experiments.sweeps"),
    ],
)
def test_the_rule_catches_imports_in_the_wrong_direction(importer: str, imported: str) -> None:
    assert violation(importer, imported)


def test_imports_inside_functions_and_of_submodules_are_seen(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("from mmib import cli\ndef run():\n    import mmib.nn.attention\n")
    assert imports(tmp_path / "module.py") == {"mmib.cli", "mmib.nn.attention"}


def test_setup_cfg_names_every_package_folder() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    folders = {
        ".".join([package, *path.parent.relative_to(folder).parts])
        for package, folder in SOURCES.items()
        for path in folder.rglob("*.py")
    }
    assert named == folders | {"lightning_configs"}


def test_no_device_is_hard_coded() -> None:
    """Defect 26: `.cuda()` throughout."""
    for module, path in modules():
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        assert "cuda" not in names, f"{module} moves tensors to a device of its own choice"


def test_tests_mirror_the_source() -> None:
    """Each module of the network has its test file at the same place."""
    for module, path in modules():
        if module.startswith("mmib.") and path.name != "__init__.py" and LEVELS[part_of(module)] < TOP - 1:
            mirrored = ROOT / "tests" / "mmib" / path.relative_to(SOURCES["mmib"]).with_name(f"test_{path.name}")
            assert mirrored.is_file() or module == "mmib.nn.precision", f"{mirrored} is missing"
