"""Plugins: user modules that register tasks, or define classes that a configuration names."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmib.base.files import read_yaml
from mmib.schema import ConfigError, MMIBError, PluginError, Task, TaskError, task_named, task_names

PLUGIN_OPTION = "--plugin"


def import_plugins(names: Sequence[str]) -> None:
    """Import modules, searching the installed ones first and then the working directory.

    Args:
        names: module names, such as `relevance` or `package.module`.

    Raises:
        PluginError: If a module is missing or fails to import.
        MMIBError: If a module raises one itself, such as `TaskError` for a task name that is taken.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        _import(name, folder)


def trainer_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the plugins of a trainer command, and its arguments with these as the configuration's `plugins`.

    Args:
        arguments: arguments with any number of `--plugin MODULE`, and with expanded `--config FILE`, each of which may
            set `plugins: [MODULE, …]`.

    Raises:
        ConfigError: If `plugins` of a file is no list of names.
    """
    plugins: list[str] = []
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == PLUGIN_OPTION:
            plugins.append(value if equals else next(rest, ""))
            continue
        kept.append(argument)
        if name == "--config" and not equals:
            kept.append(next(rest, ""))
            plugins += _listed(Path(kept[-1]))
    names = list(dict.fromkeys(plugins))
    return names, [*kept, f"--plugins={json.dumps(names)}"] if names else kept


def _listed(path: Path) -> list[str]:
    content = read_yaml(path) or {}
    names = content.get("plugins") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: 'plugins' is {names!r}: give a list of modules, such as [relevance]")
    return names


def task_of(name: str, source: Path, plugins: Iterable[str]) -> Task:
    """Return the task of a run or an export, without importing its plugins.

    Args:
        name: name of the task.
        source: the run or the export, for the message.
        plugins: the plugins recorded in it, for the message.

    Raises:
        TaskError: If no module has registered the task.
    """
    if name in task_names():
        return task_named(name)
    options = " ".join(f"--plugin {plugin}" for plugin in plugins) or "--plugin MODULE, the module that registers it"
    raise TaskError(
        f"{source} was made by the task {name!r}, which is not among {', '.join(task_names())}: add {options}, or in "
        "Python import that module first"
    )


def _import(name: str, folder: str) -> None:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        stem = Path(name).stem
        example = stem if stem.isidentifier() else "package.module"
        raise PluginError(f"the plugin {name!r} is not a module name: give the name to import, such as {example}")
    try:
        importlib.import_module(name)
    except MMIBError:
        raise
    # User code may raise anything, and may also exit.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise PluginError(
                f"the plugin {name!r} was not found: install it, or start mmib in the folder that contains it, not in "
                f"{folder}"
            ) from error
        text = " ".join(str(error).split())
        raise PluginError(
            f"the plugin {name!r} fails when it is imported ({type(error).__name__}: {text}): correct it, or "
            "leave it out"
        ) from error
