"""Reads the schema of all options, a file generated from the parser, without importing torch."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("schema.json")
ROOT = Path(__file__).parents[1]
CONSTRUCTOR = "__init__"
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")

# A node of the schema or of a configuration, as in JSON.
Node = dict[str, Any]


@cache
def read_schema() -> Node:
    """Read the schema; the trainer's options are unrestricted if another version of Lightning is installed."""
    schema: Node = json.loads(SCHEMA.read_text(encoding="utf-8"))
    if metadata.version("pytorch-lightning") != schema["lightning"]:
        schema["properties"]["trainer"] = {}
    return schema


def forms(node: Node) -> Iterator[Node]:
    """Yield all alternatives of a node, with at most one type each, and references resolved."""
    if "$ref" in node:
        yield from forms(read_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    elif "anyOf" in node:
        for alternative in node["anyOf"]:
            yield from forms(alternative)
    elif isinstance(node.get("type"), list):
        for name in node["type"]:
            yield {**node, "type": name}
    else:
        yield node


def is_class(form: Node) -> bool:
    """Whether a form is a class with arguments."""
    return "class_path" in form.get("properties", {})


def is_record(form: Node) -> bool:
    """Whether a form is a mapping with known keys, such as a data class."""
    return "properties" in form and not is_class(form)


def classes(node: Node) -> dict[str, Node]:
    """Return the arguments, with `title`, of the known classes that a value may name, by class path."""
    return {
        path: form["properties"]["init_args"]
        for form in forms(node)
        if is_class(form)
        for path in form["properties"]["class_path"].get("enum", ())
    }


def source_of(module: str) -> Path:
    """Return the file of a module of mmib without importing it."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def signatures(source: Path) -> str:
    """Return a checksum of the class signatures in a file: arguments of constructors, and fields of data classes."""
    text = source.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            found.append(node.name)
            for part in node.body:
                if isinstance(part, ast.AnnAssign):
                    found += lines[part.lineno - 1 : part.end_lineno]
                elif isinstance(part, ast.FunctionDef) and part.name == CONSTRUCTOR:
                    found += lines[part.lineno - 1 : part.body[0].lineno - 1]
    return hashlib.sha256(" ".join(" ".join(found).split()).encode()).hexdigest()[:16]


def is_of_this_code() -> bool:
    """Whether the class signatures are still those of the schema, which may be outdated during development."""
    return all(signatures(source_of(module)) == checksum for module, checksum in read_schema()["signatures"].items())
