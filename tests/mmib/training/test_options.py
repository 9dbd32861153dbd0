"""Options on the command line: they take effect, or one sentence explains why they cannot."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmib.cli import main
from mmib.search.sweep.command import DEFAULT_COMMAND, command_line

Compose = Callable[..., dict[str, Any]]
Start = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def composed(workspace: Any, capsys: pytest.CaptureFixture[str]) -> Compose:
    """The configuration printed by `--print_config` for the tiny experiment, or for another file."""

    def compose(*options: str, config: Path | None = None) -> dict[str, Any]:
        with pytest.raises(SystemExit) as leave:
            main(["fit", "--config", str(config or workspace.experiment), *options, "--print_config"])
        assert not leave.value.code
        content: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
        return content

    return compose


def setting(config: dict[str, Any], name: str) -> Any:
    """A setting by its dotted name without `init_args`."""
    value: Any = config
    for key in name.split("."):
        value = value.get("init_args", value)[key]
    return value


# Null


LAYERS = "model.backbone.text_encoder.trainable_layers"
INIT_LAYERS = "model.init_args.backbone.init_args.text_encoder.init_args.trainable_layers"
NULLABLE = (
    LAYERS,
    "model.backbone.image_encoder.weights",  # a string would be valid, too
    "model.threshold",
    "model.beta_schedule",
    "trainer.max_time",
)
NOT_NULL = (f"--{LAYERS}=1", "--model.threshold=0.5", "--model.beta_schedule=Cyclic", "--trainer.max_time=1:0:0:0")


@pytest.mark.parametrize("null", ["null", "None", "~"])
@pytest.mark.parametrize("separator", ["=", " "])
def test_null_is_null_at_any_depth(composed: Compose, null: str, separator: str) -> None:
    options = [part for name in NULLABLE for part in f"--{name}{separator}{null}".split()]
    config = composed(*NOT_NULL, "--model.optimizer.lr=0.25", *options)
    assert {name: setting(config, name) for name in NULLABLE} == dict.fromkeys(NULLABLE)
    assert setting(config, "model.optimizer.lr") == 0.25


@pytest.mark.parametrize(
    "option", [f"--{INIT_LAYERS}=null", '--model={"backbone": {"text_encoder": {"trainable_layers": null}}}']
)
def test_null_may_be_given_in_any_notation_of_a_setting(composed: Compose, option: str) -> None:
    assert setting(composed(*NOT_NULL, option), LAYERS) is None


def test_a_sweep_may_set_null(composed: Compose) -> None:
    values = {LAYERS: None, "trainer": {"max_time": None}, "model.beta_text": 0.125}
    line = command_line(DEFAULT_COMMAND, "fit", values)
    config = composed("--trainer.max_time=1:0:0:0", *line[line.index("fit") + 1 :])
    assert setting(config, LAYERS) is setting(config, "trainer.max_time") is None
    assert setting(config, "model.beta_text") == 0.125


def test_none_is_a_valid_label_name(composed: Compose) -> None:
    options = ("--data.labels={names: [None, a], negative: a}", "--data.labels.negative", "None")
    assert setting(composed(*options), "data.labels") == {"names": ["None", "a"], "negative": "None"}


@pytest.mark.parametrize(
    ("option", "content", "expected"),
    [
        ("model.optimizer.lr", "model: {init_args: {optimizer: {lr: null}}}", "float"),
        ("model.beta_text", "model: {init_args: {beta_text: null}}", "float"),
        ("data.batch_size", "data: {init_args: {batch_size: null}}", "int"),
        ("trainer.max_steps", "trainer: {max_steps: null}", "int"),
        ("evaluate", "evaluate: null", "bool"),
    ],
)
def test_null_is_refused_where_it_is_no_valid_value(
    refused: Refused, workspace: Any, tmp_path: Path, option: str, content: str, expected: str
) -> None:
    experiment, file = str(workspace.experiment), tmp_path / "null.yaml"
    file.write_text(f"include: ['{experiment}']\n{content}\n", encoding="utf-8")
    for arguments in (["--config", str(file)], ["--config", experiment, f"--{option}=null"]):
        message = refused("fit", *arguments)
        assert message.startswith(f"mmib: the configuration is not valid: {option}: expected {expected}")
        assert message.count("\n") == 1


# Settings before the class they belong to


def test_settings_may_come_before_the_file_that_names_their_class(
    composed: Compose, workspace: Any, tmp_path: Path
) -> None:
    """At any depth; the class is in a file included by the last one, or in the last one."""
    early = {
        "model": {
            "init_args": {
                "backbone": {
                    "init_args": {
                        "fusion": {"init_args": {"heads": 3}},
                        "alignment": {"init_args": {"temperature": 0.5}},
                    }
                },
            }
        },
        "trainer": {"strategy": {"init_args": {"find_unused_parameters": True}}},
    }
    late = {
        "include": ["early.yaml", str(workspace.experiment)],
        "trainer": {"strategy": {"class_path": "pytorch_lightning.strategies.DDPStrategy"}},
    }
    for name, content in {"early": early, "late": late}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    config = composed(config=tmp_path / "late.yaml")
    assert setting(config, "model.backbone.fusion.heads") == 3
    assert setting(config, "model.backbone.fusion.dropout") == 0.0
    assert setting(config, "model.backbone.alignment.temperature") == 0.5
    assert setting(config, "model.backbone.alignment.granularity") == "late"
    assert setting(config, "trainer.strategy.find_unused_parameters") is True


# The trainer


SHORT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1")
NOT_SCORED = "--evaluate=false"


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"accumulate_grad_batches": 2, "val_check_interval": 3, "gradient_clip_algorithm": "value"}, 2),
        ({"detect_anomaly": True, "profiler": "simple", "benchmark": True, "num_sanity_val_steps": 1}, 4),
        ({"deterministic": True, "inference_mode": False, "log_every_n_steps": 0, "gradient_clip_val": None}, 4),
        ({"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1, "check_val_every_n_epoch": 2}, 8),
        ({"max_epochs": -1, "max_steps": 5, "enable_model_summary": True, "enable_progress_bar": True}, 5),
        ({"overfit_batches": 2, "limit_train_batches": None}, 2),
        ({"precision": "64-true"}, 4),
        ({"precision": "16-mixed"}, 4),
        ({"precision": "32-true", "check_val_every_n_epoch": None, "val_check_interval": 3}, 4),
    ],
)
def test_options_of_the_trainer_take_effect_and_are_recorded(
    start: Start, workspace: Any, options: dict[str, Any], steps: int
) -> None:
    given = [f"--trainer.{name}={'null' if value is None else value}" for name, value in options.items()]
    run = start("fit", "--config", str(workspace.experiment), *SHORT, *given, NOT_SCORED)
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]
    assert {name: config[name] for name in options} == options
    checkpoint = torch.load(run.checkpoint("last"), weights_only=True)
    assert checkpoint["global_step"] == steps
    assert all(torch.isfinite(weight).all() for weight in checkpoint["state_dict"].values())


@pytest.mark.parametrize("option", ["fast_dev_run=1", "limit_val_batches=0", "max_epochs=0"])
def test_without_a_selected_checkpoint_nothing_is_scored_and_this_is_reported(
    start: Start, workspace: Any, option: str
) -> None:
    run = start("fit", "--config", str(workspace.experiment), *SHORT, f"--trainer.{option}")
    assert f"no checkpoint was selected, so nothing is scored; the run: {run.folder}" in run.output
    assert not (run.folder / "summary.json").exists()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's clock: it advances by a second per query."""
    seconds = iter(range(100_000))
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time.monotonic", lambda: float(next(seconds)))


