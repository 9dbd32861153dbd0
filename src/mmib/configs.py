"""Finds configuration files: shipped experiments by name, the files that they include, and that of a run."""

from __future__ import annotations

import ast
import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from mmib.base.class_paths import current_class_paths, in_current_betas, in_current_class_paths
from mmib.base.files import is_file, read_yaml
from mmib.base.wording import did_you_mean
from mmib.schema import ConfigError

CONFIG_OPTIONS = ("--config", "-c")
RUN_OPTION = "--run"
CLASSES = ("model", "data")
LABELS = "labels"
OPTION = re.compile(r"--[a-z][\w.]*\+?")
NULLS = ("null", "~")
HOLDS_NULL = re.compile(r"\b(null|None)\b|~")
TOP_LEVEL = (
    *("include", "plugins", "name", "runs", "run", "wandb", "evaluate", "seed_everything", "trainer", "model", "data"),
    *("ckpt_path", "weights_only", "verbose", "return_predictions", "optimizer", "lr_scheduler"),
)


def shipped_experiments() -> list[Path]:
    """Return the experiment files of the installed package."""
    return sorted(_config_root().joinpath("experiment").glob("*.yaml"))


def expand_configs(arguments: list[str]) -> list[str]:
    """Replace each `--config EXPERIMENT` by the files that it includes, in order, followed by the experiment itself.

    An experiment file may list others under `include`, relative to `lightning_configs/` or to itself, and then holds
    only its differences from them. Later files override earlier ones. Class names of earlier versions are replaced by
    the current ones, in the arguments as well as in a file, which is replaced by a corrected copy.

    Raises:
        ConfigError: If a file is missing, is no YAML mapping, has an unknown top-level key, or includes itself.
    """
    expanded: list[str] = []
    files: list[Path] = []
    rest = iter(with_run_config(current_class_paths(arguments, "the command line")))
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in CONFIG_OPTIONS:
            expanded.append(argument)
            continue
        value = value or next(rest, "")
        for path in _with_includes(_resolve(value, Path()), ()):
            files.append(path)
            expanded += ["--config", str(path)]
    return [*expanded[:1], *_classes_first(files), *with_nulls(expanded[1:])]


def with_nulls(options: Iterable[str]) -> list[str]:
    """Rewrite options so that the parser reads their nulls as such, at any depth.

    W&B's agents write null as `None`. jsonargparse also writes null as `None` when it passes an option below a class on
    to that class's parser, which reads it as a string; such an option is rewritten to set a mapping.
    """
    result: list[str] = []
    for option in options:
        if result and OPTION.fullmatch(result[-1]) and HOLDS_NULL.search(option) and not option.startswith("--"):
            result.append(_with_null(result.pop(), option))
        elif (parts := option.partition("="))[1] and OPTION.fullmatch(parts[0]) and HOLDS_NULL.search(parts[2]):
            result.append(_with_null(parts[0], parts[2]))
        else:
            result.append(option)
    return result


def _with_null(name: str, value: str) -> str:
    """Format an option whose value is null, or a mapping or list that contains null."""
    keys = name.removeprefix("--").split(".")
    if LABELS not in keys:  # None is a relation of MNRE
        value = _in_json(value)
    if value not in NULLS and not value.startswith(("{", "[")):
        return f"{name}={value}"
    if keys[0] not in CLASSES or len(keys) == 1:
        return f"{name}={value}"
    first, *rest = keys
    return f"--{first}={''.join(f'{{{key}: ' for key in rest)}{value}{'}' * len(rest)}"


def _in_json(value: str) -> str:
    """Convert a Python literal to JSON; return anything else unchanged."""
    try:
        return json.dumps(ast.literal_eval(value))
    except (ValueError, SyntaxError, TypeError):
        return value


