"""Command lines of trials, compared with those that W&B's own agent builds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from wandb import wandb_agent

from mmib.schema import ConfigError
from mmib.search.sweep.command import DEFAULT_COMMAND, check_command, command_line

VALUES = {
    "data.sizes": [1, 2],
    "model": {"beta": 0.5, "name": "x y"},
    "model.beta_text": 1e-05,
    "model.flag": False,
    "model.learn": True,
    "name": "null",
    "seed": 3,
}


def command_of_agent(
    command: Sequence[str], program: str, values: dict[str, Any], monkeypatch: Any, folder: Any
) -> Any:
    """The command that W&B's agent would start."""
    started = []
    monkeypatch.setattr(
        wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or type("P", (), {})()
    )
    monkeypatch.setenv("WANDB_DIR", str(folder))
    for variable in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SWEEP_ID"):
        monkeypatch.setenv(variable, "")  # restores what the agent sets
    agent = wandb_agent.Agent(api=None, queue=None)
    agent._sweep_command = list(command)
    arguments = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"run_id": "run", "program": program, "args": arguments})
    return started[0]


@pytest.mark.parametrize(
    "command",
    [
        DEFAULT_COMMAND,
        ("${env}", "${interpreter}", "-m", "${program}", "fit", "--config", "mre-study", "${args}"),
        ("${interpreter}", "${program}", "${args_no_equals}", "--trainer.max_epochs", "2"),
        ("${env}", "OMP_NUM_THREADS=1", "/bin/${envvar:SHELL_NAME}-x", "${envvar:SHELL_NAME}", "${args}", "a b"),
    ],
)
def test_command_lines_match_those_of_the_agent(command: Sequence[str], monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("SHELL_NAME", "my shell")
    expected = command_of_agent(command, "train.py", VALUES, monkeypatch, tmp_path)
    assert "--model.flag" in " ".join(expected)
    line = command_line(check_command(list(command), "train.py", "file"), "train.py", VALUES)
    assert ["python" if part == sys.executable else part for part in line] == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["${args_no_boolean_flags}"], "leaves out values that are False"),
        (["${args_no_hyphens}"], "reads options of the form --key=value only"),
        (["${args_append_hydra}"], "reads options of the form --key=value only"),
        (["${args_json}"], "take ${args} or ${args_no_equals}"),
        (["${arg}"], "W&B does not fill in '${arg}'"),
        (["--all=${args}"], "a macro is a separate item"),
        (["${env}", "mmib", "fit"], "passes no parameters"),
        (["${program}", "${args}"], "there is no 'program'"),
        (["${envvar:NOT_SET_ANYWHERE}", "${args}"], "NOT_SET_ANYWHERE, which is not set"),
        ("mmib fit ${args}", "'command' must be a list"),
        ([], "'command' must be a list"),
    ],
)
def test_commands_that_would_not_do_what_they_appear_to_do_are_refused(command: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_command(command, None, "my.yaml")
    assert "my.yaml" in str(error.value)
    assert message in str(error.value)
