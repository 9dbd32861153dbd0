"""Runs a sweep by W&B: registers it there and starts agents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mmib.schema import JobError
from mmib.search.sweep.file import SweepFile

DEFAULT_PROJECT = "mmib"


def run_online(file: SweepFile, cap: int | None, agents: int) -> int:
    """Register a sweep and start agents, which work until W&B has no trial left for them.

    Raises:
        ConfigError: nothing says how many trials the sweep has.
        JobError: W&B does not take the sweep, or an agent ends with an error.
    """
    import wandb  # noqa: PLC0415 - costs seconds

    file.trials(cap)  # refuses a sweep without an end
    content = {**file.content, "name": file.name} | ({} if cap is None else {"run_cap": cap})
    project = file.content.get("project", DEFAULT_PROJECT)
    try:
        sweep = wandb.sweep(content, project=project, entity=file.content.get("entity"))
    # The client raises many types of errors, those of its network stack included.
    except Exception as error:
        raise JobError(f"W&B did not take the sweep {file.path} ({error}); to run it here: --local") from error
    command = [sys.executable, "-m", "wandb", "agent", "--project", project, sweep]
    # An agent starts `python`, which is to be this one.
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
