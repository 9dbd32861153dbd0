"""Run a sweep with W&B: register it there and start agents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mmib.schema import JobError
from mmib.search.sweep.file import SweepFile

DEFAULT_PROJECT = "mmib"


def run_online(file: SweepFile, cap: int | None, agents: int) -> int:
    """Register a sweep and start agents, which run until W&B has no more trials.

    Raises:
        ConfigError: the number of trials is unlimited.
        JobError: W&B rejects the sweep, or an agent ends with an error.
    """
    import wandb  # noqa: PLC0415 - costs seconds

    file.trials(cap)  # raises an error for an unlimited sweep
    content = {**file.content, "name": file.name} | ({} if cap is None else {"run_cap": cap})
    project = file.content.get("project", DEFAULT_PROJECT)
    try:
        sweep = wandb.sweep(content, project=project, entity=file.content.get("entity"))
    # The client raises many types of errors, including those of its network stack.
    except Exception as error:
        raise JobError(f"W&B rejected the sweep {file.path} ({error}); to run it here: --local") from error
    command = [sys.executable, "-m", "wandb", "agent", "--project", project, sweep]
    # An agent starts `python`, which must be this interpreter.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    processes = [subprocess.Popen(command, env={**os.environ, "PATH": search}) for _ in range(agents)]  # noqa: S603
    try:
        statuses = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
    if any(statuses):
        raise JobError(f"an agent of the sweep {sweep} ended with status {max(statuses)}; its output is above")
    return 0
