"""Settings that may be shown, and training curves."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmib.analysis.report.history import (
    Curves,
    differing,
    read_plane,
    scalar_of,
    settings,
    shortened,
    shown_command,
)
from mmib.runs.reader import read_run
from mmib.schema import RunError

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/data/twitter2017", "…/twitter2017"),
        ("/home/ann", "~"),
        ("/Users/Ann Smith/my data", "…/my data"),
        ("/Users/Ann Smith", "~"),
        ("/lustre/users/ann/runs/", "…/runs"),
        (r"C:\Users\ann\data", "…/data"),
        ("~/data/demo", "…/demo"),
        ("file:///home/ann/x.yaml", "file://…/x.yaml"),
        ("--data.root=/mnt/a/b", "--data.root=…/b"),
        ("experiments/robustness/resume.yaml", "experiments/robustness/resume.yaml"),
        ("../runs", "../runs"),
        ("https://example.org/a", "https://example.org/a"),
        ("1.0e-05", "1.0e-05"),
    ],
)
def test_absolute_paths_are_reduced_to_their_last_part(text: str, shown: str) -> None:
    assert shortened(text) == shown


@given(st.lists(st.from_regex(r"[a-z0-9_. -]*[a-z0-9]", fullmatch=True), min_size=1))
def test_any_path_is_reduced_to_its_last_part(parts: list[str]) -> None:
    assert shortened("/".join(["/lustre/SOMEBODY", *parts])) == f"…/{parts[-1]}"


@pytest.mark.parametrize(
    "command",
    [
        "mmib fit --api_key SECRET --data.root /home/ann/x",
        "mmib fit --wandb.api_key=SECRET",
        "WANDB_API_KEY=SECRET mmib fit",
        "mmib fit --data.token 'SECRET' --name x",
        "mmib fit --hub-token=SECRET 'unbalanced",
    ],
)
def test_commands_are_shown_without_secrets_and_user_names(command: str) -> None:
    shown = shown_command(command)
    assert "SECRET" not in shown
    assert "ann" not in shown
    assert "mmib fit" in shown
    assert "(hidden)" in shown


def test_an_ordinary_command_can_be_copied() -> None:
    command = shlex.join(["mmib", "fit", "--config", "mre-demo", "--model.gamma", "0", "--name", "a b"])
    assert shown_command(command) == command


def test_settings_have_distinct_names_and_no_secrets() -> None:
    config = {
        "model": {"class_path": "mmib.modules.MREModule", "init_args": {"gamma": 1.0, "key_dim": 4}},
        "trainer": {"callbacks": [{"class_path": "a.IBMonitor", "init_args": {"every": 0}}, {"class_path": "a.B"}]},
        "data": {"root": "/home/ann/demo", "token": "SECRET", "splits": ["a", "b"]},
        "logger": None,
    }
    assert settings(config) == {
        "model": "MREModule",
        "model.gamma": "1.0",
        "model.key_dim": "4",
        "trainer.callbacks.IBMonitor": "IBMonitor",
        "trainer.callbacks.IBMonitor.every": "0",
        "trainer.callbacks.B": "B",
        "data.root": "…/demo",
        "data.token": "(hidden)",
        "data.splits": '["a", "b"]',
        "logger": "null",
    }


def test_repeated_runs_do_not_differ_in_settings() -> None:
    first = {"seed_everything": "1", "data.root": "a", "model.gamma": "1"}
    second = {"seed_everything": "2", "data.root": "b", "model.gamma": "1"}
    assert differing([first, second]) == []
    assert differing([first, {**second, "model.gamma": "0", "model.beta": "1"}]) == ["model.gamma", "model.beta"]


def test_curves_end_with_training(make_run: MakeRun, tmp_path: Path) -> None:
    """The last row of validation scores is of the selected checkpoint and belongs to no step."""
    curves = Curves(read_run(make_run(tmp_path / "run")))
    assert curves["val/f1"] == [(10, 0.4), (20, 0.5)]
    assert curves["train/loss"] == [(10, 2.4), (20, 1.4)]
    assert len(curves["train/loss_step"]) == 20
    assert curves["unknown"] == []


@pytest.mark.parametrize(
    ("name", "scalar"),
    [
        ("val/ib/kl_text", "ib/kl_text"),
        ("ib/kl_text_step", "ib/kl_text"),
        ("train/loss_step", "loss"),
        ("val/loss", "loss"),
        ("fusion/gate", "fusion/gate"),
        ("grad/task", "grad/task"),
    ],
)
def test_averages_of_a_scalar_over_steps_or_epochs_are_one_scalar(name: str, scalar: str) -> None:
    assert scalar_of(name) == scalar


def test_scalars_are_terms_of_the_objective_and_not_scores(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert Curves(run).scalars() == ["align/mi_bound", "ib/kl_image", "ib/kl_text", "loss"]
    (run.folder / "metrics.csv").write_text(
        "step,train/loss,val/fusion/gate,val/strict_f1,test/f1,later/one\n1,2,0.5,0.5,0.5,\n2,,,,,3\n"
    )
    assert Curves(run).scalars() == ["fusion/gate", "loss"], "what follows training is no curve"


def test_non_finite_values_are_omitted(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "metrics.csv").write_text("step,train/loss\n0,nan\n1,2\n2,inf\n")
    assert Curves(run)["train/loss"] == [(2, 2)]


@pytest.mark.parametrize("content", [b"step,train/loss\n1,many\n", b"\xff\xfe\x00"])
def test_damaged_metrics_are_named(make_run: MakeRun, tmp_path: Path, content: bytes) -> None:
    run = read_run(make_run(tmp_path / "run"))
    (run.folder / "metrics.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"metrics\.csv cannot be read"):
        Curves(run)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"step": 1}]', '{"a": 1}'])
def test_a_damaged_information_plane_is_named(tmp_path: Path, content: str) -> None:
    assert read_plane(tmp_path) == []
    (tmp_path / "information_plane.json").write_text(content)
    with pytest.raises(RunError, match=r"information_plane\.json"):
        read_plane(tmp_path)
