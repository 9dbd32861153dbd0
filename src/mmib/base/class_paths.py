"""Class paths of earlier versions in configurations, and their names of today."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

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
CLASS_PATH = re.compile(r"[\w.]+")
# Where a launcher sets the rank of a process: only the first one prints.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def current_class_paths(content: Any, source: Path | str) -> Any:
    """What a configuration file or a command line holds, with the class paths of today.

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
    """A text, such as that of a configuration file, in which class paths are those of today."""
    return CLASS_PATH.sub(lambda found: RENAMED.get(found[0], found[0]), text)


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
    if any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        return
    read = ", ".join(f"{name} is read as {RENAMED[name]}" for name in old)
    names = "its name" if len(old) == 1 else "their names"
    print(f"mmib: {source}: {read}, {names} since version 0.2", file=sys.stderr)  # noqa: T201
