"""The early check accepts everything that the parser of the trainer commands accepts, and refuses nothing else."""

from __future__ import annotations

import json
import random
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.configs import expand_configs, shipped_experiments
from mmib.options.composition import Option, check, compose, options, options_of
from mmib.options.schema import classes, forms
from mmib.schema import ConfigError
from mmib.training.option_schema import parsers

ROOT = Path(__file__).parents[3]
EXPERIMENTS = [path.stem for path in shipped_experiments()]
DEMO = ("--config", "mre-demo")
# Values of each type, in the notations that users write.
WRITTEN = {
    "boolean": ["true", "False", "no"],
    "integer": ["3", "0x10", "1_000"],
    "number": ["0.5", "1", "1e-3", ".5"],
    "string": ["abc", "5", "[x", "{a: 1}", ""],
}
Accepts = Callable[..., bool]


@pytest.fixture(scope="module")
def accepts() -> Accepts:
    """Whether the parser of a command accepts arguments."""
    found = parsers()

    def parse(command: str, *arguments: str) -> bool:
        try:
            found[command].parse_args(expand_configs([command, *arguments])[1:])
        except ArgumentError:
            return False
        return True

    return parse


def refusal(command: str, *arguments: str) -> str:
    """The reason for a refusal; empty if arguments are not refused."""
    try:
        check(command, expand_configs([command, *arguments])[1:])
    except ConfigError as error:
        return str(error).removeprefix("the configuration is not valid: ")
    return ""


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


# Composition


def test_files_and_options_are_composed_in_order(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", {"trainer": {"max_epochs": 7, "callbacks+": ["mmib.callbacks.AveragedWeights"]}})
    options = ["--model.optimizer.lr=1e-2", "--data.init_args.batch_size", "3", "--name", "5"]
    config = compose("fit", expand_configs(["fit", *DEMO, "--config", file, *options])[1:])
    assert config["trainer"]["max_epochs"] == 7
    assert [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]] == [
        *("SelectedCheckpoint", "LastCheckpoint", "IBMonitor", "LatentSpace", "AveragedWeights")
    ]
    assert config["model"]["init_args"]["optimizer"] == {"lr": "1e-2", "text_lr": 1e-4}
    assert config["data"]["init_args"]["batch_size"] == 3
    assert config["name"] == "5"


def test_a_class_keeps_arguments_of_the_previous_class_that_it_accepts() -> None:
    arguments = [*DEMO, "--model.backbone.fusion.heads=6", "--model.backbone.fusion=mmib.nn.fusion.LateFusion"]
    config = compose("fit", expand_configs(["fit", *arguments])[1:])
    fusion = config["model"]["init_args"]["backbone"]["init_args"]["fusion"]
    assert fusion == {"class_path": "mmib.nn.fusion.LateFusion", "init_args": {"dropout": 0.0}}


# Refusals


REFUSED = {
    ("--trainer.max_epoch=3",): "trainer.max_epoch is no option of Trainer: did you mean max_epochs?",
    ("--model.gama=1",): "model.gama is no option of MREModule: did you mean gamma?",
    ("--model.backbone.fusion.dim=3",): "model.backbone.fusion.dim is no option of CrossModalFusion: choose from "
    "dropout, heads",
    ("--model.optimizer={lrr: 1}",): "model.optimizer.lrr is no option of OptimizerSettings: did you mean lr?",
    ("--max_epochs=3",): "--max_epochs=3 is no option of mmib fit: did you mean trainer.max_epochs?",
    ("stray",): "stray is no option of mmib fit; mmib fit --help lists all options",
    ("--evaluate=1",): "evaluate: expected bool or choose from 'val', got '1'",
    ("--data.batch_size=4.0",): "data.batch_size: expected int, got '4.0'",
    ("--data.batch_size='4'",): "data.batch_size: expected int, got \"'4'\"",
    ("--model.gamma=true",): "model.gamma: expected float, got 'true'",
    ("--plugins=[1]",): "plugins: expected str, got 1",
    ("--seed_everything=x",): "seed_everything: expected bool or int, got 'x'",
    ("--wandb=false",): "wandb: choose from 'auto', 'online', 'offline', 'off', got 'false'",
    ("--trainer.deterministic=x",): "trainer.deterministic: expected bool or choose from 'warn', got 'x'",
    ("--trainer.precision=31",): "trainer.precision: choose from '64', '32', '16'",
    ("--model.optimizer.other_lrs={a: x}",): "model.optimizer.other_lrs.a: expected float, got 'x'",
    ("--trainer.max_epochs=many", "--trainer.max_epochs=3"): "trainer.max_epochs: expected int, got 'many'",
    ("--model.beta_schedule=mmib.optim.Cyclic", "--model.beta_schedule.cycle=2"): "model.beta_schedule.cycle is no "
    "option of Cyclic: did you mean cycles?",
    ("--data.batch_size", "--name", "x"): "--data.batch_size needs a value",
    ("--data=null",): "it names no data",
}


@pytest.mark.parametrize(("arguments", "reason"), REFUSED.items(), ids=[" ".join(key) for key in REFUSED])
def test_arguments_refused_by_the_parser_are_refused_in_one_sentence(
    accepts: Accepts, arguments: tuple[str, ...], reason: str
) -> None:
    assert refusal("fit", *DEMO, *arguments).startswith(reason)
    assert not accepts("fit", *DEMO, *arguments)


