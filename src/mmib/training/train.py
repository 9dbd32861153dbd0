"""Training as a function call, equivalent to `mmib fit`, for scripts, notebooks and tests."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmib.base.files import is_file
from mmib.base.workers import end_if_importing_main
from mmib.configs import expand_configs
from mmib.plugins import import_plugins, trainer_plugins
from mmib.schema import ConfigError
from mmib.training.cli import execute

SPLITS = ("val", "test")


class Scores(dict[str, float]):
    """The scores of a run as fractions, by `val/<score>` and `test/<score>`.

    Attributes:
        folder: the run's folder, with its checkpoints, predictions and summary; see `mmib.Extractor.from_pretrained`.
    """

    def __init__(self, scores: Mapping[str, float], folder: Path) -> None:
        super().__init__(scores)
        self.folder = folder


def train(config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Scores:
    """Train, select a checkpoint on validation, and score it; files are written as by `mmib fit`.

    Args:
        config: name of a shipped experiment, path of a YAML file, or the content of such a file, in which files that
            are listed under `include` are looked for in the working directory first.
        overrides: settings by dotted name, as on the command line: `{"model.gamma": 0}`.
            In both, paths and NumPy values are converted.

    Returns:
        The scores, including those of the test split if there is one, and the run's folder. Only the first rank has
        scores.

    Raises:
        MMIBError: If the configuration or the data is invalid, a value cannot be written in YAML, or training fails.
        SystemExit: If a worker process imports the script that calls this.
    """
    end_if_importing_main()
    content, settings = _plain(config, "config"), _plain(overrides or {}, "overrides")
    if not isinstance(content, str | dict):
        raise ConfigError(f"config is {content!r}: give the name of an experiment, a path, or the content of a file")
    call = f"mmib.train({content!r}{f', {settings!r}' if settings else ''})"
    with tempfile.TemporaryDirectory() as folder:
        path = str(config)
        if isinstance(content, dict):
            path = str(Path(folder) / "config.yaml")
            Path(path).write_text(yaml.safe_dump(_with_absolute_includes(content)), encoding="utf-8")
        options = [f"--{name}={_written(value)}" for name, value in settings.items()]
        plugins, arguments = trainer_plugins(expand_configs(["fit", "--config", path, *options]))
        import_plugins(plugins)
        command = execute(arguments, called_as=call)
    summary = command.summary or {}
    found = {split: summary.get(split) or {} for split in SPLITS}
    scores = {f"{split}/{name}": value for split in SPLITS for name, value in found[split].items()}
    return Scores({name: value for name, value in scores.items() if isinstance(value, float)}, command.run_folder)


def _written(value: Any) -> str:
    """Format a value for the command line: strings unchanged, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any, name: str) -> Any:
    """Return a setting, or a collection of settings, as YAML has it.

    Raises:
        ConfigError: If it is of another type.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {
            _plain(key, f"the key {key!r} of {name}"): _plain(item, f"{name}[{key!r}]") for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)  # a subclass, such as an enumeration, has no form in YAML
    raise ConfigError(
        f"{name} is {value!r}, of type {type(value).__name__}: a setting is a text, number, switch, path or None, or a "
        "list or dictionary of these; a class is named with class_path and init_args"
    )


def _with_absolute_includes(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose included files of the working directory are named by their whole paths."""
    names = config.get("include")
    if not isinstance(names, list):
        return config
    return {**config, "include": [str(Path(name).resolve()) if is_file(Path(str(name))) else name for name in names]}
