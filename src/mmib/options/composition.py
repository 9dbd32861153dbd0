"""Composes configuration files and options as the parser of the trainer commands does, and refuses what it would.

Only what the schema knows for certain is refused: what a class path names that the schema does not have, and all
below it, is left to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import yaml

from mmib.base.argument_parser import did_you_mean
from mmib.base.files import read_yaml
from mmib.configs import CLASSES, is_file, shipped_experiments
from mmib.options.schema import CLASS_KEYS, Node, classes, forms, is_class, is_of_this_code, is_record, read_schema
from mmib.schema import ConfigError

CONFIG = "--config"
PRINT_CONFIG = "--print_config"
# As argparse tells a value from an option.
NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
LONGEST_VALUE = 60
JSON_TYPES = {"boolean": bool, "integer": int, "number": float, "string": str, "array": list, "object": dict}


class Option(NamedTuple):
    """An option as a configuration leaves it.

    Attributes:
        name: dotted, without `init_args`.
        node: what the schema says of it.
        value: as configured, or the default.
        owner: class that takes it; empty for options of the command itself.
    """

    name: str
    node: Node
    value: Any
    owner: str


def check(command: str, arguments: Sequence[str]) -> None:
    """Refuse what the parser of a trainer command would refuse, as far as the schema knows.

    Args:
        command: such as `fit`.
        arguments: those after it, with `--config FILE` for each file.

    Raises:
        ConfigError: an unknown option, a value of a wrong type, or no model or data.
    """
    if any(_is_for_the_parser(argument) for argument in arguments):
        return
    try:
        config = compose(command, arguments)
        _require_classes(command, config)
    except ConfigError:
        if is_of_this_code():
            raise


def compose(command: str, arguments: Sequence[str]) -> Node:
    """The configuration of a command, without defaults.

    Args:
        command: such as `fit`.
        arguments: those after it, with `--config FILE` for each file.

    Raises:
        ConfigError: an unknown option, or a value of a wrong type.
    """
    config: Node = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name != CONFIG:
            _require_option(command, config, argument, name)
        if not equals:
            if not rest or _is_option(rest[0]):
                raise _invalid(f"{name} needs a value")
            value = rest.pop(0)
        given = read_yaml(Path(value)) or {} if name == CONFIG else _nested(name[2:].split("."), value)
        for key in given:
            _require_option(command, config, key, f"--{key}")
        config = _with_arguments({"properties": options_of(command)}, config, given, "")
    return config


def options_of(command: str) -> dict[str, Node]:
    """What the schema says of each option that a command takes."""
    schema = read_schema()
    takers = schema["commands"]
    return {name: node for name, node in schema["properties"].items() if command in takers.get(name, [command])}


def options(properties: dict[str, Node], config: Any, prefix: str = "", owner: str = "") -> Iterator[Option]:
    """All options of a configuration in order, each before those of the class that it names.

    Args:
        properties: what the schema says of them.
        config: what is configured of them.
        prefix: of their names.
        owner: class that takes them.
    """
    for key, node in properties.items():
        name = f"{prefix}{key}"
        value = config.get(key, node.get("default")) if isinstance(config, dict) else node.get("default")
        yield Option(name, node, value, owner)
        if taken := arguments_of(node, value):
            below = value.get("init_args", value) if isinstance(value, dict) else {}
            yield from options(taken["properties"], below, f"{name}.", taken.get("title", owner))


def arguments_of(node: Node, value: Any) -> Node | None:
    """What the class that a value names takes, or a data class; where none is chosen, what all known ones take.

    None where this is not known.
    """
    known = classes(node)
    path = value.get("class_path") if isinstance(value, dict) else value
    if isinstance(path, str):
        return known.get(path)
    records = [form for form in forms(node) if is_record(form)]
    if records or value is not None or not known:
        return records[0] if len(records) == 1 and not isinstance(value, list) else None
    chosen = without_bases(known)
    return chosen[0] if len(chosen) == 1 else {"properties": _shared([taken["properties"] for taken in chosen])}


def without_bases(known: dict[str, Node]) -> list[Node]:
    """Arguments of each known class, each once, of a base class only where it is the only one."""
    bases = read_schema()["$defs"]
    every = {taken["title"]: taken for taken in known.values()}
    return [taken for title, taken in every.items() if title not in bases] or list(every.values())


def _shared(properties: list[dict[str, Node]]) -> dict[str, Node]:
    """The arguments that several classes share, with what is said of them by all."""
    first, *others = properties
    return {
        name: {word: part for word, part in node.items() if all(other[name].get(word) == part for other in others)}
        for name, node in first.items()
        if all(name in other for other in others)
    }


def _is_for_the_parser(argument: str) -> bool:
    """Whether it is one of those that print something and end."""
    name = argument.partition("=")[0]
    return name == PRINT_CONFIG or (name.startswith("--") and name.endswith(".help"))


def _is_option(argument: str) -> bool:
    return len(argument) > 1 and argument[0] == "-" and " " not in argument and not NEGATIVE_NUMBER.match(argument)


def _nested(keys: list[str], value: Any) -> Node:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _require_option(command: str, config: Node, written: str, name: str) -> None:
    """Refuse what is written as an option, or in a file as a key, and is none of the command's."""
    known = options_of(command)
    wrong = name.removeprefix("--")
    if name.startswith("--") and wrong.partition(".")[0].removesuffix("+") in known:
        return
    if takers := read_schema()["commands"].get(wrong):
        raise _invalid(f"{written} is no option of mmib {command}, but of {' and '.join(takers)}")
    names = [option.name for option in options(known, config)]
    same = next((f": did you mean {other}?" for other in names if other.endswith(f".{wrong}")), "")
    advice = same or did_you_mean(wrong, names) or f"; mmib {command} --help lists all options"
    raise _invalid(f"{written} is no option of mmib {command}{advice}")


