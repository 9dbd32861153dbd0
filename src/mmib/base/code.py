"""The code of custom classes, as part of the keys of cached results: edited code does not find its earlier results."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Packages whose versions are not part of a key: mmib's own code is covered where it matters.
COVERED = {__name__.partition(".")[0], *sys.stdlib_module_names}
INSTALLED = {"site-packages", "dist-packages"}
# Attributes with the functions of methods, properties, cached properties and decorated functions.
WRAPPED = ("__func__", "fget", "fset", "func", "__wrapped__")
CONSTANTS = (str, bytes, int, float, bool, type(None), tuple, list, dict, set, frozenset, re.Pattern)


def custom_code(kind: type, base: type = object) -> str:
    """SHA-256 of the code outside mmib of a class and of its base classes below `base`; empty for `base` itself.

    It covers the files of their modules, and of the loaded modules that these import, but no other installed packages.
    A module without a file, such as a notebook, is covered by the compiled code of the classes, and of the functions,
    classes and constants of the module that they use.
    """
    if kind is base:
        return ""
    pending: list[Any] = [each for each in kind.__mro__ if not issubclass(base, each)]
    found = [f"{each.__module__}.{each.__qualname__}".encode() for each in pending]
    files: dict[str, bytes] = {}
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        module = _module(item)
        if id(item) in seen or module is None or module.__name__ in files or _top(module) in COVERED:
            continue
        seen.add(id(item))
        file = getattr(module, "__file__", None)
        if file and Path(file).is_file():  # a script on standard input names a file that does not exist
            source = files[module.__name__] = Path(file).read_bytes()
            parts = _imported(source, module.__package__ or "")
        else:
            parts = _of_class(item) if isinstance(item, type) else _of_function(item)
        for part in parts:
            if isinstance(part, str):
                found.append(part.encode())
            elif _is_near(_module(part), module):
                pending.append(part)
    digest = hashlib.sha256()
    for content in [*found, *(files[name] for name in sorted(files))]:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _module(item: Any) -> ModuleType | None:
    """Return a module itself, or the module of a class or function."""
    return item if isinstance(item, ModuleType) else sys.modules.get(item.__module__)


def _top(module: ModuleType) -> str:
    return module.__name__.partition(".")[0]


def _is_near(found: ModuleType | None, module: ModuleType) -> bool:
    """Whether a module is of the same package as another one, or belongs to no installed package."""
    if found is None or _top(found) == _top(module):
        return found is not None
    return not INSTALLED & {*Path(getattr(found, "__file__", None) or "").parts}


def _imported(source: bytes, package: str) -> Iterator[ModuleType]:
    """Yield the loaded modules that the source of a module in a package imports."""
    for name in _imported_names(source, package):
        loaded = (sys.modules.get(each) for each in accumulate(name.split("."), "{}.{}".format))
        yield from (module for module in loaded if module is not None and getattr(module, "__file__", None))


def _imported_names(source: bytes, package: str) -> Iterator[str]:
    """Yield the full names that the source of a module in a package imports, attributes of modules included."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled module
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _of_class(kind: type) -> Iterator[Any]:
    """Yield the base classes and functions of a class, and its constants as text."""
    yield from kind.__bases__
    for name, value in vars(kind).items():
        if not name.startswith("__") or isinstance(value, FunctionType):
            yield from _used(name, value)


def _of_function(function: FunctionType) -> Iterator[Any]:
    """Yield what a function uses of its module, and its compiled code as text."""
    yield f"{function.__defaults__!r} {function.__kwdefaults__!r}"
    for code in _codes(function.__code__):
        constants = [_shown(each) for each in code.co_consts if not isinstance(each, CodeType)]
        yield f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
        for name in code.co_names:
            yield from _used(name, function.__globals__.get(name))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _used(name: str, value: Any) -> Iterator[Any]:
    """Yield a module, class or function, those that a value wraps, or a constant as text."""
    if isinstance(value, CONSTANTS):
        yield f"{name} {_shown(value)}"
    elif isinstance(value, ModuleType | type):
        yield value
    else:
        parts = (value, *(getattr(value, attribute, None) for attribute in WRAPPED))
        yield from (part for part in parts if isinstance(part, FunctionType))


def _shown(value: Any) -> str:
    """Format a constant, the same in each process."""
    if isinstance(value, re.Pattern):
        return f"{value.pattern!r} {value.flags}"
    return repr(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)
