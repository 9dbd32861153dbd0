"""Writes the schema of all options, which `mmib.options` reads: `make schema`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pkgutil
from importlib import metadata
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse._completions_jsonschema import ParserJsonschema
from jsonargparse._typehints import get_all_subclass_paths
from pytorch_lightning import Callback
from pytorch_lightning.cli import LightningArgumentParser

from mmib.configs import TOP_LEVEL
from mmib.options.schema import CONSTRUCTOR, SCHEMA, signatures, source_of
from mmib.training.cli import MMIBCommand, execute

# Packages with classes that a configuration may name.
NAMES = ("backbone", "callbacks", "datamodules", "encoders", "modules", "nn", "optim", "tasks")
PACKAGES = tuple(f"mmib.{name}" for name in NAMES)
SCHEMA_KEY = "$schema"
# Keys that the parser adds to each class: one for editors, and an option if shtab is installed.
ADDED = (SCHEMA_KEY, "print_shtab")
# Start of the parser's descriptions of class options, which are dropped because the schema lists the classes.
ANY_CLASS = "One or more arguments specifying"
# Descriptions of Lightning's options; the schema that is shipped contains no text of other projects.
DESCRIPTIONS = {
    "seed_everything": "seed of all random numbers; true chooses one",
    "trainer": "",
    "optimizer": "a class of torch.optim in place of the model's own settings",
    "lr_scheduler": "a class of torch.optim.lr_scheduler in place of the model's own schedule",
    "ckpt_path": "checkpoint to score, or with --run to resume from",
    "weights_only": "read nothing but tensors and plain values from checkpoints",
    "verbose": "print the scores",
    "return_predictions": "keep the predictions in memory",
}
TRAINER = {
    "max_epochs": "epochs to train; -1 for no limit",
    "max_steps": "optimiser steps to train; -1 without end",
    "max_time": "time to train, as DD:HH:MM:SS",
    "accelerator": "auto, cpu, gpu and others of Lightning",
    "devices": "number of devices, a list of them, or auto",
    "num_nodes": "machines that train together",
    "strategy": "strategy for several devices, such as ddp",
    "precision": "numeric precision, such as bf16-mixed",
    "accumulate_grad_batches": "batches per optimiser step",
    "gradient_clip_val": "largest norm of a gradient",
    "val_check_interval": "steps between validations, or a share of an epoch",
    "check_val_every_n_epoch": "epochs between validations",
    "limit_train_batches": "batches of a training epoch, or their share",
    "limit_val_batches": "batches of a validation, or their share",
    "log_every_n_steps": "steps between logged values",
    "callbacks": "callbacks; callbacks+ adds to those of earlier files",
    "logger": "loggers; false disables logging",
    "deterministic": "the same results in each run on the same machine",
    "profiler": "profiler, such as simple",
}


class OptionSchema(ParserJsonschema):
    """Builds the schema of a parser with jsonargparse, and describes only classes of mmib.

    Classes of other packages are allowed with any arguments, as they depend on what is installed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: set[str] = set()

    def subclass_def(self, class_type: type, action: Any) -> dict[str, Any]:
        """Return all forms of a class option: described classes by their paths, and any other class."""
        described = []
        if class_type is Callback or _is_of_project(class_type):
            paths = sorted(path for path in get_all_subclass_paths(class_type) if _is_described(_class_at(path)))
            described = [self.class_path_schema(path, action) for path in paths]
        return {"anyOf": [{"type": "string"}, *described, self.unknown_class_path_schema()]}

    def class_path_schema(self, class_path: str, action: Any) -> dict[str, Any]:
        """Return the schema of a class with all its import paths, including those of packages that re-export it."""
        described: dict[str, Any] = super().class_path_schema(class_path, action)
        found = _class_at(class_path)
        described["properties"]["class_path"] = {"enum": sorted({class_path, *_paths_of(found)})}
        return described

    def class_parser_schema(self, class_type: Any, action: Any, description: str | None = None) -> dict[str, Any]:
        """Return the schema of a class's arguments; those inherited from another package have no description."""
        schema: dict[str, Any] = super().class_parser_schema(class_type, action, description)
        found = _class_at(class_type) if isinstance(class_type, str) else class_type
        bases = [base for base in inspect.getmro(found) if _is_of_project(base)]
        self.modules |= {base.__module__ for base in bases}
        described = {name for base in bases for name in inspect.signature(base).parameters if CONSTRUCTOR in vars(base)}
        for name, argument in schema.get("properties", {}).items():
            if name not in described:
                argument.pop("description", None)
        return {**schema, "title": found.__name__}

    def callable_schema(self, typehint: Any, action: Any) -> dict[str, Any]:
        """Return the schema of a class factory whose arguments are not options, such as `Callable[[int], Fusion]`."""
        before = getattr(action, "sub_add_kwargs", {})
        action.sub_add_kwargs = {**before, "skip": {len(typehint.__args__) - 1}}
        schema: dict[str, Any] = super().callable_schema(typehint, action)
        action.sub_add_kwargs = before
        return schema


