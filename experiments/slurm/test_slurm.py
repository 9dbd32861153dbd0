"""Test the batch scripts on a one-node SLURM cluster that is started for the test: `make test-slurm`.

A run of two tasks is requeued in mid-epoch by `scontrol requeue`, by the signal before the time limit and by the signal
of pre-emption, and must end like an uninterrupted run, bit for bit. Then follow a job that loses a rank, an array of
sweep trials, and an array of seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
import yaml

from experiments.robustness.kill_and_resume import differences
from mmib.runs.resumption import LAST
from mmib.search.trials import end_process

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
FOLDER = Path(__file__).parent
OPTIONS = [
    *("--config", str(FOLDER.parent / "robustness" / "resume.yaml"), "--config", "trainer/ddp_cpu.yaml"),
    *("--wandb", "off", "--trainer.enable_progress_bar", "false"),
]
REQUEUES = {
    "scontrol": ["scontrol", "requeue"],
    "the signal before the time limit": ["scancel", "--batch", "--signal=USR1"],
    "SIGTERM to its ranks, as pre-emption sends it": ["scancel", "--signal=TERM"],
}
TRIALS = ["--model.gamma 0 --name 'no alignment'", "--model.gamma 0.1", "--model.gamma 0.2"]
ENDED_BADLY = {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"}
INSTALL_S, START_S, JOB_S, DEATH_S, POLL_S = 300, 60, 900, 60, 0.2
SLURM_CONF = """
ClusterName=mmib
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={work}/munge.socket
StateSaveLocation={work}/state
SlurmdSpoolDir={work}/spool
SlurmctldPidFile={work}/slurmctld.pid
SlurmdPidFile={work}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE
"""


class ClusterError(Exception):
    """An expected event did not happen; the message names it."""


def install() -> None:
    """Install SLURM and munge unless they are installed.

    Raises:
        ClusterError: they are missing, and cannot be installed.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if not missing():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' and '.join(PACKAGES)}", flush=True)
        # Wait for the lock, as another installation may be running.
        wait = ["-o", f"DPkg::Lock::Timeout={INSTALL_S}"]
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *wait, *PACKAGES]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "--quiet"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)
    if missing():
        raise ClusterError(f"{', '.join(missing())} not found: install the packages {' and '.join(PACKAGES)}")


def missing() -> list[str]:
    """List the programs of SLURM and munge that are missing."""
    return [program for program in PROGRAMS if not shutil.which(program)]


