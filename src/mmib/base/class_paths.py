"""Converts configurations of version 0.1 to current class paths, and betas to the current unit."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mmib.schema import ConfigError

# Classes that a configuration of version 0.1 could name and that moved in version 0.2.
RENAMED = {
    "mmib.latents.LatentSpace": "mmib.callbacks.LatentSpace",
    **{
        f"datamodules.{name}": f"mmib.datamodules.{name}"
        for name in (
            "demo.DemoSettings",
            "demo.module.DemoMNERDataModule",
            "demo.module.DemoMREDataModule",
            "demo.settings.DemoSettings",
            "mnre.MNREDataModule",
            "twitter.TwitterDataModule",
        )
    },
}
# Latent widths, which are those of the text encoders.
PACKAGED_WIDTHS = {"pip:minilm-l6": 384}
BETA = re.compile(r"\b(beta_(?:text|image))(['\"]?:\s*)([\d.+-]+(?:[eE][+-]?\d+)?)")
CLASS_PATH = re.compile(r"[\w.]+")
# Variables in which launchers set the rank of a process; only the first rank prints.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def current_class_paths(content: Any, source: Path | str) -> Any:
    """Replace old class paths in the content of a configuration file or a command line.

    Replacements are listed in a line on standard error, once per process and source, on the first rank.

    Args:
        content: mappings and lists, of any depth.
        source: name of the source in that line, such as the file.
    """
    old = sorted(set(_renamed(content)))
    if not old:
        return content
    _report(source, tuple(old))
    return _translated(content)


def in_current_class_paths(text: str) -> str:
    """Replace old class paths in a text, such as that of a configuration file."""
    return CLASS_PATH.sub(lambda found: RENAMED.get(found[0], found[0]), text)


def in_current_betas(text: str, content: dict[str, Any], source: Path | str) -> str:
    """Divide the betas in the text of a version 0.1 configuration by the latent width.

    In version 0.1 they weighed the KL averaged over latent dimensions; now they weigh its sum. The changes are listed
    in a line on standard error, on the first rank.

    Args:
        text: the text of the configuration.
        content: the content of the text.
        source: name of the source in that line, such as the file.

    Raises:
        ConfigError: If the width of its text encoder is unknown.
    """
    if not any(float(value) for _, _, value in BETA.findall(text)):
        return text
    width = _latent_width(content)
    if width is None:
        raise ConfigError(
            f"{source} was written for version 0.1, where beta_text and beta_image weighed the KL averaged over latent "
            "dimensions; since version 0.2 they weigh its sum. Divide them by the width of the text encoder, which is "
            "not known here, and replace the class paths that are named above"
        )
    betas = {name: float(value) for name, _, value in BETA.findall(text)}
    changes = ", ".join(f"{name} {value:g} is read as {value / width:.3g}" for name, value in betas.items())
    _say(f"{source}: {changes}: since version 0.2 betas weigh the KL summed over the {width} latent dimensions")
    return BETA.sub(lambda found: f"{found[1]}{found[2]}{float(found[3]) / width!r}", text)


def _latent_width(content: Any) -> int | None:
    """Return the width of a configuration's text encoder; None if it names none, or one that is not available here."""
    name: Any = content
    for key in ("model", "init_args", "backbone", "init_args", "text_encoder", "init_args", "name"):
        name = name.get(key) if isinstance(name, dict) else None
    if not isinstance(name, str):
        return None
    if name in PACKAGED_WIDTHS:
        return PACKAGED_WIDTHS[name]
    try:
        found = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        return int(found["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _renamed(content: Any) -> list[str]:
    """Return the old class paths in a configuration."""
    if isinstance(content, dict):
        return [name for value in content.values() for name in _renamed(value)]
    if isinstance(content, list):
        return [name for value in content for name in _renamed(value)]
    return [name for name in CLASS_PATH.findall(content) if name in RENAMED] if isinstance(content, str) else []


def _translated(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _translated(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_translated(value) for value in content]
    return in_current_class_paths(content) if isinstance(content, str) else content


@cache
def _report(source: Path | str, old: tuple[str, ...]) -> None:
    read = ", ".join(f"{name} is read as {RENAMED[name]}" for name in old)
    names = "its name" if len(old) == 1 else "their names"
    _say(f"{source}: {read}, {names} since version 0.2")


def _say(line: str) -> None:
    if not any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        print(f"mmib: {line}", file=sys.stderr)  # noqa: T201
