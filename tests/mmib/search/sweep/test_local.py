"""The local runner, with a stub command instead of training."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmib.cli import main
from mmib.search import trials
from mmib.search.sweep import local

GRID = {"model.beta": {"values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}
RANDOM = {"model.beta": {"min": 0.0, "max": 0.8}}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "POLL_S", 0.02)
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: handler)


def sweep(path: Path, *options: str) -> int:
    return main(["sweep", str(path), "--runs", str(path.parent / "runs"), "--local", *options])


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mmib", "sweep", str(path), "--runs", str(path.parent / "runs"), "--local"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def folder_of(path: Path) -> Path:
    (folder,) = (path.parent / "runs").iterdir()
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with (folder_of(path) / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def starts(path: Path) -> dict[str, list[list[str]]]:
    """Command lines of all starts of each trial's run."""
    logs = sorted(folder_of(path).glob("points/*/starts.log"))
    return {log.parent.name: [json.loads(line) for line in log.read_text().splitlines()] for log in logs}


def wait_for(condition: Callable[[], Any]) -> Any:
    """The value of a condition once it is truthy."""
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.smoke
def test_a_grid_runs_each_trial_once_and_reports_the_best(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep()
    assert sweep(path) == 0
    assert [row["state"] for row in table(path)] == ["finished", "finished"]
    out = capsys.readouterr().out
    assert "trial 1 of 2, model.beta 0.1: finished, val/f1 0.8000; best 0.8000 (trial 1)" in out
    assert "best: trial 2 with val/f1 1.0000: model.beta 0.3" in out
    assert f"trials: {folder_of(path) / 'trials.csv'}" in out
    best = json.loads((folder_of(path) / "sweep.json").read_text())["best"]
    assert (best["values"], best["metric"]) == ({"model.beta": 0.3}, 1.0)
    assert Path(best["run"], "summary.json").is_file()
    before = starts(path)
    assert sweep(path) == 0
    assert starts(path) == before


def test_the_table_ranks_trials_and_shows_the_measures_of_their_runs(
    write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(parameters={"model.beta": {"values": [0.1, 0.9, 0.2]}})
    assert sweep(path) == 0
    page = folder_of(path) / "table.md"
    assert f"table: {page}" in capsys.readouterr().out
    title, _, facts, _, *rows = page.read_text().splitlines()
    assert title == "# toy"
    assert facts.endswith("toy.yaml`: 2 finished trials, 1 failed, the best first.")
    assert str(path.parent) not in facts
    assert rows == [
        "| trial | model.beta | val/f1 | rate, nats per piece |",
        "| ---: | ---: | ---: | ---: |",
        "| 3 | 0.2 | 0.9000 | 20 |",
        "| 1 | 0.1 | 0.8000 | 10 |",
    ]


def test_the_reported_command_is_the_one_that_ran(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(parameters={"model.beta": {"value": 0.3}, "model.flag": {"values": ["x y", "[1]"]}})
    assert sweep(path) == 0
    assert "'--model.flag=x y'" in capsys.readouterr().out
    run = str(folder_of(path) / "points" / "001")
    assert starts(path)["001"] == [["--model.beta=0.3", "--model.flag=x y", "--runs", run]]


def test_processes_share_a_grid(write_sweep: Any) -> None:
    path = write_sweep(parameters=GRID)
    processes = [start(path, "--parallel", "2"), start(path)]
    assert [process.wait(60) for process in processes] == [0, 0]
    rows = table(path)
    assert [(row["number"], row["state"]) for row in rows] == [(str(number), "finished") for number in range(1, 7)]
    assert [float(row["model.beta"]) for row in rows] == GRID["model.beta"]["values"]
    assert [len(commands) for commands in starts(path).values()] == [1] * 6


@pytest.mark.parametrize("killed", ["sweep", "both", "asked", "asked twice"])
def test_a_killed_sweep_is_resumed(write_sweep: Any, killed: str) -> None:
    """If only the sweep is killed, its run continues and is waited for; if the run is ended too, it is resumed."""
    path = write_sweep(parameters={"model.beta": {"values": [0.3, 0.8]}})
    first = start(path)
    name = "runs/*/points/002/*/*/checkpoints/last.ckpt"
    checkpoint = wait_for(lambda: next((path for path in path.parent.glob(name) if path.read_text() == "2"), None))
    process = int((checkpoint.parents[3] / "pid").read_text())
    if killed.startswith("asked"):
        first.terminate()
        if killed == "asked twice":
            time.sleep(0.01)
            first.send_signal(signal.SIGINT)
            first.terminate()
        assert first.wait(20) == 130
        wait_for(lambda: not Path(f"/proc/{process}").exists())
    else:
        first.kill()
        first.wait()
        if killed == "both":
            os.kill(process, signal.SIGKILL)
    assert [row["state"] for row in table(path)] == ["finished", "running"]
    (checkpoint.parents[3] / "go").touch()
    assert sweep(path) == 0
    assert [row["state"] for row in table(path)] == ["finished", "finished"]
    commands = starts(path)
    assert len(commands["001"]) == 1
    resumed = [command[-4:] for command in commands["002"][1:]]
    run = str(checkpoint.parents[1])
    assert resumed == ([] if killed == "sweep" else [["--run", run, "--ckpt_path", "last"]])
    history = (checkpoint.parents[1] / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in history] == ["step", "0", "1", "2"]


def test_a_sweep_of_version_0_1_is_not_resumed(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Its betas had another unit: trials of both versions would be compared as if they were of one."""
    path = write_sweep(parameters={"model.beta": {"value": 0.3}})
    assert sweep(path) == 0
    journal = folder_of(path) / "journal.log"
    lines = [line for line in journal.read_text().splitlines(keepends=True) if "beta_unit" not in line]
    journal.write_text("".join(lines))
    before = starts(path)
    assert sweep(path) == 2
    assert "was begun by version 0.1" in capsys.readouterr().err
    assert starts(path) == before


def test_a_trial_that_fails_is_recorded_and_the_sweep_continues(
    write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(parameters={"model.beta": {"values": [0.9, 0.3]}})
    assert sweep(path) == 0
    failed, finished = table(path)
    assert (failed["state"], finished["state"]) == ("failed", "finished")
    assert failed["reason"].startswith("status 1: mmib: beta is too strong: | take less")
    assert "trial 1 of 2, model.beta 0.9: failed, status 1: mmib: beta is too strong" in capsys.readouterr().out


def test_a_sweep_with_only_failures_exits_with_status_1(write_sweep: Any) -> None:
    path = write_sweep(parameters={"model.beta": {"value": 0.9}})
    assert sweep(path) == 1
    assert sweep(path) == 1
    assert len(starts(path)["001"]) == 1


@pytest.mark.parametrize("wrong", [{"model.betta": {"value": 0.3}}, {"model.beta": {"values": ["strong"]}}])
def test_parameters_not_accepted_by_the_command_are_refused_before_the_first_run(
    write_sweep: Any, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any]
) -> None:
    path = write_sweep(parameters=wrong)
    assert sweep(path) == 2
    error = capsys.readouterr().err
    assert f"mmib: {path}: the command does not take the parameters: status 2" in error
    assert next(iter(wrong)) in error
    assert not (folder_of(path) / "points").exists()


def test_a_command_that_cannot_be_started_is_refused(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(write_sweep(command=["no-such-program", "${args}"])) == 2
    assert "the command cannot be run: [Errno 2]" in capsys.readouterr().err


def test_a_metric_that_is_never_logged_ends_the_sweep(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(metric={"name": "val/fi", "goal": "maximize"})
    assert sweep(path) == 2
    error = capsys.readouterr().err
    assert "the metric 'val/fi' was never logged" in error
    assert "which logged train/loss, val/f1: name one of these" in error
    assert len(starts(path)) == 1


def test_a_metric_without_a_finite_value_fails_only_its_trial(write_sweep: Any) -> None:
    path = write_sweep(parameters={"model.beta": {"values": ["nan", 0.3]}})
    assert sweep(path) == 0
    assert [(row["state"], row["reason"]) for row in table(path)] == [
        ("failed", "it never logged a finite val/f1"),
        ("finished", ""),
    ]


def test_no_trial_starts_once_the_target_is_reached(write_sweep: Any) -> None:
    path = write_sweep(parameters=GRID, metric={"name": "val/f1", "goal": "maximize", "target": 0.85})
    assert sweep(path) == 0
    assert [row["model.beta"] for row in table(path)] == ["0.1", "0.2"]


def test_bad_trials_are_stopped_early_by_the_rule(write_sweep: Any) -> None:
    """The rule keeps the second of two trials, and stops the third, which is worse than both."""
    path = write_sweep(
        parameters={"model.beta": {"values": [0.3, 0.7, 0.8, 0.31]}},
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2},
        command=["${interpreter}", "${program}", "--values", "6", "${args}"],
    )
    assert sweep(path) == 0
    rows = table(path)
    assert [row["state"] for row in rows] == ["finished", "finished", "stopped", "finished"]
    logged = (folder_of(path) / "points/003/stub/run/metrics.csv").read_text().splitlines()[1:]
    assert len(logged) == 2
    assert float(rows[2]["val/f1"]) == max(float(line.split(",")[2]) for line in logged)
    before = starts(path)
    assert sweep(path) == 0
    assert starts(path) == before


def test_trials_of_a_random_sweep_are_independent_of_the_sampling_process(write_sweep: Any, tmp_path: Path) -> None:
    path = write_sweep(method="random", parameters=RANDOM)
    assert sweep(path, "--trials", "2") == 0
    assert sweep(path, "--trials", "4", "--parallel", "2") == 0
    sampled = [row["model.beta"] for row in table(path)]
    assert len(set(sampled)) == 4
    other = tmp_path / "other" / path.name
    other.parent.mkdir()
    other.write_text(path.read_text())
    assert sweep(other, "--trials", "4") == 0
    assert [row["model.beta"] for row in table(other)] == sampled


def test_a_bayes_sweep_uses_results(write_sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its later trials are nearer to the best value than its first, random ones."""

    def run_at_once(options: Any, folder: Path, stop: Any, command: Any) -> Any:
        (line,) = [part for part in command([]) if part.startswith("--model.beta=")]
        run = folder / "toy" / "run"
        run.mkdir(parents=True)
        f1 = 1 - abs(float(line.partition("=")[2]) - 0.3)
        (run / "metrics.csv").write_text(f"step,val/f1\n1,{f1}\n")
        (run / "summary.json").write_text(json.dumps({"task": "mre", "experiment": "", "seed": 1, "val": 0, "test": 0}))
        return trials.finished_run(folder)

    monkeypatch.setattr(local, "run_trial", run_at_once)
    path = write_sweep(method="bayes", parameters={"model.beta": {"min": 0.0, "max": 10.0}}, run_cap=30)
    assert sweep(path) == 0
    distances = [abs(float(row["model.beta"]) - 0.3) for row in table(path)]
    assert len(distances) == 30
    assert sum(distances[-10:]) < 0.5 * sum(distances[: local.RANDOM_TRIALS]) * 10 / local.RANDOM_TRIALS


def test_a_truncated_line_of_the_journal_is_ignored(write_sweep: Any) -> None:
    path = write_sweep(parameters=GRID)
    assert sweep(path, "--trials", "1") == 0
    with (folder_of(path) / local.JOURNAL).open("a") as journal:
        journal.write('{"op_code":4,"worker')
    assert sweep(path, "--trials", "2") == 0
    assert [row["state"] for row in table(path)] == ["finished", "finished"]


def test_a_damaged_journal_is_refused_in_one_sentence(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(parameters=GRID)
    assert sweep(path, "--trials", "1") == 0
    journal = folder_of(path) / local.JOURNAL
    whole = journal.read_bytes()
    for line in (b"5", b"\0\0", b"\xff", b'{"op_code": 99, "worker_id": "x"}'):
        journal.write_bytes(whole + line + b"\n")
        capsys.readouterr()
        assert sweep(path, "--trials", "2") == 2
        message = capsys.readouterr().err
        assert str(journal) in message
        assert "start the sweep anew" in message
        assert "Traceback" not in message


def test_an_endless_sweep_is_refused(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(write_sweep(method="random", parameters=RANDOM)) == 2
    assert "--trials" in capsys.readouterr().err


def test_an_unwritable_folder_is_named(write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep()
    (path.parent / "runs").write_text("a file")
    assert sweep(path) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_a_script_without_a_main_guard_gets_a_hint_and_no_second_sweep(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    write_sweep()
    script = tmp_path / "script.py"
    script.write_text(
        "from mmib.search import sweep\n"
        "print('begun', flush=True)\n"
        "sweep.run(['toy.yaml', '--local', '--parallel', '2'])\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count('below `if __name__ == "__main__":`') == 2
