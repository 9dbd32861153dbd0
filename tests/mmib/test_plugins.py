"""Plugins: found in the working directory, imported once, and refused in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmib import schema
from mmib.base.argument_parser import CommandParser
from mmib.plugins import import_plugins, task_of, trainer_plugins
from mmib.schema import ConfigError, PluginError, TaskError

TASK = """
from mmib.schema import register_task
from mmib.tasks.mre import RelationExtraction

class {name}(RelationExtraction):
    name = "plugged"

register_task({name}())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; modules imported from it are removed after the test."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(schema, "_TASKS", dict(schema._TASKS))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_plugin"):
            del sys.modules[name]


def test_a_module_of_the_working_directory_registers_its_task(folder: Path) -> None:
    (folder / "first_plugin.py").write_text(TASK.format(name="Plugged"))
    with pytest.raises(TaskError, match="not among"):
        task_of("plugged", Path("runs/x"), ["first_plugin"])
    import_plugins(["first_plugin"])
    task = task_of("plugged", Path("runs/x"), [])
    assert type(task).__module__ == "first_plugin"
    import_plugins(["first_plugin"])
    assert task_of("plugged", Path("runs/x"), []) is task


def test_installed_modules_take_precedence_over_those_of_the_working_directory(folder: Path) -> None:
    (folder / "json.py").write_text("raise SystemExit('shadowed')")
    import_plugins(["json"])
    assert sys.path[-1] == str(folder)


def test_without_plugins_nothing_is_imported_from_the_working_directory(folder: Path) -> None:
    import_plugins([])
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere_plugin", None, "'nowhere_plugin' was not found: install it, or start mmib in the folder"),
        ("nowhere_package.module", None, "was not found"),
        ("typo_plugin", "import nowhere_either", r"fails when it is imported \(ModuleNotFoundError: No module named"),
        ("broken_plugin", "def (", r"fails when it is imported \(SyntaxError: "),
        ("leaving_plugin", "raise SystemExit('bye')", r"\(SystemExit: bye\)"),
        ("lines_plugin", "raise ValueError('a\\nb')", r"\(ValueError: a b\)"),
        ("script_plugin.py", "raise SystemExit", "give the name to import, such as script_plugin"),
        ("./folder/other_plugin", None, "such as other_plugin"),
        ("", None, "such as package.module"),
    ],
)
def test_an_import_failure_is_a_one_sentence_error(folder: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (folder / f"{name.removesuffix('.py')}.py").write_text(content)
    with pytest.raises(PluginError, match=message) as error:
        import_plugins([name])
    assert "\n" not in str(error.value)


def test_two_plugins_with_the_same_task_name_are_refused(folder: Path) -> None:
    (folder / "one_plugin.py").write_text(TASK.format(name="One"))
    (folder / "two_plugin.py").write_text(TASK.format(name="Two"))
    with pytest.raises(TaskError, match=r"one_plugin\.One and two_plugin\.Two"):
        import_plugins(["one_plugin", "two_plugin"])


def test_an_unregistered_task_names_the_plugin_to_add(folder: Path) -> None:
    (folder / "trap_plugin.py").write_text("raise SystemExit('imported')")
    with pytest.raises(TaskError, match=r"runs/x was made by the task 'plugged', .* --plugin trap_plugin --plugin b,"):
        task_of("plugged", Path("runs/x"), ["trap_plugin", "b"])
    with pytest.raises(TaskError, match="--plugin MODULE, the module that registers it"):
        task_of("plugged", Path("runs/x"), [])


def test_every_command_imports_its_plugins(folder: Path) -> None:
    for name in ("one_plugin", "two_plugin"):
        (folder / f"{name}.py").write_text("")
    parser = CommandParser(prog="mmib thing")
    assert vars(parser.parse_args([])) == {}
    assert not {"one_plugin", "two_plugin"} & sys.modules.keys()
    assert vars(parser.parse_args(["--plugin", "one_plugin", "--plugin", "two_plugin"])) == {}
    assert {"one_plugin", "two_plugin"} <= sys.modules.keys()
    with pytest.raises(ConfigError, match="--plugin: expected one argument"):
        parser.parse_args(["--plugin"])


def test_plugins_of_configurations_and_command_line_are_merged(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("plugins: [one, two]\n")
    arguments = ["fit", "--config", str(tmp_path / "a.yaml"), "--plugin", "three", "--plugin=one", "--name", "x"]
    plugins, kept = trainer_plugins(arguments)
    assert plugins == ["one", "two", "three"]
    assert kept == ["fit", "--config", str(tmp_path / "a.yaml"), "--name", "x", '--plugins=["one", "two", "three"]']
    assert trainer_plugins(["fit", "--name", "x"]) == ([], ["fit", "--name", "x"])
    (tmp_path / "a.yaml").write_text("plugins: relevance\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: 'plugins' is 'relevance': give a list"):
        trainer_plugins(arguments)
