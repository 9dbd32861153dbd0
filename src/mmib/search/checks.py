"""Checks shared by study files and sweep files: YAML mappings, known keys, and numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmib.base.files import read_yaml
from mmib.schema import ConfigError


def read_mapping(path: Path, title: str, form: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: the file.
        title: expected type of the file for messages, such as "study file".
        form: description of the required content for messages.

    Raises:
        ConfigError: the file is missing, is not valid YAML, or does not hold a mapping.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {title} {path}: check its name and the folder you are in") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no {title}: it must hold {form}")
    return content


def check_keys(content: Mapping[str, Any], known: Iterable[str], here: str) -> None:
    """Check that all keys are known.

    Raises:
        ConfigError: a key is unknown.
    """
    for key in content:
        if key not in (choices := tuple(known)):
            raise ConfigError(f"{here} has the unknown key {key!r}: choose from {', '.join(choices)}")


def read_number(content: Mapping[str, Any], key: str, here: str, default: float | None = None) -> float:
    """Return the finite number under a key.

    Raises:
        ConfigError: the value is not a finite number, or is missing and has no default.
    """
    value = content.get(key, default)
    if isinstance(value, str):
        raise ConfigError(f"{here}: its {key!r} is the text {value!r}; YAML reads 1e-5 as text and 1.0e-5 as a number")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ConfigError(f"{here}: its {key!r} must be a number, not {value!r}")
    return value