FILES = {
    "name: 5": "name: expected str, got 5",
    "wandb: off": "wandb: choose from 'auto', 'online', 'offline', 'off', got False",
    "data: {init_args: {batch_size: 5.0}}": "data.batch_size: expected int, got 5.0",
    "trainer: {callbacks+: [{class_path: mmib.callbacks.IBMonitor, init_args: {gradient_every: 1}}]}": "trainer."
    "callbacks.gradient_every is no option of IBMonitor: did you mean gradients_every?",
    "verbose: true": "verbose is no option of mmib fit, but of validate and test",
}


@pytest.mark.parametrize(("text", "reason"), FILES.items(), ids=list(FILES))
def test_files_are_checked_in_the_same_way(accepts: Accepts, tmp_path: Path, text: str, reason: str) -> None:
    arguments = (*DEMO, "--config", write(tmp_path / "mine.yaml", text))
    assert refusal("fit", *arguments).startswith(reason)
    assert not accepts("fit", *arguments)


# Accepted configurations


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_no_experiment_is_refused(command: str, experiment: str) -> None:
    assert not refusal(command, "--config", experiment)


LEFT_TO_THE_PARSER = [
    ["--model=custom.Module", "--model.anything=1"],
    ["--model=MNERModule", "--model.constrained=false"],
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/f1"],
    ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x"],
    ["--trainer.logger=false", "--trainer.callbacks=null"],
    ["--optimizer=Adam", "--optimizer.lr=1"],
    ["--trainer={max_epochs: 4}"],
    ["--trainer.max_time", "00:01:00:00", "--trainer.gradient_clip_val=null"],
    ["--trainer.max_time.hours", "1"],
    ["--trainer.devices=[0,1]", "--trainer.max_epochs", "-1"],
    [r"--model.optimizer.other_lrs.^(crf|head)\.=1"],
    ["--model.optimizer.other_lrs={head: 1e-2}"],
    ["--data.labels={names: [a, b], negative: a}"],
    ["--model.regularizers+=custom.Term", "--model.regularizers.weight=1"],
    ["--model.dict_kwargs.anything=6"],
    ["--model.optimizer=null", "--model.optimizer.lr=1"],
    ["--data.demo.size=tiny"],
    ["--print_config=skip_null", "--nonsense"],
    ["--model.help", "custom.Module"],
]


@pytest.mark.parametrize("arguments", LEFT_TO_THE_PARSER, ids=" ".join)
def test_uncertain_cases_are_left_to_the_parser(arguments: list[str]) -> None:
    assert not refusal("fit", *DEMO, *arguments)


def documented() -> Iterator[str]:
    """Options of model, data and trainer in the documentation, sweep files and study files."""
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        if "generated" in document.parts:  # built by make docs
            continue
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, value in re.findall(r"--((?:data|model|trainer)\.[a-z\d_.+]+)[ =]([^\s`'\[\]<>…]{2,}|[a-z\d])", text):
            yield f"--{name}={value}"
    for path in (ROOT / "experiments").rglob("*.yaml"):
        parameters = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("parameters", {})
        for name, described in parameters.items():
            for value in described.get("values", [part for key, part in described.items() if key in ("value", "min")]):
                yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def test_documented_options_and_options_of_sweeps_and_studies_are_accepted() -> None:
    tried = sorted(set(documented()))
    assert len(tried) > 30
    for option in tried:
        configs = (["mre-demo"], ["mner-demo"], ["mner-twitter2017-offline"], ["mre-demo", "model/side_text.yaml"])
        lines = ([f"--config={name}" for name in names] for names in configs)
        assert not all(refusal("fit", *line, option) for line in lines), option


def sampled(option: Option, source: random.Random) -> str | None:
    """A value that the option accepts; None if only a class knows."""
    values = list(classes(option.node)) if source.random() < 0.5 else []
    for form in forms(option.node):
        values += map(str, form.get("enum", WRITTEN.get(form.get("type", ""), [])))
    return source.choice(values) if values else None


@pytest.mark.parametrize("seed", range(2))
def test_everything_accepted_by_the_parser_is_accepted(accepts: Accepts, seed: int) -> None:
    """Options with random values: each set is tried by both, and halved if the parser refuses it."""
    source = random.Random(seed)
    experiment = source.choice(EXPERIMENTS)
    config = compose("fit", expand_configs(["fit", "--config", experiment])[1:])
    known = [option for option in options(options_of("fit"), config) if option.name != "run"]
    chosen = [(option, sampled(option, source)) for option in source.sample(known, 20)]
    waiting = [[f"--{option.name}={value}" for option, value in chosen if value is not None]]
    accepted = 0
    while waiting:
        arguments = waiting.pop()
        if accepts("fit", "--config", experiment, *arguments):
            assert not refusal("fit", "--config", experiment, *arguments)
            accepted += len(arguments)
        elif len(arguments) > 1:
            half = len(arguments) // 2
            waiting += [arguments[:half], arguments[half:]]
    assert accepted >= 6
