"""The command `mmib`: dispatches by its first word, and imports torch only for what needs it."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

from mmib.files import read_yaml
from mmib.schema import ConfigError, MMIBError

TRAINER_COMMANDS = {
    "fit": "train, select on validation, then test once with the selected checkpoint",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write a checkpoint's predictions for the test split",
}
OTHER_COMMANDS = {
    "demo-data": "write the demo corpus",
    "check-data": "tell what a data folder holds, what is missing, and what a training would stop at",
    "crop-objects": "cut out of the images what posts speak of, with a zero-shot detector",
    "export": "put a run's model into one folder that is used without a network",
    "extract": "find entities and relations in posts: a file, standard input, or a text",
    "serve": "a page to try a model on posts, and a JSON API for programs",
    "sweep": "search settings: a W&B sweep file, run by agents or, without W&B, on this machine",
    "study": "train every combination of named settings and seeds, and compare them",
    "aggregate": "mean, spread and paired tests over runs, as a table",
    "report": "one page about one or several runs, to look at in a browser",
}
CONFIG_OPTIONS = ("--config", "-c")
RUN_OPTION = "--run"
TOP_LEVEL = (
    *("include", "name", "runs", "run", "wandb", "evaluate", "seed_everything", "trainer", "model", "data"),
    *("ckpt_path", "weights_only", "verbose", "return_predictions", "optimizer", "lr_scheduler"),
)
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MAY_NOT = (errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a known error is one message on standard error and exit status 2, without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except MMIBError as error:
        return _refuse(str(error))
    except OSError as error:
        # Whatever was being written: a disk can be full at any moment.
        if error.errno in MAY_NOT:
            return _refuse(f"a file may not be opened: {error}; see who may read and write it, or choose another place")
        if error.errno not in CANNOT_WRITE:
            raise
        return _refuse(
            f"a file cannot be written: {error}; what was saved before is still there: make room, or choose another "
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
    if command in ("-h", "--help"):
        return _show(usage())
    if command == "--version":
        return _show(metadata.version("mmib"))
    if command in TRAINER_COMMANDS:
        expanded = expand_configs(arguments)
        from mmib.training import run

        return run(expanded)
    if command in OTHER_COMMANDS:
        module = importlib.import_module(f"mmib.{command.replace('-', '_')}")
        return int(module.run(arguments[1:]))
    known = ", ".join({**TRAINER_COMMANDS, **OTHER_COMMANDS})
    raise ConfigError(f"the command {command!r} is unknown: choose from {known}")


def _show(text: str) -> int:
    """Print, also to a reader who stops early: `mmib --help | head`."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        # Python flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def usage() -> str:
    """What `mmib --help` prints."""
    commands = "\n".join(f"  {name:12} {text}" for name, text in {**TRAINER_COMMANDS, **OTHER_COMMANDS}.items())
    experiments = "\n".join(f"  {path.stem}" for path in shipped_experiments())
    return (
        "usage: mmib COMMAND [options]\n\n"
        "Multimodal entity and relation extraction with a variational information bottleneck.\n\n"
        f"commands:\n{commands}\n\n"
        f"experiments, for --config NAME (or give the path of a YAML file):\n{experiments}\n\n"
        "examples:\n"
        "  mmib fit --config mre-demo\n"
        "  mmib fit --config mre-mnre-offline --data.root /path/to/mnre --seed_everything 2\n"
        "  mmib fit --run RUN --ckpt_path last                  (go on where a run was stopped)\n"
        "  mmib test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt\n\n"
        "mmib COMMAND --help lists all options; add --print_config to see a composed configuration."
    )


def shipped_experiments() -> list[Path]:
    """The experiment files of the installed package."""
    return sorted(_config_root().joinpath("experiment").glob("*.yaml"))


def expand_configs(arguments: list[str]) -> list[str]:
    """Replace each `--config EXPERIMENT` by the files that it includes, in order, and then the experiment itself.

    An experiment file may name others under `include`, relative to `lightning_configs/` or to itself; it then holds
    only what differs from them. Files given later win.

    Raises:
        ConfigError: a file is missing, is no YAML mapping, has an unknown top-level key, or includes itself.
    """
    expanded: list[str] = []
    rest = iter(with_run_config(arguments))
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in CONFIG_OPTIONS:
            expanded.append(argument)
            continue
        value = value or next(rest, "")
        for path in _with_includes(_resolve(value, Path()), ()):
            expanded += ["--config", str(path)]
    return expanded


def with_run_config(arguments: list[str]) -> list[str]:
    """Put the configuration of the run named by `--run` in front, where no other is given.

    Raises:
        ConfigError: there is no such run.
    """
    for number, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == RUN_OPTION:
            run = Path(value or "".join(arguments[number + 1 : number + 2]))
            config = run / "config.yaml"
            if not config.is_file():
                raise ConfigError(f"there is no run {run}: its config.yaml is missing")
            if any(option.partition("=")[0] in CONFIG_OPTIONS for option in arguments):
                return arguments
            return [*arguments[:1], "--config", str(config), *arguments[1:]]
    return arguments


def _with_includes(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path in above:
        raise ConfigError(f"{path} includes itself, by way of {' -> '.join(str(p) for p in above)}")
    included = _load(path).get("include") or []
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ConfigError(f"{path}: 'include' must be a list of configuration files")
    files = [file for name in included for file in _with_includes(_resolve(name, path.parent), (*above, path))]
    return [*files, path]


def _load(path: Path) -> dict[str, object]:
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}: a configuration is a mapping")
    for key in content:
        if key not in TOP_LEVEL:
            choice = ", ".join(sorted(TOP_LEVEL))
            raise ConfigError(f"{path}: the top-level key {key!r} is unknown: choose from {choice}")
    return content


def _resolve(name: str, folder: Path) -> Path:
    """The file that a name on the command line, or in an include list of a file in `folder`, stands for."""
    root = _config_root()
    for candidate in (folder / name, root / name, root / "experiment" / f"{name}.yaml"):
        if name and _is_file(candidate):
            return candidate.resolve()
    choices = ", ".join(path.stem for path in shipped_experiments())
    raise ConfigError(f"there is no configuration file {name!r}: give a path, or one of the experiments {choices}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name that a file could have
        return False


def _config_root() -> Path:
    return Path(str(resources.files("lightning_configs")))
