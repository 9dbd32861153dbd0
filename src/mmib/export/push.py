"""The command `mmib push`: upload an exported folder to a model hub."""

from __future__ import annotations

from pathlib import Path

from mmib.base.argument_parser import CommandParser


def run(arguments: list[str]) -> int:
    """Upload the folder and print its address.

    Raises:
        ExportError: the folder is not an export, the model exists and is not as public as requested, or the hub
            refuses it.
        TaskError: its task is not registered.
        PluginError: a plugin cannot be imported.
    """
    parser = CommandParser(
        prog="mmib push",
        description="Upload an exported folder to the Hugging Face hub, where Extractor.from_pretrained and --model "
        "find it by name. Log in first with hf auth login, or set HF_TOKEN; HF_ENDPOINT selects another hub.",
    )
    parser.add_argument("folder", type=Path, metavar="EXPORT", help="folder written by mmib export")
    parser.add_argument("name", metavar="USER/NAME", help="name of the model; it is created if it does not exist")
    parser.add_argument(
        "--public",
        action="store_true",
        help="make the model public (default: private; the terms of the data also apply to the weights)",
    )
    chosen = parser.parse_args(arguments)

    from mmib.export.hub import push  # noqa: PLC0415 - help needs no torch

    print(push(chosen.folder, chosen.name, chosen.public))  # noqa: T201
    return 0
