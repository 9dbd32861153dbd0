"""The argument parser of all commands but the trainer's, with one-sentence errors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmib.base.wording import did_you_mean
from mmib.plugins import PLUGIN_OPTION, import_plugins
from mmib.schema import ConfigError

UNKNOWN = "unrecognized arguments: "
MISSING = "the following arguments are required: "


class CommandParser(argparse.ArgumentParser):
    """A parser with `--plugin`, and without abbreviations, whose meaning would change with new options.

    Args:
        options: see `argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.add_argument(
            PLUGIN_OPTION,
            action="append",
            default=[],
            metavar="MODULE",
            help="module to import first, for example one that registers a task; may be repeated",
        )

    def parse_args(self, args: Sequence[str]) -> Any:  # type: ignore[override]
        """Parse the arguments, and import the plugins among them.

        Raises:
            ConfigError: If an argument is invalid.
            PluginError: If a plugin cannot be imported.
        """
        self._given = args
        chosen = super().parse_args(args)
        import_plugins(chosen.plugin)
        del chosen.plugin
        return chosen

    def error(self, message: str) -> NoReturn:
        """Raise an error instead of printing the usage and exiting.

        Raises:
            ConfigError: Always.
        """
        # argparse reports a missing argument first, and a misspelt option is often the reason.
        if message.startswith(MISSING) and (unknown := self._unknown_option()):
            message = UNKNOWN + unknown
        if message.startswith(UNKNOWN):
            option = message.removeprefix(UNKNOWN).split()[0].partition("=")[0]
            message += did_you_mean(option, self._option_string_actions)
        raise ConfigError(f"{message}; {self.prog} --help lists all options")

    def _unknown_option(self) -> str:
        """Return the first of the given options that the parser does not have; empty if there is none."""
        options = (argument.partition("=")[0] for argument in self._given if argument.lstrip("-")[:1].isalpha())
        known = self._option_string_actions
        return next((name for name in options if name[0] == "-" and not {name, name[:2]} & known.keys()), "")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that use trained models: `--model` for each task, `--device`, `--runtime` and
    `--precision`."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="exported folder, run, or name of a model on the hub, USER/NAME; repeat for one model per task",
    )
    parser.add_argument("--device", default="cpu", help="device to run on (default: %(default)s)")
    parser.add_argument(
        "--runtime",
        choices=("torch", "onnx"),
        default="torch",
        help="runtime of the image encoder on CPUs: onnx (pip install 'mmib[onnx]') takes about half the time "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="precision of matrix products; bf16 is faster if the CPU or GPU supports it (default: %(default)s)",
    )
