"""W&B sweeps: a real client registers them and real agents run them, with a stub of its API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from mmib.cli import main
from mmib.search.sweep.command import command_line
from mmib.search.sweep.file import read_sweep

from .wandb_server import ENTITY, wandb_server

RECORDER = """
import json, sys
from pathlib import Path
Path(__file__).with_name(sys.argv[sys.argv.index("--config") + 1] + ".json").write_text(json.dumps(sys.orig_argv))
"""
VALUES = {"model.beta_text": 1e-05, "model.learn": False, "model.name": "x y", "trainer.max_epochs": 2}
PARAMETERS = {name: {"value": value} for name, value in VALUES.items()}
OUR_COMMAND = ["${env}", "${interpreter}", "-m", "${program}", "fit", "--config", "ours", "${args}"]
DEFAULT_FORM = ["${env}", "${interpreter}", "${program}", "${args}", "--config", "default"]


@pytest.fixture(autouse=True)
def _own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.slow
def test_agents_run_our_command_lines(tmp_path: Path) -> None:
    """Two agents at once, as each polls its server only every five seconds; `mmib sweep` registers and starts one."""
    (tmp_path / "recorder.py").write_text(RECORDER)
    forms = {"ours": (OUR_COMMAND, "recorder"), "default": (DEFAULT_FORM, str(tmp_path / "recorder.py"))}
    for name, (command, program) in forms.items():
        content = {"program": program, "command": command, "method": "grid", "metric": {"name": "val/f1"}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**content, "parameters": PARAMETERS}))
    with wandb_server(dict.fromkeys(forms, VALUES)) as server:
        server.registered["default"] = (tmp_path / "default.yaml").read_text()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
            "WANDB_BASE_URL": server.address,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(tmp_path),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
        }
        commands = [["mmib", "sweep", "ours.yaml", "--trials", "1"], ["wandb", "agent", f"{ENTITY}/mmib/default"]]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command in commands
        ]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for name, (command, program) in forms.items():
        line = command_line(command, program, VALUES)
        expected = ["python" if part == sys.executable else part for part in line[1:]]
        assert json.loads((tmp_path / f"{name}.json").read_text()) == expected
    content = read_sweep(tmp_path / "ours.yaml").content
    assert yaml.safe_load(server.registered["ours"]) == {**content, "name": "ours", "run_cap": 1}


def test_a_sweep_refused_by_wandb_names_the_offline_alternative(
    write_sweep: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(wandb, "sweep", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert main(["sweep", str(write_sweep())]) == 2
    assert "nobody there); to run it here: --local" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_key_is_not_used_if_wandb_is_disabled(
    write_sweep: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert main(["sweep", str(write_sweep()), "--runs", str(tmp_path / "runs"), "--trials", "1"]) == 0
    assert list(tmp_path.glob("runs/*/trials.csv"))
