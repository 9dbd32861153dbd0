"""Parameters without a type annotation, of which the parser does not say that they are missing."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Collection, Mapping
from typing import Any

from mmib.schema import ConfigError
from mmib.training.constructors import named_class, parameters_of


def check_untyped(value: Any, key: str, given: Collection[str] = ()) -> None:
    """Refuse what the parser lets pass of the classes in a configuration, since a parameter has no annotation.

    jsonargparse takes such a parameter for one that may be None, and does not build a class that is named for it.

    Args:
        value: a parsed configuration, or any value in it; classes are named by `class_path` and `init_args`.
        key: where it stands, for the message.
        given: parameters of the class at its top that get their values from elsewhere.

    Raises:
        ConfigError: with the class and its parameter.
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
    """The first parameters of a class named by `value`, where another class calls it with arguments for them."""
    try:
        hint = typing.get_type_hints(named_class(path).__init__).get(name)
    except (AttributeError, NameError, TypeError):
        return ()
    for one in (hint, *typing.get_args(hint)):
        arguments = typing.get_args(one)[0] if typing.get_origin(one) is collections.abc.Callable else None
        if isinstance(arguments, list) and isinstance(value, Mapping):
            return list(parameters_of(value.get("class_path", "")))[: len(arguments)]
    return ()
