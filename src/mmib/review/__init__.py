"""The command `mmib review`: correct predictions on a web page, and save the corrections to a file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.base.wording import counted
from mmib.schema import ConfigError

# Only ever reachable from this machine: anyone who can open the page can change the file.
HOST = "127.0.0.1"


def run(arguments: list[str]) -> int:
    """Serve the page until interrupted.

    Raises:
        ConfigError: a missing package, an address that cannot be bound, a file of corrections that is open in another
            process, or options that do not apply to the predictions.
        DataError, RunError: predictions or corrections that cannot be read, or that belong to different data sets.
        TaskError: the task of the predictions is not registered, or finds neither entities nor relations.
        PluginError: a plugin cannot be imported.
    """
    chosen = _parser().parse_args(arguments)
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"mmib review needs {', '.join(missing)}: pip install 'mmib[serve]'")
    from mmib.review.app import create_app  # noqa: PLC0415 - help needs no torch
    from mmib.review.corrections import Corrections  # noqa: PLC0415
    from mmib.review.predictions import read_predictions  # noqa: PLC0415
    from mmib.serve import process  # noqa: PLC0415
    from mmib.serve.guard import allowed_hosts  # noqa: PLC0415
    from mmib.serve.limits import Limits  # noqa: PLC0415

    predictions = read_predictions(
        chosen.predictions, chosen.task, chosen.posts, _names(chosen.types), _names(chosen.relations)
    )
    output = chosen.output or chosen.predictions.with_suffix(".corrected.jsonl")
    inputs = [chosen.predictions, *([chosen.posts] if chosen.posts else [])]
    with process.listen(HOST, chosen.port) as listener, Corrections.opened(output, predictions, inputs) as corrections:
        app = create_app(corrections, chosen.images or predictions.root, allowed_hosts(HOST))
        process.run(
            app, Limits(), listener, f"mmib review shows {counted(len(predictions.posts), 'posts')}", chosen.open
        )
        print(f"{output}: {len(corrections):,} of {counted(len(predictions.posts), 'posts')} reviewed")  # noqa: T201
    return 0


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib review",
        description="Correct predictions by keyboard on a web page, the least certain first. Each correction is saved "
        "at once, as JSON lines that mmib fit trains on. The page is reachable from this machine only.",
        epilog="docs/how-to/review.md explains how to improve data with a model",
    )
    add = parser.add_argument
    add(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="RUN/predictions/SPLIT.jsonl, or the output of mmib extract",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file of corrections; an existing one is resumed (default: beside PREDICTIONS, .corrected.jsonl)",
    )
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder of the images (default: the data of the run, or the folder of --posts)",
    )
    add("--posts", type=Path, metavar="FILE", help="posts that were the input of mmib extract, to locate the images")
    add("--task", metavar="NAME", help="task, for predictions of mmib predict, such as mner (default: the run's)")
    add(
        "--types",
        default="",
        metavar="A,B",
        help="further entity types to offer, besides those that mmib extract found",
    )
    add(
        "--relations",
        default="",
        metavar="A,B",
        help="further relations to offer, besides those that mmib extract found",
    )
    add("--port", type=int, default=8000, help="port to listen on; 0 for any free port (default: %(default)s)")
    add("--open", action="store_true", help="open the page in a browser")
    return parser
