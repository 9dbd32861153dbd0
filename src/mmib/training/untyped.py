"""Checks of parameters without a type annotation, which the parser does not report as missing."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Collection, Mapping
from typing import Any

from mmib.schema import ConfigError
from mmib.training.constructors import named_class, parameters_of


def check_untyped(value: Any, key: str, given: Collection[str] = ()) -> None:
    """Check arguments of configured classes whose parameters have no annotation.

    jsonargparse allows None for such a parameter, and does not build a class that is named for it.

    Args:
        value: a parsed configuration, or any value in it; classes are given by `class_path` and `init_args`.
        key: dotted name of the value, for the message.
        given: parameters of the top class that get their values from elsewhere.

    Raises:
        ConfigError: If such a parameter is missing, or names a class; the message names the class and the parameter.
    """
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    path = value.get("class_path")
    if not isinstance(path, str):
        for name, item in value.items():
            check_untyped(item, f"{key}.{name}")
        return
    parameters = parameters_of(path)
    for name, item in (value.get("init_args") or {}).items():
        parameter = parameters.get(name)
        if parameter is not None and parameter.annotation is parameter.empty:
            if item is None and parameter.default is parameter.empty and name not in given:
                raise ConfigError(
                    f"{key}.{name} is missing: {path} takes {name!r} without a default; give it a value, and in "
                    f"__init__ a type annotation, as in `{name}: str`"
                )
            if isinstance(item, Mapping) and "class_path" in item:
                raise ConfigError(
                    f"{key}.{name} cannot be built: {path} takes {name!r} without a type annotation; write in __init__ "
                    f"which class it is, as in `{name}: {item['class_path'].rpartition('.')[2]}`"
                )
        check_untyped(item, f"{key}.{name}", _given_by(path, name, item))


def _given_by(path: str, name: str, value: Any) -> Collection[str]:
    """Return the first parameters of a class named by `value`, for which the class that builds it passes arguments."""
    try:
        hint = typing.get_type_hints(named_class(path).__init__).get(name)
    except (AttributeError, NameError, TypeError):
        return ()
    for one in (hint, *typing.get_args(hint)):
        arguments = typing.get_args(one)[0] if typing.get_origin(one) is collections.abc.Callable else None
        if isinstance(arguments, list) and isinstance(value, Mapping):
            return list(parameters_of(value.get("class_path", "")))[: len(arguments)]
    return ()
