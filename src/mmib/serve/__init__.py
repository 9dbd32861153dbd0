"""The command `mmib serve`: serve trained models as a web page and a JSON API."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.util import find_spec

from mmib.base.argument_parser import CommandParser, add_model_options
from mmib.schema import ConfigError
from mmib.serve.limits import Limits

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
# A host name or address as browsers send it, with a port unless it is the default one.
NAME = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
HELP = {
    "body": "bytes of a request, its image included",
    "characters": "characters of the text of a post",
    "pixels": "pixels of an image, and of all images in one forward pass",
    "entities": "entities given with a post",
    "samples": "latent samples per request",
    "posts": "posts per request, and per forward pass",
    "waiting": "posts at a time; more are answered with 503",
    "client": "posts of one client at a time; behind a proxy, of all clients",
    "connections": "connections of one client; behind a proxy, of all clients",
    "seconds": "seconds until a request times out",
}


def run(arguments: list[str]) -> int:
    """Serve until interrupted.

    Raises:
        ConfigError: a limit that cannot work, a name that no host can have, a missing package, or an address that
            cannot be bound.
        ExportError: a model that cannot be read.
        EncoderError: the packages of the runtime are not installed, or it cannot run an image encoder.
        TaskError: a model of a task that is not registered.
        PluginError: a plugin cannot be imported.
    """
    chosen = _parser().parse_args(arguments)
    limits = Limits(**{field.name: getattr(chosen, field.name) for field in fields(Limits)})
    names = frozenset(map(_checked, chosen.name))
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"mmib serve needs {', '.join(missing)}: pip install 'mmib[serve]'")

    from mmib.serve.process import listen, serve  # noqa: PLC0415 - help needs no torch

    # Bind before loading the models, which takes longer than finding out that the port is in use.
    with listen(chosen.host, chosen.port) as listener:
        from mmib.extract.extractor import Extractor  # noqa: PLC0415

        options = {"device": chosen.device, "runtime": chosen.runtime, "precision": chosen.precision}
        extractor = Extractor.from_pretrained(*chosen.model, **options)
        serve(extractor, limits, listener, names, chosen.open, chosen.log == "json")
    return 0


def _checked(name: str) -> str:
    if not NAME.fullmatch(name.lower()):
        raise ConfigError(
            f"--name is {name!r}: write the name of the host, with the port unless it is 80 or 443: mmib.example.org"
        )
    return name.lower()


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib serve",
        description="Serve a model as a web page, to try it on posts, and as a JSON API. By default it is reachable "
        "from this machine only. An interrupt stops it after the running requests.",
    )
    add = parser.add_argument
    add_model_options(parser)
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=int, default=8000, help="port to listen on; 0 for any free port (default: %(default)s)")
    add(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="name under which a reverse proxy serves the page, such as mmib.example.org; may be repeated",
    )
    add("--open", action="store_true", help="open the page in a browser")
    add(
        "--log",
        choices=("text", "json"),
        default="text",
        help="text: failures; json: failures and all requests, as JSON lines without contents (default: %(default)s)",
    )
    group = parser.add_argument_group("limits")
    for field in fields(Limits):
        group.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            help=f"{HELP[field.name]} (default: %(default)s)",
        )
    return parser