def _require_classes(command: str, config: Node) -> None:
    """Refuse a configuration without model or data."""
    missing = [name for name in CLASSES if config.get(name) is None]
    if missing:
        experiments = ", ".join(path.stem for path in shipped_experiments())
        raise _invalid(
            f"it names no {' and no '.join(missing)}: start from an experiment with mmib {command} --config NAME, one "
            f"of {experiments}, or from a file, such as one that mmib init has written"
        )


def _merged(node: Node, old: Any, new: Any, key: str) -> Any:
    """A value after another one, checked against a node of the schema.

    Raises:
        ConfigError: it cannot be a value of the node.
    """
    known = list(forms(node))
    value = _parsed(new)
    if {} in known or (value is None and any(map(_is_null, known))):
        return value
    if isinstance(old, list) and isinstance(value, dict):  # its last item is meant
        return old
    if any(map(is_class, known)) and isinstance(new, str | dict) and not isinstance(value, list):
        named = value if isinstance(value, dict) else {"class_path": new}
        return _with_class(node, old, named, key) if isinstance(value, dict) or new in classes(node) else new
    # A file may hold the value.
    if isinstance(new, str) and (any(form.get("type") == "string" for form in known) or is_file(Path(new))):
        return new
    fitting = [form for form in known if _is_of_form(form, new, value)]
    if not fitting:
        raise _wrong_value(known, new, key)
    return _with_parts(fitting[0], old, value, key) if len(fitting) == 1 else value


def _with_parts(form: Node, old: Any, value: Any, key: str) -> Any:
    """A value of a form, its parts checked; what a mapping leaves out is as before."""
    if isinstance(value, list):
        return [_merged(form.get("items", {}), None, item, key) for item in value]
    if not isinstance(value, dict):
        return value
    if is_record(form):
        return _with_arguments(form, _mapping(old), value, key)
    for name, part in value.items():
        # On the command line a dot in a key does not show where the key ends.
        if not isinstance(part, dict):
            _merged(form.get("additionalProperties", {}), None, part, f"{key}.{name}")
    return {**_mapping(old), **value}


