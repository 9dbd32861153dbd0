"""Composes and checks configuration files and options in the same way as the trainer commands' parser.

Only options in the schema are checked. Classes that the schema does not contain, and their arguments, are left to the
parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import yaml

from mmib.base.files import is_file, read_yaml
from mmib.base.wording import did_you_mean
from mmib.configs import CLASSES, shipped_experiments
from mmib.options.schema import CLASS_KEYS, Node, classes, forms, is_class, is_of_this_code, is_record, read_schema
from mmib.schema import ConfigError

CONFIG = "--config"
PRINT_CONFIG = "--print_config"
# Values that argparse does not take for options.
NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
LONGEST_VALUE = 60
JSON_TYPES = {"boolean": bool, "integer": int, "number": float, "string": str, "array": list, "object": dict}


class Option(NamedTuple):
    """An option with its configured value.

    Attributes:
        name: dotted name, without `init_args`.
        node: its node of the schema.
        value: the configured value, or the default.
        owner: class that has the option; empty for options of the command itself.
    """

    name: str
    node: Node
    value: Any
    owner: str


def check(command: str, arguments: Sequence[str]) -> None:
    """Check the arguments of a trainer command against the schema.

    Args:
        command: the command, such as `fit`.
        arguments: its arguments, with `--config FILE` for each file.

    Raises:
        ConfigError: If an option is unknown, a value has a wrong type, or model or data is missing.
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
    """Compose the configuration of a command, without defaults.

    Args:
        command: the command, such as `fit`.
        arguments: its arguments, with `--config FILE` for each file.

    Raises:
        ConfigError: If an option is unknown, or a value has a wrong type.
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
    """Return the schema's nodes of a command's options, by name."""
    schema = read_schema()
    takers = schema["commands"]
    return {name: node for name, node in schema["properties"].items() if command in takers.get(name, [command])}


def options(properties: dict[str, Node], config: Any, prefix: str = "", owner: str = "") -> Iterator[Option]:
    """Yield all options of a configuration in order, each followed by those of the class that it names.

    Args:
        properties: the schema's nodes of the options, by name.
        config: the configured values.
        prefix: prefix of the options' names.
        owner: class that has the options.
    """
    for key, node in properties.items():
        name = f"{prefix}{key}"
        value = config.get(key, node.get("default")) if isinstance(config, dict) else node.get("default")
        yield Option(name, node, value, owner)
        if taken := arguments_of(node, value):
            below = value.get("init_args", value) if isinstance(value, dict) else {}
            yield from options(taken["properties"], below, f"{name}.", taken.get("title", owner))


def arguments_of(node: Node, value: Any) -> Node | None:
    """Return the arguments of the class that a value names, or of a data class.

    If no class is chosen, these are the arguments that all known classes share. None if they are unknown.
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
    """Return the arguments of each known class once, leaving out base classes unless they are the only ones."""
    bases = read_schema()["$defs"]
    every = {taken["title"]: taken for taken in known.values()}
    return [taken for title, taken in every.items() if title not in bases] or list(every.values())


def _shared(properties: list[dict[str, Node]]) -> dict[str, Node]:
    """Return the arguments that several classes share, with the parts of their nodes that agree."""
    first, *others = properties
    return {
        name: {word: part for word, part in node.items() if all(other[name].get(word) == part for other in others)}
        for name, node in first.items()
        if all(name in other for other in others)
    }


def _is_for_the_parser(argument: str) -> bool:
    """Whether an argument makes the parser print something and exit."""
    name = argument.partition("=")[0]
    return name == PRINT_CONFIG or (name.startswith("--") and name.endswith(".help"))


def _is_option(argument: str) -> bool:
    return len(argument) > 1 and argument[0] == "-" and " " not in argument and not NEGATIVE_NUMBER.match(argument)


