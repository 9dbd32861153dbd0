"""The command line of a sweep's trial, as a W&B agent builds it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mmib.schema import ConfigError

# W&B's default command.
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
ARGUMENT_MACROS = ("${args}", "${args_no_equals}")
MACROS = ("${env}", "${interpreter}", "${program}", *ARGUMENT_MACROS)
VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
NO_OPTIONS = "the Lightning CLI reads options of the form --key=value only"
REFUSED = {
    "${args_no_boolean_flags}": "it leaves out values that are False, so that the option keeps its default",
    "${args_no_hyphens}": NO_OPTIONS,
    "${args_append_hydra}": NO_OPTIONS,
    "${args_override_hydra}": NO_OPTIONS,
    "${args_json}": NO_OPTIONS,
    "${args_json_file}": NO_OPTIONS,
    "${args_dict}": NO_OPTIONS,
}


def check_command(command: Any, program: Any, where: str) -> tuple[str, ...]:
    """Check the command of a sweep file and return its items.

    Raises:
        ConfigError: the command is malformed, or W&B or the Lightning CLI would not read it as intended.
    """
    if not isinstance(command, list | tuple) or not command:
        raise ConfigError(f"{where}: 'command' must be a list, such as [{', '.join(DEFAULT_COMMAND)}]")
    items = tuple(str(item) for item in command)
    for item in items:
        if item in REFUSED:
            raise ConfigError(
                f"{where}: the macro {item} of 'command' does not work with mmib: {REFUSED[item]}; "
                f"take {' or '.join(ARGUMENT_MACROS)}"
            )
        for variable in VARIABLE.findall(item):
            if variable not in os.environ:
                raise ConfigError(f"{where}: 'command' reads the environment variable {variable}, which is not set")
        if "${" in VARIABLE.sub("", item) and item not in MACROS:
            raise ConfigError(
                f"{where}: W&B does not fill in {item!r} of 'command': a macro is a separate item, "
                f"and one of {', '.join(MACROS)}, or ${{envvar:NAME}}, which may stand in a longer item"
            )
    if not any(macro in items for macro in ARGUMENT_MACROS):
        raise ConfigError(f"{where}: 'command' passes no parameters: it must contain {' or '.join(ARGUMENT_MACROS)}")
    if "${program}" in items and not program:
        raise ConfigError(f"{where}: 'command' names ${{program}}, and there is no 'program'")
    return items


def command_line(command: Sequence[str], program: str, values: Mapping[str, Any]) -> list[str]:
    """Return the command that an agent of W&B 0.31 runs for values, but with this interpreter instead of `python`.

    Args:
        command: items returned by `check_command`.
        program: value of the macro `${program}`.
        values: value of each parameter, in order.
    """
    filled = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [program],
        "${args}": [f"--{name}={value}" for name, value in values.items()],
        "${args_no_equals}": [part for name, value in values.items() for part in (f"--{name}", str(value))],
    }
    line: list[str] = []
    for item in command:
        line += filled[item] if item in filled else [VARIABLE.sub(lambda match: os.environ[match[1]], item)]
    return line
