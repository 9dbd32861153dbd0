"""Plugins: modules of a user that register tasks, or hold classes that a configuration names."""

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
    """Import modules, looked for among installed ones first and then in the working directory.

    Args:
        names: as Python imports them, such as `relevance` or `package.module`.

    Raises:
        PluginError: a module is not there, or fails when it is imported.
        MMIBError: what a module raises itself, such as `TaskError` where its task has the name of another.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        _import(name, folder)


def trainer_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The plugins that a trainer command asks for, and its arguments with these as the configuration's `plugins`.

    Args:
        arguments: with `--plugin MODULE`, as often as wanted, and expanded `--config FILE`, each of which may hold
            `plugins: [MODULE, …]`.

    Raises:
        ConfigError: `plugins` of a file is no list of names.
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
    """The task that a run or an export was made by; nothing that it names is imported.

    Args:
        name: name of the task.
        source: the run or the export, for the message.
        plugins: what it says that the task was registered by, for the message.

    Raises:
        TaskError: no module registered the task.
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
        raise PluginError(f"the plugin {name!r} is no name of a module: name it as Python imports it, as in {example}")
    try:
        importlib.import_module(name)
    except MMIBError:
        raise
    # Whatever the user's code raises; a module may also end the program.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise PluginError(
                f"the plugin {name!r} is not there: install it, or start mmib in the folder that holds it instead of "
                f"{folder}"
            ) from error
        text = " ".join(str(error).split())
        raise PluginError(
            f"the plugin {name!r} fails when it is imported ({type(error).__name__}: {text}): correct it, or "
            "leave it out"
        ) from error