@pytest.mark.usefixtures("clock")
def test_with_a_time_limit_schedules_depend_on_time(start: Start, workspace: Any) -> None:
    run = start(
        *("fit", "--config", str(workspace.experiment), NOT_SCORED, "--trainer.limit_val_batches=0"),
        *("--trainer.max_epochs=-1", "--trainer.max_time=00:00:02:00", "--trainer.log_every_n_steps=1"),
        "--trainer.callbacks+={class_path: LearningRateMonitor, init_args: {logging_interval: step}}",
        *("--model.optimizer.lr=1.0e-4", "--model.optimizer.warmup=0.25", "--model.beta_schedule=LinearWarmup"),
    )
    with (run.folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rates, betas = ([float(row[name]) for row in rows if row[name]] for name in ("lr-AdamW/.", "ib/beta_text_step"))
    top = rates.index(max(rates))
    assert 1 < top < len(rates) - 1
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert (rates[0], rates[top], rates[-1]) == pytest.approx((0, 1e-4, 0), abs=1.5e-5)
    assert betas == sorted(betas)
    assert (betas[0], betas[-1]) == pytest.approx((0, 0.002), abs=4e-4)


def test_early_stopping_ends_a_training_that_does_not_improve(start: Start, workspace: Any) -> None:
    """With learning rates of zero no validation is better than the first."""
    run = start(
        *("fit", "--config", str(workspace.experiment), "--config", "trainer/early_stopping.yaml"),
        *("--trainer.max_epochs=9", "--trainer.limit_train_batches=1", "--trainer.val_check_interval=null"),
        *("--trainer.callbacks.patience=2", "--model.optimizer.lr=0", "--model.optimizer.text_lr=0"),
    )
    with (run.folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        *validated, _ = [row["epoch"] for row in csv.DictReader(file) if row["val/f1"]]  # the last: what was selected
    assert validated == ["0", "1", "2"]
    assert run.summary["selected"]["epoch"] == 0
    assert run.summary["test"]["f1"] >= 0


# Loggers


def test_custom_loggers_are_added_to_the_csv_log(
    start: Start, workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They replace W&B, which is the default."""
    monkeypatch.setattr("mmib.runs.loggers._wandb_logger", None)
    loggers = [
        {"class_path": f"pytorch_lightning.loggers.{name}", "init_args": {"save_dir": str(tmp_path / name)}}
        for name in ("TensorBoardLogger", "CSVLogger")
    ]
    content = {"include": [str(workspace.experiment)], "trainer": {"logger": loggers}, "wandb": "auto"}
    (tmp_path / "logged.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    run = start("fit", "--config", str(tmp_path / "logged.yaml"), *SHORT)
    (table,) = (tmp_path / "CSVLogger").rglob("metrics.csv")
    assert "train/loss" in table.read_text(encoding="utf-8")
    assert list((tmp_path / "TensorBoardLogger").rglob("events.out.tfevents.*"))
    assert "train/loss" in (run.folder / "metrics.csv").read_text(encoding="utf-8")
    recorded = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["logger"]
    assert [logger["class_path"] for logger in recorded] == [logger["class_path"] for logger in loggers]
    assert [logger["init_args"]["save_dir"] for logger in recorded] == [
        str(tmp_path / name["class_path"].rpartition(".")[2]) for name in loggers
    ]


@pytest.mark.parametrize("option", ["true", "false"])
def test_logging_can_be_disabled(start: Start, workspace: Any, option: str) -> None:
    run = start("fit", "--config", str(workspace.experiment), *SHORT, f"--trainer.logger={option}")
    assert (run.folder / "metrics.csv").exists() == (option == "true") == ("\nlog: " in run.output)
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["trainer"]["logger"] is (option == "true")
    assert run.summary["val"]["f1"] >= 0
    assert "no logger configured" not in run.errors


def test_an_unwritable_log_is_a_one_sentence_error(refused: Refused, workspace: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = workspace.folders()
    logger = ("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'file'}")
    error = refused("fit", "--config", str(workspace.experiment), *logger)
    assert f"the logger CSVLogger cannot start: [Errno 20] Not a directory: '{tmp_path}/file" in error.splitlines()[-1]
    assert workspace.folders() == before
