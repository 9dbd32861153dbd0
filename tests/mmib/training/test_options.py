"""Options through the command line: what a person sets is what runs, or one sentence says why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.cli import main
from mmib.search.sweep.command import DEFAULT_COMMAND, command_line

Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def composed(workspace: Any, capsys: pytest.CaptureFixture[str]) -> Compose:
    """The configuration that `--print_config` shows of the tiny experiment, or of another file."""

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
    "model.backbone.image_encoder.weights",  # text would do, too
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
def test_null_may_be_set_in_any_spelling_of_a_setting(composed: Compose, option: str) -> None:
    assert setting(composed(*NOT_NULL, option), LAYERS) is None


def test_a_sweep_may_set_null(composed: Compose) -> None:
    values = {LAYERS: None, "trainer": {"max_time": None}, "model.beta_text": 0.125}
    line = command_line(DEFAULT_COMMAND, "fit", values)
    config = composed("--trainer.max_time=1:0:0:0", *line[line.index("fit") + 1 :])
    assert setting(config, LAYERS) is setting(config, "trainer.max_time") is None
    assert setting(config, "model.beta_text") == 0.125


def test_none_is_the_name_of_a_label(composed: Compose) -> None:
    options = ("--data.labels={names: [None, a], negative: a}", "--data.labels.negative", "None")
    assert setting(composed(*options), "data.labels") == {"names": ["None", "a"], "negative": "None"}


# Settings before the class that they belong to


def test_settings_may_come_before_the_file_that_names_their_class(
    composed: Compose, workspace: Any, tmp_path: Path
) -> None:
    """At any depth; the class is in a file that the last one includes, or in the last one."""
    early = {
        "model": {
            "init_args": {
                "beta_schedule": {"init_args": {"share": 0.25}},
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
        "model": {"init_args": {"beta_schedule": {"class_path": "mmib.optim.LinearWarmup"}}},
        "trainer": {"strategy": {"class_path": "pytorch_lightning.strategies.DDPStrategy"}},
    }
    for name, content in {"early": early, "late": late}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    config = composed(config=tmp_path / "late.yaml")
    assert setting(config, "model.beta_schedule.share") == 0.25
    assert setting(config, "model.backbone.fusion.heads") == 3
    assert setting(config, "model.backbone.fusion.dropout") == 0.0
    assert setting(config, "model.backbone.alignment.temperature") == 0.5
    assert setting(config, "model.backbone.alignment.granularity") == "late"
    assert setting(config, "trainer.strategy.find_unused_parameters") is True
