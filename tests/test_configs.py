"""Every shipped configuration can be parsed, printed and built."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

from mmib.cli import main
from mmib.configs import shipped_experiments
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.mnre import MNREDataModule
from mmib.datamodules.twitter import TwitterDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.modules import MNERModule, MREModule
from mmib.nn.alignment import JSDAlignment
from mmib.nn.fusion import LateFusion
from mmib.training import cli as training

CONFIGS = shipped_experiments()[0].parents[1]
EXPERIMENTS = [path.stem for path in shipped_experiments()]
CLASSES = {"mre": (MREModule, MNREDataModule), "mner": (MNERModule, TwitterDataModule)}

Build = Callable[..., training.MMIBCommand]


@pytest.fixture
def composed(capsys: pytest.CaptureFixture[str]) -> Callable[[str], Any]:
    """The configuration printed by `--print_config`."""

    def compose(experiment: str) -> Any:
        with pytest.raises(SystemExit) as leave:
            main(["fit", "--config", experiment, "--print_config"])
        assert not leave.value.code
        return yaml.safe_load(capsys.readouterr().out)

    return compose


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder_files: Any) -> Build:
    """Builds all parts of an experiment, with tiny encoders and no data, and runs nothing."""
    built: list[training.MMIBCommand] = []
    monkeypatch.setattr(PostDataModule, "check_files", lambda *_: None)
    monkeypatch.setattr(training.MMIBCommand, "_run_subcommand", lambda command, _: built.append(command))
    monkeypatch.chdir(tmp_path)

    def instantiate(experiment: str, *options: str) -> training.MMIBCommand:
        places = ["--runs", str(tmp_path / "runs"), "--wandb", "off", "--trainer.accelerator", "cpu"]
        assert main(["fit", "--config", experiment, *encoder_files.options(), *places, *options]) == 0
        return built.pop()

    return instantiate


def includes(path: Path) -> set[Path]:
    names = yaml.safe_load(path.read_text(encoding="utf-8")).get("include", [])
    files = {CONFIGS / name for name in names}
    return files.union(*(includes(file) for file in files))


def test_there_are_experiments_for_the_demo_real_text_and_the_published_settings() -> None:
    assert {"mre-demo", "mre-mnre-offline", "mre-mnre-mpnet", "mre-mnre-published", "mner-demo"} <= set(EXPERIMENTS)
    settings = ("offline", "mpnet", "published")
    assert {f"mner-twitter{year}-{kind}" for year in (2015, 2017) for kind in settings} <= set(EXPERIMENTS)


def test_every_config_file_is_used_by_an_experiment() -> None:
    experiments = set(shipped_experiments())
    used = set().union(*(includes(path) for path in experiments))
    for_the_command_line = {
        CONFIGS / "trainer" / f"{name}.yaml" for name in ("debug", "ddp", "ddp_cpu", "early_stopping", "slurm")
    }
    for_the_command_line |= {
        CONFIGS / "model" / f"{name}.yaml" for name in ("levitated", "side_text", "pixels_and_texts")
    }
    for_custom_data = {CONFIGS / "data" / f"{name}.yaml" for name in ("jsonl", "columns")}
    assert set(CONFIGS.rglob("*.yaml")) == experiments | used | for_the_command_line | for_custom_data


@pytest.mark.parametrize("path", shipped_experiments(), ids=lambda path: path.stem)
def test_an_experiment_has_the_name_of_its_file_and_a_description(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert yaml.safe_load(text)["name"] == path.stem


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_can_be_printed_as_one_configuration(experiment: str, composed: Callable[[str], Any]) -> None:
    config = composed(experiment)
    assert config["name"] == experiment
    assert config["seed_everything"] == 1
    monitors = [callback.get("init_args", {}).get("monitor") for callback in config["trainer"]["callbacks"]]
    assert monitors[0] == "val/f1", "checkpoints are chosen on validation"
    assert not any(monitor and monitor.startswith("test") for monitor in monitors)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_can_be_built(experiment: str, build: Build) -> None:
    command = build(experiment)
    model: Any = command.model
    model_class, data_class = CLASSES[experiment.split("-", maxsplit=1)[0]]
    assert isinstance(model, model_class)
    assert isinstance(command.datamodule, data_class)
    assert isinstance(model.backbone.text_encoder, TextEncoder)
    assert isinstance(model.backbone.image_encoder, ImageEncoder)
    assert command.datamodule.tokenizer is model.backbone.text_encoder.tokenizer
    assert command.datamodule.image_encoder is model.backbone.image_encoder
    assert model.labels == command.datamodule.labels
    assert {"mre": 23, "mner": 4}[model.task] == len(model.labels)
    checkpoint = command.trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    assert (checkpoint.monitor, checkpoint.mode) == ("val/f1", "max")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_optimiser_of_an_experiment_has_every_parameter_once(experiment: str, build: Build) -> None:
    """Defect 10: the learning rate of the CRF had no effect."""
    model: Any = build(experiment).model
    model._trainer = SimpleNamespace(precision="32-true", estimated_stepping_batches=10)
    groups = model.configure_optimizers()["optimizer"].param_groups
    rates = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trainable) == len(rates)
    settings = model.optimizer
    for name, parameter in trainable.items():
        encoders = {".text_encoder.": settings.text_lr, ".image_encoder.": settings.image_lr, "": settings.lr}
        expected = next(rate for pattern, rate in (settings.other_lrs | encoders).items() if re.search(pattern, name))
        assert rates[id(parameter)] == expected, name


RELEASED = {
    # experiment: learning rates of head and CRF, longest input, crops, and the weight of the alignment. Those of the
    # rates are divided by the latent width, since the released code takes the mean over that.
    "mre-mnre-published": ({}, 80, 3, 1 / 8),
    "mner-twitter2015-published": ({r"^(crf|head)\.": 5e-2}, 128, 4, 1.0),
    "mner-twitter2017-published": ({r"^(crf|head)\.": 5e-2}, 128, 4, 1.0),
}


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name.endswith("published")])
def test_the_published_settings_match_the_released_code(experiment: str, composed: Callable[[str], Any]) -> None:
    """Defect 27: the settings of the published commands had to be reconstructed and are written down here."""
    config = composed(experiment)
    other_lrs, max_length, max_crops, weight = RELEASED[experiment]
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    parts = model["backbone"]["init_args"]
    assert parts["text_encoder"]["init_args"]["name"] == "bert-base-uncased"
    assert parts["image_encoder"]["init_args"]["name"] == "resnet50"
    assert parts["image_encoder"]["init_args"]["frozen"] is True
    optimizer = model["optimizer"]
    assert [optimizer[key] for key in ("lr", "text_lr", "weight_decay", "warmup")] == [3e-5, 3e-5, 0.01, 0.03]
    assert optimizer["other_lrs"] == other_lrs
    assert model["gamma"] == weight
    assert [model[key] for key in ("beta_text", "beta_image")] == pytest.approx([weight / 768] * 2, rel=1e-3)
    assert model["head_dropout"] == 0.1
    assert (data["batch_size"], data["max_length"], data["max_crops"]) == (8, max_length, max_crops)
    assert config["trainer"]["max_epochs"] == 30
    assert parts["alignment"]["class_path"].endswith(JSDAlignment.__name__)
    assert data["max_missing_images"] == 0.05


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.endswith("published")])
def test_offline_experiments_do_not_use_the_hub(experiment: str, composed: Callable[[str], Any]) -> None:
    parts = composed(experiment)["model"]["init_args"]["backbone"]["init_args"]
    names = [parts[encoder]["init_args"]["name"] for encoder in ("text_encoder", "image_encoder")]
    text_encoder = "pip:mpnet-base" if experiment.endswith("mpnet") else "pip:minilm-l6"
    assert names == [text_encoder, "pip:efficientnet-lite0"]


@pytest.mark.parametrize("set_name", ["mner-twitter2015", "mner-twitter2017", "mre-mnre"])
def test_configurations_with_a_larger_text_encoder_change_nothing_else(
    set_name: str, composed: Callable[[str], Any]
) -> None:
    smaller, larger = (composed(f"{set_name}-{kind}") for kind in ("offline", "mpnet"))
    for config in (smaller, larger):
        del config["name"], config["include"]
        del config["model"]["init_args"]["backbone"]["init_args"]["text_encoder"]
    assert smaller == larger


@pytest.mark.parametrize("kind", ["offline", "mpnet", "published"])
def test_both_twitter_sets_share_one_configuration(kind: str, composed: Callable[[str], Any]) -> None:
    first, second = (composed(f"mner-twitter{year}-{kind}") for year in (2015, 2017))
    for year, config in ((2015, first), (2017, second)):
        assert config["data"]["init_args"].pop("year") == year
        assert config.pop("name") == f"mner-twitter{year}-{kind}"
        config.pop("include")
    assert first == second


def test_the_late_fusion_baseline_uses_only_whole_images(build: Build) -> None:
    command = build("mre-demo-late-fusion")
    model: Any = command.model
    assert isinstance(model.backbone.fusion, LateFusion)
    assert command.datamodule.max_crops == 0
    assert (model.beta_text, model.beta_image, model.gamma) == (0, 0, 0)
    assert model.backbone.sampling is False


ABLATIONS = {
    "no refinement": ["--model.beta_text=0", "--model.beta_image=0", "--model.backbone.sampling=false"],
    "no alignment": ["--model.gamma=0"],
    "text only": ["--data.images=none", "--model.gamma=0", "--model.beta_image=0"],
    "late interaction": ["--model.backbone.alignment.granularity=late"],
    "another alignment": ["--model.backbone.alignment=mmib.nn.alignment.JSDAlignment"],
    "a grid of regions": ["--model.backbone.image_encoder.regions=grid"],
    "a schedule": ["--model.beta_schedule=mmib.optim.Cyclic", "--model.beta_schedule.cycles=3"],
}


def test_ablations_can_be_set_by_options(build: Build) -> None:
    built: dict[str, Any] = {name: build("mre-demo", *options) for name, options in ABLATIONS.items()}
    models = {name: command.model for name, command in built.items()}
    assert models["no refinement"].backbone.sampling is False
    assert not any(p.requires_grad for p in models["no alignment"].backbone.alignment.parameters())
    assert any(p.requires_grad for p in models["no refinement"].backbone.alignment.parameters())
    assert built["text only"].datamodule.images == "none"
    assert isinstance(models["another alignment"].backbone.alignment, JSDAlignment)
    assert len(models["a grid of regions"].backbone.image_encoder.region_boxes()) == 25
    assert models["a schedule"].beta_schedule.cycles == 3