def _with_class(node: Node, old: Any, new: Node, key: str) -> Any:
    """A class with its arguments, after others: of another class, those remain that the new one takes too."""
    before = {"class_path": old} if isinstance(old, str) else _mapping(old) or _mapping(node.get("default"))
    path = new.get("class_path", before.get("class_path"))
    kept = _mapping(before.get("init_args"))
    given = _mapping(new.get("init_args")) | {name: value for name, value in new.items() if name not in CLASS_KEYS}
    taken = classes(node).get(path) if isinstance(path, str) else None
    if taken is None:
        return {"class_path": path, "init_args": {**kept, **given}}
    kept = {name: value for name, value in kept.items() if name in taken["properties"]}
    return {"class_path": path, "init_args": _with_arguments(taken, kept, given, key)}


def _with_arguments(taken: Node, old: Node, given: Node, key: str) -> Node:
    """Arguments of a class, or options of the command, after others."""
    merged = dict(old)
    properties = taken["properties"]
    for written, value in given.items():
        name = str(written).removesuffix("+")
        path = f"{key}.{name}" if key else name
        if name not in properties and name in CLASS_KEYS:  # a data class may be written as a class
            merged = _with_arguments(taken, merged, _mapping(value), key) if name == "init_args" else merged
        elif name not in properties:
            advice = did_you_mean(name, properties) or f": choose from {', '.join(sorted(properties))}"
            raise _invalid(f"{path} is no option of {taken.get('title', key)}{advice}")
        elif name != written:
            merged[name] = _extended(properties[name], merged.get(name), value, path)
        else:
            merged[name] = _merged(properties[name], merged.get(name), value, path)
    return merged


def _extended(node: Node, old: Any, new: Any, key: str) -> list[Any]:
    """A list with further items, or with one."""
    value = _parsed(new)
    items = value if isinstance(value, list) else [new]
    if any(form.get("type") == "array" for form in forms(node)):
        items = _merged(node, None, items, key)
    return [*(old if isinstance(old, list) else []), *items]


def _mapping(value: Any) -> Node:
    found = _parsed(value)
    return found if isinstance(found, dict) else {}


def _parsed(value: Any) -> Any:
    """What a text stands for as YAML; everything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value


def _is_null(form: Node) -> bool:
    return form.get("type") == "null" or None in form.get("enum", ())


def _is_of_form(form: Node, new: Any, value: Any) -> bool:
    """Whether a value, as written and as YAML, is of a form; of one with parts, whatever the parts are."""
    if "enum" in form:
        return any(type(choice) is type(found) and choice == found for choice in form["enum"] for found in (new, value))
    if form.get("type") == "string":
        return isinstance(new, str) or not isinstance(new, bool | int | float | list | dict | None)
    if form.get("type") == "number":
        return type(value) in (int, float) or _is_number(value)
    return form.get("type") not in (*JSON_TYPES, "null") or type(value) is JSON_TYPES.get(form["type"])


def _is_number(value: Any) -> bool:
    """Whether a text is a number in Python, such as 1e-3, which is none in YAML 1.1."""
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _wrong_value(known: list[Node], value: Any, key: str) -> ConfigError:
    choices = {str(choice): choice for form in known for choice in form.get("enum", ())}.values()
    expected = [JSON_TYPES[form["type"]].__name__ for form in known if form.get("type") in JSON_TYPES]
    expected = ["class" if name == "dict" and any(map(is_class, known)) else name for name in expected]
    reasons = [f"expected {' or '.join(dict.fromkeys(expected))}"] if expected else []
    reasons += [f"choose from {', '.join(map(repr, choices))}"] if choices else []
    return _invalid(f"{key}: {' or '.join(reasons)}, got {shorten(repr(value), LONGEST_VALUE)}")


def _invalid(reason: str) -> ConfigError:
    return ConfigError(f"the configuration is not valid: {reason}")
