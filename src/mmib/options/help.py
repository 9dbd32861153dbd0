"""The output of `mmib fit --help`: options in sections, with their configured values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import yaml

from mmib.options.composition import Option, compose, options, options_of, without_bases
from mmib.options.schema import Node, classes, forms, is_class, is_record

WIDTH = 80
INDENT = 8
LONGEST_VALUE = 50
HELP = ("-h", "--help")
# Options of the model that belong to its objective.
OBJECTIVE = ("beta_text", "beta_image", "gamma", "beta_schedule", "free_bits", "mention_dropout", "regularizers")
# Titles of the most important sections, by the prefix of their options' names.
SECTIONS = {
    "": "run",
    "data": "data",
    "trainer": "training",
    "objective": "objective",
    "model.optimizer": "optimizer",
    "model": "model",
    "model.backbone": "backbone",
    "model.backbone.text_encoder": "text encoder",
    "model.backbone.text_encoder.lora": "LoRA",
    "model.backbone.image_encoder": "image encoder",
    "model.backbone.gaussian": "bottleneck",
    "model.backbone.alignment": "alignment",
    "model.backbone.fusion": "fusion",
}
REST = "further options of Lightning's trainer"
# Options that are linked to others, and not set by the user; see `MMIBCommand.add_arguments_to_parser`.
LINKED = ("data.text_encoder.", "data.image_encoder.", "model.labels.")
# Options for configuration files only.
UNLISTED = ("include", "plugins")
METAVARS = {
    "boolean": "true|false",
    "integer": "INT",
    "number": "FLOAT",
    "string": "TEXT",
    "array": "LIST",
    "object": "MAPPING",
}


def help_page(command: str, purpose: str, arguments: Sequence[str]) -> str:
    """Return the output of `--help`.

    Args:
        command: the command, such as `fit`.
        purpose: description of the command.
        arguments: its arguments, with `--config FILE` for each file; their values are shown.

    Raises:
        ConfigError: See `compose`.
    """
    config = compose(command, [argument for argument in arguments if argument not in HELP])
    formatter = partial(argparse.HelpFormatter, width=WIDTH, max_help_position=INDENT)
    page = argparse.ArgumentParser(
        prog="mmib",
        usage=f"mmib {command} --config NAME [--config FILE] [options]",
        description=f"{purpose[0].upper()}{purpose[1:]}. Brackets show configured values or defaults.",
        epilog=f"For the options of any class, including custom ones: mmib {command} --model.help CLASS, or "
        f"--data.help CLASS. For all values of a configuration: mmib {command} --config NAME --print_config.",
        formatter_class=formatter,
        add_help=False,
    )
    for title, listed in _sections(command, config).items():
        section = page.add_argument_group(title)
        if title == SECTIONS[""]:
            section.add_argument(
                "--config",
                metavar="NAME|FILE",
                help="name of an experiment, or a YAML file; later ones take precedence",
            )
            section.add_argument("--plugin", metavar="MODULE", help="module to import first")
        for option in listed:
            described, choices, value = _description(option), value_types(option.node), _bracketed(option.value)
            metavar = choices if len(f"  --{option.name} {choices}") <= WIDTH else "CHOICE"
            if not described:
                metavar, value = f"{metavar} {value}".strip(), ""
            text = described if metavar != "CHOICE" else f"{described}; one of {choices.replace('|', ', ')}"
            section.add_argument(
                f"--{option.name}", metavar=metavar, help=f"{text} {value}".strip().replace("%", "%%") or None
            )
    return page.format_help()


def _sections(command: str, config: Node) -> dict[str, list[Option]]:
    """Return the options by the title of their section, in the order of the page."""
    found: dict[str, list[Option]] = {title: [] for title in SECTIONS.values()}
    for option in options(options_of(command), config):
        has_a_section = option.value is not None and any(is_record(form) for form in forms(option.node))
        if not has_a_section and option.name not in UNLISTED and not f"{option.name}.".startswith(LINKED):
            found.setdefault(_title(option), []).append(option)
    titled = {}
    for title, listed in found.items():
        owners = [option.owner for option in listed if option.owner not in ("", "Trainer")]
        titled[f"{title} ({owners[0]})" if owners else title] = listed
    rest = titled.pop(REST, [])
    return {title: listed for title, listed in {**titled, REST: rest}.items() if listed}


def _title(option: Option) -> str:
    parent, _, key = option.name.rpartition(".")
    if parent == "trainer" and "description" not in option.node:
        return REST
    if parent == "model" and key in OBJECTIVE:
        return SECTIONS["objective"]
    if option.name in ("optimizer", "lr_scheduler"):
        return SECTIONS["model.optimizer"]
    return SECTIONS.get(parent, parent.rpartition(".")[2])


def _description(option: Option) -> str:
    """Return the description of an option, with the classes that it accepts."""
    text = str(option.node.get("description", "")).removesuffix(".")
    known = classes(option.node)
    titles = [taken["title"] for taken in without_bases(known)]
    if len(titles) < 2 or "LIST" in value_types(option.node):
        return text
    paths = {taken["title"]: path for path, taken in reversed(known.items())}
    return "; ".join(filter(None, (text, f"one of {', '.join(paths[title] for title in titles)}")))


def value_types(node: Node) -> str:
    """Return the metavariable of a value: its types and choices, separated by bars."""
    known = list(forms(node))
    names = [METAVARS[form["type"]] for form in known if form.get("type") in METAVARS and not is_class(form)]
    words = [str(choice) for form in known for choice in form.get("enum", ())]
    if any(is_class(form) for form in known):
        names = ["CLASS" if classes(node) else "NAME", *(name for name in names if name != "TEXT")]
    if "FLOAT" in names:
        names = [name for name in names if name != "INT"]
    return "|".join(dict.fromkeys([*names, *words])) or "VALUE"


def _bracketed(value: Any) -> str:
    """Format a value in brackets as YAML; empty if it is long or not set."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        value = value["class_path"]
    if value is None or value in ([], {}, ""):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10 * WIDTH).removesuffix("\n").removesuffix("\n...")
    return f"[{text}]" if len(text) <= LONGEST_VALUE else ""