def _nested(keys: list[str], value: Any) -> Node:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _require_option(command: str, config: Node, written: str, name: str) -> None:
    """Check that an option, or a key of a file, is one of the command's options."""
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
    """Check that a configuration has model and data."""
    missing = [name for name in CLASSES if config.get(name) is None]
    if missing:
        experiments = ", ".join(path.stem for path in shipped_experiments())
        raise _invalid(
            f"it names no {' and no '.join(missing)}: start from an experiment with mmib {command} --config NAME, one "
            f"of {experiments}, or from a file, such as one that mmib init has written"
        )


def _merged(node: Node, old: Any, new: Any, key: str) -> Any:
    """Merge a new value into an old one, and check it against a node of the schema.

    Raises:
        ConfigError: If it is not a valid value of the node.
    """
    known = list(forms(node))
    value = _parsed(new)
    if {} in known or (value is None and any(map(_is_null, known))):
        return value
    if isinstance(old, list) and isinstance(value, dict):  # sets arguments of the list's last item
        return old
    if any(map(is_class, known)) and isinstance(new, str | dict) and not isinstance(value, list):
        named = value if isinstance(value, dict) else {"class_path": new}
        return _with_class(node, old, named, key) if isinstance(value, dict) or new in classes(node) else new
    # The value may be in a file.
    if isinstance(new, str) and (any(form.get("type") == "string" for form in known) or is_file(Path(new))):
        return new
    fitting = [form for form in known if _is_of_form(form, new, value)]
    if not fitting:
        raise _wrong_value(known, new, key)
    return _with_parts(fitting[0], old, value, key) if len(fitting) == 1 else value


def _with_parts(form: Node, old: Any, value: Any, key: str) -> Any:
    """Check the parts of a value of a form; keys that a mapping leaves out keep their old values."""
    if isinstance(value, list):
        return [_merged(form.get("items", {}), None, item, key) for item in value]
    if not isinstance(value, dict):
        return value
    if is_record(form):
        return _with_arguments(form, _mapping(old), value, key)
    for name, part in value.items():
        # On the command line, a dotted name does not show where a key that contains dots ends.
        if not isinstance(part, dict):
            _merged(form.get("additionalProperties", {}), None, part, f"{key}.{name}")
    return {**_mapping(old), **value}


def _with_class(node: Node, old: Any, new: Node, key: str) -> Any:
    """Merge a class and its arguments; old arguments of another class are kept if the new class has them too."""
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
    """Merge arguments of a class, or options of the command, into old ones."""
    merged = dict(old)
    properties = taken["properties"]
    for written, value in given.items():
        name = str(written).removesuffix("+")
        path = f"{key}.{name}" if key else name
        if name not in properties and name in CLASS_KEYS:  # data classes may be given as classes
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
    """Append an item, or the items of a list, to an old list."""
    value = _parsed(new)
    items = value if isinstance(value, list) else [new]
    if any(form.get("type") == "array" for form in forms(node)):
        items = _merged(node, None, items, key)
    return [*(old if isinstance(old, list) else []), *items]


def _mapping(value: Any) -> Node:
    found = _parsed(value)
    return found if isinstance(found, dict) else {}


def _parsed(value: Any) -> Any:
    """Parse a string as YAML; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value


def _is_null(form: Node) -> bool:
    return form.get("type") == "null" or None in form.get("enum", ())


def _is_of_form(form: Node, new: Any, value: Any) -> bool:
    """Whether a value, as a string and as YAML, is of a form; its parts are not checked."""
    if "enum" in form:
        return any(type(choice) is type(found) and choice == found for choice in form["enum"] for found in (new, value))
    if form.get("type") == "string":
        return isinstance(new, str) or not isinstance(new, bool | int | float | list | dict | None)
    if form.get("type") == "number":
        return type(value) in (int, float) or _is_number(value)
    return form.get("type") not in (*JSON_TYPES, "null") or type(value) is JSON_TYPES.get(form["type"])


def _is_number(value: Any) -> bool:
    """Whether a string is a number in Python, such as 1e-3, which YAML 1.1 reads as a string."""
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