@contextmanager
def cluster(work: Path) -> Iterator[None]:
    """Start a SLURM cluster on the loopback interface, one node with two CPUs, for the commands in this context."""
    for folder in ("state", "spool"):
        (work / folder).mkdir()
    key = work / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    names = {"host": socket.gethostname().partition(".")[0], "user": pwd.getpwuid(os.geteuid()).pw_name, "work": work}
    ports = {"controller_port": free_port(), "node_port": free_port()}
    (work / "slurm.conf").write_text(SLURM_CONF.format(**names, **ports))
    os.environ["SLURM_CONF"] = str(work / "slurm.conf")
    files = {"key-file": key, "socket": work / "munge.socket", "pid-file": work / "munged.pid"}
    files |= {"seed-file": work / "munge.seed", "log-file": work / "munged.log"}
    with ExitStack() as stack:
        stack.callback(end_leftovers)
        # --force: munged refuses a temporary folder, because others can write to it.
        daemon(stack, work, "munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items()))
        wait_for(files["socket"].exists, "munged to listen", START_S)
        daemon(stack, work, "slurmctld", "-D", "-c")
        daemon(stack, work, "slurmd", "-D", "-N", str(names["host"]))
        wait_for(lambda: "idle" in ask("sinfo", "--noheader", "--format=%T"), "the node to be idle", START_S)
        stack.callback(cancel_all)
        yield


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def daemon(stack: ExitStack, work: Path, *command: str) -> None:
    """Start a program, and stop it when `stack` is closed."""
    with (work / f"{command[0]}.output").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    stack.callback(end_process, process)


def end_leftovers() -> None:
    """Kill the cluster's remaining processes: a hanging job outlives the daemon that should end it."""
    mark = f"SLURM_CONF={os.environ.pop('SLURM_CONF')}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        # Processes may end in the meantime, and those of other users cannot be read.
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def cancel_all() -> None:
    """Cancel all jobs."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    subprocess.run(["scancel", "--user", user], check=False)
    try:
        wait_for(lambda: not ask("squeue", "--noheader"), "the jobs to end", START_S)
    except ClusterError as failure:
        print(failure, file=sys.stderr)


def ask(*command: str) -> str:
    """Return the output of a command; empty if it fails without output."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def wait_for(done: Callable[[], object], what: str, seconds: float = JOB_S) -> None:
    """Wait until a condition holds.

    Raises:
        ClusterError: it does not hold in time.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise ClusterError(f"waited {seconds:.0f} s for {what}")
        time.sleep(POLL_S)


class Job:
    """A submitted job of one of the batch scripts, with its runs in `work/runs`."""

    def __init__(self, work: Path, sbatch: list[str], script: list[str], *options: str) -> None:
        self.work = work
        self.output = work / f"{len(list(work.glob('*.job')))}.job"
        self.output.touch()
        command = ["sbatch", "--parsable", f"--output={self.output}", *sbatch, str(FOLDER / script[0]), *script[1:]]
        command += [*OPTIONS, "--data.root", str(work / "demo"), "--runs", str(work / "runs"), *options]
        started = subprocess.run(command, check=True, capture_output=True, text=True)
        self.id = started.stdout.strip()
        print(f"submitted {self.id}: {shlex.join([*sbatch, *script])}", flush=True)

    @property
    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, ..."""
        return ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={self.id}")

    @property
    def run(self) -> Path:
        """Run folder, which is named after the job."""
        return self.work / "runs" / "resume" / f"slurm-{self.id}"

    def step(self) -> int:
        """Optimiser step of the newest checkpoint; 0 without one."""
        last = self.run / "checkpoints" / LAST
        return int(torch.load(last, weights_only=True, mmap=True)["global_step"]) if last.is_file() else 0

    def wait_for_step(self, step: int) -> None:
        """Wait until the job is running and has a checkpoint of this step or a later one."""
        self._wait(lambda: self.state == "RUNNING" and self.step() >= step, f"a checkpoint of step {step}")

    def wait_for_restart(self, restarts: int) -> None:
        """Wait until SLURM has restarted the job, skipping the delay that SLURM makes before a restart."""

        def restarted() -> bool:
            if self.state == "PENDING":
                ask("scontrol", "update", f"JobId={self.id}", "StartTime=now")
            return f"restarts: {restarts}" in self.output.read_text()

        self._wait(restarted, "the job to start again")

    def wait_for_end(self) -> None:
        """Wait until all tasks of the job have succeeded."""
        self._wait(lambda: set(self.state.split()) == {"COMPLETED"}, "the job to succeed")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        def done_or_failed() -> bool:
            if ENDED_BADLY & set(self.state.split()):
                raise ClusterError(f"job {self.id} is {self.state}, waiting for {what}: see {self.output}")
            return done()

        wait_for(done_or_failed, what)


def test_requeue(work: Path) -> Iterator[tuple[str, bool]]:
    """Compare a job that is requeued several times with an undisturbed one."""
    two = ["--ntasks-per-node=2"]
    whole = Job(work, two, ["job.sh"])
    whole.wait_for_end()
    yield f"a job of two tasks finishes: {describe(whole.run)}", True
    job = Job(work, two, ["job.sh"])
    step = 0
    for restarts, (how, command) in enumerate(REQUEUES.items(), 1):
        job.wait_for_step(step + 1)
        ask(*command, job.id)
        job.wait_for_restart(restarts)
        saved = job.step()
        yield f"requeued by {how}, going on with step {saved}", saved > step
        step = saved
    job.wait_for_end()
    yield "it went on each time", job.output.read_text().count("was requeued: resuming") == len(REQUEUES)
    found = differences(whole.run, job.run)
    yield f"it ends like the other bit for bit: {', '.join(found) or describe(job.run)}", not found


def test_death(work: Path) -> Iterator[tuple[str, bool]]:
    """Kill a rank of a job."""
    job = Job(work, ["--ntasks-per-node=2"], ["job.sh"])
    job.wait_for_step(1)
    # PID, job, step, and local and global number of the task
    processes = [process.split() for process in ask("scontrol", "listpids", job.id).splitlines()]
    os.kill(next(int(process[0]) for process in processes if process[4] == "1"), signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: job.state == "FAILED", "the job to fail after one of its ranks was killed")
    named = "task 1: Killed" in job.output.read_text()
    seconds = time.monotonic() - killed
    yield f"a killed rank ends the job within {seconds:.0f} s, and is named", named and seconds < DEATH_S


def test_arrays(work: Path) -> Iterator[tuple[str, bool]]:
    """Run an array of three trials, and an array of two seeds."""
    trials = work / "trials.txt"
    trials.write_text("\n".join(TRIALS) + "\n")
    short = ("--trainer.max_epochs", "1")
    job = Job(work, ["--array=1-3"], ["array.sh", "--trials", str(trials)], *short)
    job.wait_for_end()
    runs = [work / "runs" / name / f"slurm-{job.id}_{n}" for n, name in enumerate(["no alignment", *["resume"] * 2], 1)]
    gammas = [option(run, "model", "init_args", "gamma") for run in runs]
    yield f"an array of three trials: gamma {gammas}", gammas == [0, 0.1, 0.2] and all(map(describe, runs))
    job = Job(work, ["--array=4,7"], ["array.sh"], *short)
    job.wait_for_end()
    seeds = [option(work / "runs" / "resume" / f"slurm-{job.id}_{n}", "seed_everything") for n in (4, 7)]
    yield f"an array of seeds: {seeds}", seeds == [4, 7]


def option(run: Path, *names: str) -> object:
    """Value of a setting of a run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name in names:
        config = config[name]
    return config


def describe(run: Path) -> str:
    """Format the scores of a finished run."""
    summary = json.loads((run / "summary.json").read_text())
    return ", ".join(f"{split} F1 {summary[split]['f1']:.3f}" for split in ("val", "test"))


def main() -> int:
    """Print a line per check, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the folder with runs and logs; failures keep it too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit normally, so that the cluster is stopped too
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["OMP_NUM_THREADS"] = "1"
    work = Path(tempfile.mkdtemp(prefix="mmib-slurm-"))
    results = []
    try:
        install()
        with cluster(work):
            for test in (test_requeue, test_death, test_arrays):
                for result in test(work):
                    results.append(result)
                    print(line(*result), flush=True)
    except (ClusterError, subprocess.CalledProcessError) as failure:
        results.append((str(failure), False))
    print("\nsummary", *(line(*result) for result in results), sep="\n")
    passed = all(good for _, good in results)
    if passed and not arguments.keep:
        shutil.rmtree(work)
    else:
        print(f"runs, output of the jobs and logs of the daemons: {work}")
    return int(not passed)


def line(what: str, good: bool) -> str:
    """Format a line of the summary."""
    return f"{'PASS' if good else 'FAIL'}  {what}"


if __name__ == "__main__":
    raise SystemExit(main())
