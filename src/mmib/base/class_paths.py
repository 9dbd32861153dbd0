"""Configurations of version 0.1 with current class paths, and betas in the current unit."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mmib.schema import ConfigError

# Classes that a configuration of version 0.1 could name, and that moved in version 0.2.
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
# The latent width is the text encoder's.
PACKAGED_WIDTHS = {"pip:minilm-l6": 384}
BETA = re.compile(r"\b(beta_(?:text|image))(['\"]?:\s*)([\d.+-]+(?:[eE][+-]?\d+)?)")
CLASS_PATH = re.compile(r"[\w.]+")
# Where a launcher sets the rank of a process: only the first one prints.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def current_class_paths(content: Any, source: Path | str) -> Any:
    """What a configuration file or a command line holds, with current class paths.

    Where it has others, one line on standard error lists them: once a process for each source, on the first rank.

    Args:
        content: mappings and lists, of any depth.
        source: what the line names, such as the file.
    """
    old = sorted(set(_renamed(content)))
    if not old:
        return content
    _report(source, tuple(old))
    return _translated(content)


def in_current_class_paths(text: str) -> str:
    """A text, such as that of a configuration file, in which class paths are current."""
    return CLASS_PATH.sub(lambda found: RENAMED.get(found[0], found[0]), text)


def in_current_betas(text: str, content: dict[str, Any], source: Path | str) -> str:
    """The text of a version 0.1 configuration with its betas divided by the latent width.

    They weighed the KL averaged over latent dimensions there, and weigh its sum now. One line on standard error lists
    them, as in `current_class_paths`.

    Args:
        text: of the configuration.
        content: what the text holds.
        source: what the line names, such as the file.

    Raises:
        ConfigError: the width of its text encoder is not known.
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
    """The width of the text encoder that a configuration names; None where it names none, or one that is not here."""
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
    """The class paths of earlier versions in a configuration."""
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