def _classes_first(files: list[Path]) -> list[str]:
    """Return options that name classes first, at any depth, if files set arguments of a class before naming it.

    The parser cannot accept arguments of a class that it does not know yet.
    """
    contents = [_load(path) for path in files]
    trainers = _mappings(content.get("trainer") for content in contents)
    found = {key: _class_paths([content.get(key) for content in contents]) for key in CLASSES}
    for key in _keys(trainers):
        found[f"trainer.{key}"] = _class_paths([trainer.get(key) for trainer in trainers])
    return [f"--{key}={json.dumps(classes)}" for key, classes in found.items() if classes]


def _class_paths(parts: Iterable[object]) -> dict[str, object]:
    """Reduce the values of a setting in several files, in order, to class paths; empty if none comes too late."""
    mappings = _mappings(parts)
    named = [part["class_path"] for part in mappings if isinstance(part.get("class_path"), str)]
    arguments = _mappings(part.get("init_args") for part in mappings)
    below = {key: classes for key in _keys(arguments) if (classes := _class_paths(part.get(key) for part in arguments))}
    if not below and (not named or "class_path" in mappings[0]):
        return {}
    return {**({"class_path": named[0]} if named else {}), **({"init_args": below} if below else {})}


def _mappings(parts: Iterable[object]) -> list[dict[str, object]]:
    return [part for part in parts if isinstance(part, dict)]


def _keys(mappings: Iterable[dict[str, object]]) -> list[str]:
    """Return the distinct keys of all mappings, in order."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def with_run_config(arguments: list[str]) -> list[str]:
    """Insert the configuration of the run named by `--run`, unless another configuration is given.

    Raises:
        ConfigError: If the run does not exist.
    """
    for number, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == RUN_OPTION:
            run = Path(value or "".join(arguments[number + 1 : number + 2]))
            config = run / "config.yaml"
            if not config.is_file():
                raise ConfigError(f"there is no run {run}: its config.yaml is missing")
            if any(option.partition("=")[0] in CONFIG_OPTIONS for option in arguments):
                return arguments
            return [*arguments[:1], "--config", str(config), *arguments[1:]]
    return arguments


def _with_includes(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path in above:
        raise ConfigError(f"{path} includes itself, by way of {' -> '.join(str(p) for p in above)}")
    included = _load(path).get("include") or []
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ConfigError(f"{path}: 'include' must be a list of configuration files")
    files = [file for name in included for file in _with_includes(_resolve(name, path.parent), (*above, path))]
    return [*files, _current(path)]


def _current(path: Path) -> Path:
    """Return a configuration file, or a corrected copy if it uses class names of earlier versions."""
    content = _load(path)
    if current_class_paths(content, path) == content:
        return path
    return _copy(path, in_current_class_paths(path.read_text(encoding="utf-8")))


@cache
def _copy(path: Path, text: str) -> Path:
    """Write the text, converted to current units, to a temporary file of the same name, deleted at exit."""
    folder = Path(tempfile.mkdtemp(prefix="mmib-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / path.name
    copy.write_text(in_current_betas(text, _load(path), path), encoding="utf-8")
    return copy


def _load(path: Path) -> dict[str, object]:
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}: a configuration is a mapping")
    for key in content:
        if key not in TOP_LEVEL:
            choice = ", ".join(sorted(TOP_LEVEL))
            raise ConfigError(f"{path}: the top-level key {key!r} is unknown: choose from {choice}")
    return content


def _resolve(name: str, folder: Path) -> Path:
    """Find the file for a name on the command line, or in the include list of a file in `folder`."""
    root = _config_root()
    for candidate in (folder / name, root / name, root / "experiment" / f"{name}.yaml"):
        if name and is_file(candidate):
            return candidate.resolve()
    shipped = [path.stem for path in shipped_experiments()]
    choices = f"give a path, or one of the experiments {', '.join(shipped)}"
    advice = did_you_mean(name, shipped).removeprefix(": ") or choices
    raise ConfigError(f"there is no configuration file {name!r}: {advice}")


def _config_root() -> Path:
    return Path(str(resources.files("mmib.lightning_configs")))
