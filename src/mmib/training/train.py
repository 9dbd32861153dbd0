"""Training as a function call, equivalent to `mmib fit`, for scripts, notebooks and tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmib.base.workers import end_if_importing_main
from mmib.configs import expand_configs
from mmib.plugins import import_plugins, trainer_plugins
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
        config: name of a shipped experiment, path of a YAML file, or the content of such a file.
        overrides: settings by dotted name, as on the command line: `{"model.gamma": 0}`.

    Returns:
        The scores, including those of the test split if there is one, and the run's folder. Only the first rank has
        scores.

    Raises:
        MMIBError: If the configuration or the data is invalid, or training fails.
        SystemExit: If a worker process imports the script that calls this.
    """
    end_if_importing_main()
    with tempfile.TemporaryDirectory() as folder:
        path = str(config)
        if isinstance(config, Mapping):
            path = str(Path(folder) / "config.yaml")
            Path(path).write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        options = [f"--{name}={_written(value)}" for name, value in (overrides or {}).items()]
        plugins, arguments = trainer_plugins(expand_configs(["fit", "--config", path, *options]))
        import_plugins(plugins)
        command = execute(arguments)
    summary = command.summary or {}
    found = {split: summary.get(split) or {} for split in SPLITS}
    scores = {f"{split}/{name}": value for split in SPLITS for name, value in found[split].items()}
    return Scores({name: value for name, value in scores.items() if isinstance(value, float)}, command.run_folder)


def _written(value: Any) -> str:
    """Format a value for the command line: strings unchanged, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
