"""What the classes that a configuration names are built from."""

from __future__ import annotations

import inspect
import sys
from typing import Any


def named_class(path: str) -> Any:
    """What a dotted path names; None where nothing was imported under it."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def parameters_of(path: str) -> dict[str, inspect.Parameter]:
    """The parameters of a class and, behind them, of those that it inherits from, without `*args` and `**kwargs`."""
    built = named_class(path)
    found: dict[str, inspect.Parameter] = {}
    for one in inspect.getmro(built) if isinstance(built, type) else [built]:
        try:
            parameters = inspect.signature(one).parameters
        except (TypeError, ValueError):  # not every built-in class tells
            continue
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found |= {name: each for name, each in parameters.items() if name not in found and each.kind in named}
    return found
