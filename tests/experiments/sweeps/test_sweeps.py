"""Every shipped sweep file can be run unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from pytorch_lightning import Trainer

from mmib.cli import main
from mmib.search.sweep.command import command_line
from mmib.search.sweep.file import read_sweep
from mmib.search.sweep.parameters import nested

FOLDER = Path(__file__).parents[3] / "experiments" / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))


def setting(config: Any, name: str) -> Any:
    """A value of a composed configuration by its short name, without `init_args`."""
    for key in name.split("."):
        config = config[key] if key in config else config["init_args"][key]
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_sets_every_parameter_in_the_configuration(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = read_sweep(path)
    values = file.sample(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
    keys = {parameter.name: parameter.keys for parameter in file.parameters}
    line = command_line(file.command, file.program, nested({keys[name]: value for name, value in values.items()}))
    assert line[2:5] == ["-m", "mmib", "fit"]
    with pytest.raises(SystemExit) as leave:
        main([*line[4:], "--print_config"])
    assert not leave.value.code
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["name"] == f"{path.stem.partition('-')[0]}-study"
    assert {name: setting(config, name) for name in values} == values
    ends_and_validations = ("max_epochs", "max_steps", "val_check_interval", "check_val_every_n_epoch")
    Trainer(accelerator="cpu", logger=False, **{name: config["trainer"][name] for name in ends_and_validations})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_sweeps_optimise_the_validation_score(path: Path) -> None:
    file = read_sweep(path)
    assert (file.metric.name, file.metric.goal) == ("val/f1", "maximize")
    assert file.trials(None) == (12 if file.method == "grid" else 40)


def test_both_tasks_have_the_same_sweeps() -> None:
    names = {task: {path.name.removeprefix(task) for path in FOLDER.glob(f"{task}*")} for task in ("mre", "mner")}
    assert names["mre"] == names["mner"] == {".yaml", "-grid.yaml", "-hyperband.yaml"}
