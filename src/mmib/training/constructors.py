"""Parameters of the classes that a configuration names."""

from __future__ import annotations

import inspect
import sys
from typing import Any


def named_class(path: str) -> Any:
    """Return the object of a dotted path; None if it has not been imported."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def parameters_of(path: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class, followed by those of its bases, without `*args` and `**kwargs`."""
    built = named_class(path)
    found: dict[str, inspect.Parameter] = {}
    for one in inspect.getmro(built) if isinstance(built, type) else [built]:
        try:
            parameters = inspect.signature(one).parameters
        except (TypeError, ValueError):  # some built-in classes have no signature
            continue
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found |= {name: each for name, each in parameters.items() if name not in found and each.kind in named}
    return found
