"""Training as a function call: what `mmib fit` does, for scripts, notebooks and tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmib.configs import expand_configs
from mmib.plugins import import_plugins, trainer_plugins
from mmib.training.cli import execute

SPLITS = ("val", "test")


def train(config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Train, select on validation, and score the selected checkpoint; everything is written as `mmib fit` writes it.

    Args:
        config: a shipped experiment by name, the path of a YAML file, or what such a file holds.
        overrides: settings by their dotted names, as on the command line: `{"model.gamma": 0}`.

    Returns:
        The scores as fractions, by `val/<score>` and, where there is a test split, `test/<score>`; empty on all
        ranks but the first.

    Raises:
        MMIBError: what is wrong with the configuration, the data, or what happened while it ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = str(config)
        if isinstance(config, Mapping):
            path = str(Path(folder) / "config.yaml")
            Path(path).write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        options = [f"--{name}={_written(value)}" for name, value in (overrides or {}).items()]
        plugins, arguments = trainer_plugins(expand_configs(["fit", "--config", path, *options]))
        import_plugins(plugins)
        summary = execute(arguments).summary or {}
    scores = {split: summary.get(split) or {} for split in SPLITS}
    return {
        f"{split}/{name}": value
        for split, found in scores.items()
        for name, value in found.items()
        if isinstance(value, float)
    }


def _written(value: Any) -> str:
    """As on the command line: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
