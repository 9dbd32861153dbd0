"""Parameters without a type annotation, of which the parser does not say that they are missing."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import typing
from collections.abc import Collection, Mapping
from typing import Any

from mmib.schema import ConfigError


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
    parameters = _parameters(path)
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


def _class(path: str) -> Any:
    """What a dotted path names; the parser has imported it."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _parameters(path: str) -> dict[str, inspect.Parameter]:
    """The parameters of a class and, behind its own, of those that it inherits from."""
    built = _class(path)
    found: dict[str, inspect.Parameter] = {}
    for one in inspect.getmro(built) if isinstance(built, type) else [built]:
        try:
            own = inspect.signature(one).parameters
        except (TypeError, ValueError):  # not every built-in class tells
            continue
        found |= {name: parameter for name, parameter in own.items() if name not in found}
    return found


def _given_by(path: str, name: str, value: Any) -> Collection[str]:
    """The first parameters of a class named by `value`, where another class calls it with arguments for them."""
    try:
        hint = typing.get_type_hints(_class(path).__init__).get(name)
    except (AttributeError, NameError, TypeError):
        return ()
    for one in (hint, *typing.get_args(hint)):
        arguments = typing.get_args(one)[0] if typing.get_origin(one) is collections.abc.Callable else None
        if isinstance(arguments, list) and isinstance(value, Mapping):
            return list(_parameters(value.get("class_path", "")))[: len(arguments)]
    return ()
