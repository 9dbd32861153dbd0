"""The command `mmib push`: puts an exported folder on a model hub."""

from __future__ import annotations

from pathlib import Path

from mmib.base.argument_parser import CommandParser


def run(arguments: list[str]) -> int:
    """Push and print the address.

    Raises:
        ExportError: it is no export, or the hub does not take it.
        TaskError: its task is not registered.
        PluginError: a plugin cannot be imported.
    """
    parser = CommandParser(
        prog="mmib push",
        description="Put an exported folder on the Hugging Face hub, where Extractor.from_pretrained and --model find "
        "it by its name. Log in before with hf auth login, or set HF_TOKEN; HF_ENDPOINT names another hub.",
    )
    parser.add_argument("folder", type=Path, metavar="EXPORT", help="the folder that mmib export made")
    parser.add_argument("name", metavar="USER/NAME", help="of the model; it is made where it is not there yet")
    parser.add_argument(
        "--public",
        action="store_true",
        help="make it for everybody to see (default: private; the terms of the data hold for the weights too)",
    )
    chosen = parser.parse_args(arguments)

    from mmib.export.hub import push  # noqa: PLC0415 - help needs no torch

    print(push(chosen.folder, chosen.name, chosen.public))  # noqa: T201
    return 0