def option_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file, for all trainer commands together.

    It has additional keys: `commands`, the commands that accept an option, for options that not all accept;
    `lightning`, the version of Lightning; and `signatures`, a checksum of the class signatures of each module.
    """
    for package in PACKAGES:
        _import_all(package)
    made = OptionSchema()
    by_command = {}
    for command, parser in parsers().items():
        by_command[command] = made.generate(parser)["properties"]
    options: dict[str, Any] = {}
    for properties in by_command.values():
        # Some packages add further options if they are installed.
        options |= {name: properties[name] for name in properties if name in TOP_LEVEL and name not in options}
    for name, text in DESCRIPTIONS.items():
        options[name]["description"] = text
    trainer = options["trainer"]["properties"]
    for name, option in trainer.items():
        option["description"] = TRAINER.get(name, "")
    options["trainer"] |= {"title": "Trainer", "properties": {name: trainer[name] for name in TRAINER} | trainer}
    schema = {
        SCHEMA_KEY: "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of mmib",
        "type": "object",
        "additionalProperties": False,
        "properties": options,
        "commands": {
            name: takers
            for name in options
            if len(takers := [command for command, taken in by_command.items() if name in taken]) < len(by_command)
        },
        "lightning": metadata.version("pytorch-lightning"),
        "signatures": {module: signatures(source_of(module)) for module in sorted(made.modules)},
        "$defs": dict(sorted(made.defs.items())),
    }
    plain: dict[str, Any] = _plain(schema)
    return plain


def text_of(schema: dict[str, Any]) -> str:
    """Return the content of the file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schema file."""
    SCHEMA.write_text(text_of(option_schema()), encoding="utf-8")


class _Parsers(MMIBCommand):
    """The command, stopped after its parser is built."""

    found: LightningArgumentParser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        _Parsers.found = parser
        raise _NotStartedError


class _NotStartedError(Exception):
    """Raised when the parser has been built."""


def parsers() -> dict[str, ArgumentParser]:
    """Return the parser of each command."""
    with contextlib.suppress(_NotStartedError):
        execute(["fit"], _Parsers)
    commands = _Parsers.found._subcommands_action
    return {} if commands is None else dict(commands._name_parser_map)


def _import_all(package: str) -> None:
    """Import a module and all its submodules, as classes are only found in imported modules."""
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{package}."):
        importlib.import_module(found.name)


def _is_of_project(found: type) -> bool:
    return f"{found.__module__}.".startswith("mmib.")


def _is_described(found: type) -> bool:
    return f"{found.__module__}.".startswith(tuple(f"{package}." for package in PACKAGES))


def _paths_of(found: type) -> list[str]:
    """Return the import paths of a class: its module, and parent packages that re-export it."""
    parts = found.__module__.split(".")
    modules = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    name = found.__qualname__
    return [f"{module}.{name}" for module in modules if getattr(importlib.import_module(module), name, None) is found]


def _class_at(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _plain(schema: Any) -> Any:
    """Remove the parser's generic descriptions and added keys, and normalise white space in descriptions."""
    if isinstance(schema, list):
        return [_plain(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: " ".join(value.split()) if name == "description" and isinstance(value, str) else _plain(value)
        for name, value in schema.items()
        if name not in ADDED or isinstance(value, str)
        if not (name == "description" and (not value or str(value).startswith(ANY_CLASS)))
    }


if __name__ == "__main__":
    main()
