"""Pages that are made from the code: commands and their help, options and their defaults, and the API."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mmib
from mmib.cli import OTHER_COMMANDS, TRAINER_COMMANDS, main
from mmib.options.help import value_types
from mmib.options.schema import forms, is_class, is_record, read_schema

# Of Lightning.
FOREIGN = ("RichProgressBarTheme",)
# Importing it runs the command.
UNIMPORTED = ("mmib.__main__",)
# Packages that users import from, in the order of the reference; the others follow.
TITLES = {
    "mmib": "Core modules",
    "mmib.nn": "Network parts",
    "mmib.encoders": "Encoders",
    "mmib.tasks": "Tasks",
    "mmib.datamodules": "Data",
    "mmib.extract": "Extraction",
    "mmib.export": "Exported models",
    "mmib.training": "Training",
    "mmib.callbacks": "Callbacks",
    "mmib.analysis": "Analysis",
    "mmib.search": "Sweeps and studies",
    "mmib.serve": "Service",
    "mmib.review": "Review of predictions",
    "mmib.runs": "Run folders",
    "mmib.options": "Options",
    "mmib.charts": "Charts",
    "mmib.crop_objects": "Object crops",
    "mmib.base": "Files, devices, processes",
}


def write_pages(folder: Path) -> None:
    """Write the pages into a folder; files that would not change keep their time."""
    pages = {"commands.md": commands(), "make.md": make_targets(), "configuration.md": configuration(), **api()}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """Every command with what its `--help` prints."""
    sections = ["# Commands", "What each command prints with `--help`."]
    for name, purpose in {**TRAINER_COMMANDS, **OTHER_COMMANDS}.items():
        sections += [f"## mmib {name}", f"{purpose[0].upper()}{purpose[1:]}.", f"```text\n{_help(name)}\n```"]
    return _page(sections)


def _help(command: str) -> str:
    printed = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue().strip()


def make_targets() -> str:
    """Every target of the Makefile that `make help` lists."""
    rows = ["| target | what |", "|---|---|"]
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for name, text in re.findall(r"^([a-z0-9-]+):.*?## (.*)$", makefile, re.M):
        rows.append(f"| `make {name}` | {_cell(text)} |")
    return _page(
        [
            "# Make targets",
            "Each makes `.venv` first where it is missing. Variables: `DATA_ROOT` (folder of a real data set), `SEED`, "
            "`ARGS` (any options of the command behind the target), `PARALLEL` (runs at a time of sweeps and studies), "
            "`PYTHON` (used once, to make `.venv`).",
            "\n".join(rows),
        ]
    )


def configuration() -> str:
    """Every option of a configuration, from the schema of options that also answers `--help`."""
    schema = read_schema()
    sections = [
        "# Configuration",
        "Every option of `mmib fit`, `validate`, `test` and `predict`, as a key in YAML or as `--section.option` on "
        "the command line. `mmib fit --config NAME --help` lists those of one configuration with their values, and "
        "`--print_config` prints it whole. A class is chosen by `class_path`, its options are set under `init_args`; "
        "on the command line `init_args` is left out (`--model.beta_text 1e-3`).",
        "## Run",
        _table({name: node for name, node in schema["properties"].items() if name not in ("trainer", "include")}),
        "## trainer",
        "Options of Lightning's `Trainer`; those without a description do what Lightning documents.",
        _table(next(form for form in forms(schema["properties"]["trainer"]) if is_record(form))["properties"]),
    ]
    for path, title, node in sorted(_configurable(schema), key=lambda found: found[:2]):
        sections += [f"## {title}", f"`{path}`" if path else "", str(node.get("description", ""))]
        sections.append(_table(node["properties"]) if node.get("properties") else "No options.")
    return _page(sections)


def _configurable(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Class path, title and arguments of each class and record in the schema; records have no path."""
    found: dict[str, tuple[str, str, dict[str, Any]]] = {}
    nodes = [schema["properties"][name] for name in ("model", "data")]
    nodes += [{"$ref": f"#/$defs/{name}"} for name in schema["$defs"]]
    for node in nodes:
        for form in forms(node):
            if is_class(form):
                for path in form["properties"]["class_path"].get("enum", ()):
                    arguments = form["properties"]["init_args"]
                    title = arguments.get("title", path.rpartition(".")[2])
                    # The short path of the public name comes first, the defining module second.
                    if title not in found or len(path) < len(found[title][0]):
                        described = {"description": form.get("description", ""), **arguments}
                        found[title] = (path, title, described)
            elif is_record(form) and form.get("title") and form["title"] not in FOREIGN:
                found.setdefault(form["title"], ("", form["title"], form))
    return iter(found.values())


def _table(options: dict[str, dict[str, Any]]) -> str:
    rows = ["| option | value | default | what |", "|---|---|---|---|"]
    for name, node in options.items():
        default = f"`{_cell(json.dumps(node['default']))}`" if "default" in node else ""
        rows.append(f"| `{name}` | {_cell(value_types(node))} | {default} | {_cell(node.get('description', ''))} |")
    return "\n".join(rows)


def _cell(text: Any) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def api() -> dict[str, str]:
    """A page of the names that `mmib` itself has, and one of each package with all of its modules."""
    rows = ["| name | what |", "|---|---|"]
    for name in sorted(mmib._PUBLIC):
        target = getattr(mmib, name)
        role = "class" if isinstance(target, type) else "func"
        summary = (target.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| {{py:{role}}}`~{target.__module__}.{target.__qualname__}` | {_cell(summary)} |")
    by_package: dict[str, list[str]] = {}
    for module in modules():
        parts = module.split(".")
        package = ".".join(parts[:2]) if ".".join(parts[:2]) in TITLES else "mmib"
        by_package.setdefault(package, []).append(module)
    names = {package: package.rpartition(".")[2].replace("mmib", "core") for package in TITLES}
    pages = {
        f"api/{names[package]}.md": _page([f"# {title}", *_automodules(by_package[package])])
        for package, title in TITLES.items()
    }
    listed = "\n".join(names.values())
    pages["api/index.md"] = _page(
        [
            "# API",
            "`mmib` has these names; `from mmib import Extractor, train` imports torch only then.",
            "\n".join(rows),
            "All modules, by package:",
            f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```",
        ]
    )
    return pages


def _automodules(found: Iterable[str]) -> Iterator[str]:
    for module in found:
        yield f"## {module}"
        yield f"```{{eval-rst}}\n.. automodule:: {module}\n```"


def modules() -> Iterator[str]:
    """Names of all modules of `mmib`, packages before what they hold."""
    root = Path(mmib.__file__).parent
    for folder, _, files in sorted(os.walk(root, followlinks=True)):
        for file in sorted(files, key=lambda name: (name != "__init__.py", name)):
            path = Path(folder, file)
            name = ".".join(["mmib", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
            if path.suffix == ".py" and name not in UNIMPORTED:
                yield name


def undocumented(documented: Iterable[str]) -> set[str]:
    """Public classes and functions of all modules that are not among the documented names."""
    public = set()
    for module in modules():
        source = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                public.add(f"{module}.{node.name}")
    return public - set(documented)


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
