"""The command `mmib`: what it starts, what it refuses, and single-message errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmib
from mmib import cli
from mmib.cli import OTHER_COMMANDS, TRAINER_COMMANDS, main

Refused = Callable[..., str]


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


# Help


LIGHT = (
    "import sys; from mmib.cli import main; status = main(sys.argv[1:]); "
    "heavy = {'torch', 'pytorch_lightning', 'transformers', 'timm', 'wandb', 'numpy'} & set(sys.modules); "
    "sys.exit(f'imported: {heavy}' if heavy else status)"
)


def run_light(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a separate process that fails if a heavy package is imported."""
    command = [sys.executable, "-c", LIGHT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_no_torch() -> None:
    done = run_light("--help")
    assert done.returncode == 0, done.stderr
    for command in (*TRAINER_COMMANDS, *OTHER_COMMANDS):
        assert f"\n  {command} " in done.stdout
    for experiment in ("mre-demo", "mre-mnre-offline", "mre-mnre-published"):
        assert f"\n  {experiment}\n" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainer: [1", "is not valid YAML"),
        ("a: 'b\n", "is not valid YAML"),
        ("trainers: {}\n", "the top-level key 'trainers' is unknown"),
        ("include: [nowhere.yaml]\n", "there is no configuration file 'nowhere.yaml'"),
    ],
)
def test_an_invalid_configuration_file_is_refused_before_torch_is_imported(
    tmp_path: Path, content: str, message: str
) -> None:
    done = run_light("fit", "--config", "mre-demo", "--config", write(tmp_path / "mine.yaml", content))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


DEMO = ("fit", "--config", "mre-demo")
BEFORE_TORCH = {
    "an unknown command": ("fits",),
    "an unknown experiment": ("fit", "--config", "mre-dmeo"),
    "a run that is not there": ("fit", "--run", "nowhere"),
    "no configuration": ("fit",),
    "a misspelt option": (*DEMO, "--trainer.max_epoch", "3"),
    "a misspelt option of a part": (*DEMO, "--model.backbone.text_encoder.nam", "x"),
    "a value of a wrong type": (*DEMO, "--data.batch_size", "many"),
    "a wrong choice": (*DEMO, "--wandb", "perhaps"),
}


@pytest.mark.parametrize("arguments", BEFORE_TORCH.values(), ids=BEFORE_TORCH.keys())
def test_definite_errors_are_refused_before_torch_is_imported(arguments: tuple[str, ...]) -> None:
    done = run_light(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("mmib: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("fit", "--help"), (*DEMO, "-h")])
def test_the_options_of_a_trainer_command_are_listed_before_torch_is_imported(arguments: tuple[str, ...]) -> None:
    done = run_light(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: mmib fit ")
    assert "\n  --model.backbone.text_encoder.trainable_layers INT\n" in done.stdout


@pytest.mark.parametrize("buffering", ["", "1"])
def test_help_output_may_be_truncated(buffering: str) -> None:
    """`mmib --help | head`: the pipe is closed before anything is written."""
    environment = {**os.environ, "PYTHONUNBUFFERED": buffering}
    command = [sys.executable, "-c", "import sys; sys.stdin.read(); from mmib.cli import main; sys.exit(main(['-h']))"]
    pipes: dict[str, Any] = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_without_a_command_the_usage_is_shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: mmib COMMAND")
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{mmib.__version__}\n"


def test_an_interrupt_prints_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert main(["fit"]) == 130
    assert capsys.readouterr().err == "mmib: interrupted\n"


@pytest.mark.parametrize(
    ("number", "what", "remedy"),
    [
        (errno.ENOSPC, "a file cannot be written", "free disk space, or choose another place"),
        (errno.EROFS, "a file cannot be written", "free disk space, or choose another place"),
        (errno.EACCES, "a file cannot be opened", "check its permissions"),
    ],
)
def test_disk_errors_are_one_sentence_in_every_command(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, number: int, what: str, remedy: str
) -> None:
    def fail(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/here/x.json")

    monkeypatch.setattr(cli, "_dispatch", fail)
    message = refused("study")
    assert message.startswith(f"mmib: {what}: [Errno {number}] {os.strerror(number)}: '/here/x.json'; ")
    assert remedy in message
    assert message.count("\n") == 1


def test_other_system_errors_are_not_mistaken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[str]) -> int:
        raise IsADirectoryError(errno.EISDIR, "is a directory", "x")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(IsADirectoryError):
        main(["study"])


# Refused before anything is imported


def test_an_unknown_command_is_refused_with_the_choices(refused: Refused) -> None:
    choice = ", ".join([*TRAINER_COMMANDS, *OTHER_COMMANDS])
    assert refused("reprot") == "mmib: the command 'reprot' is unknown: did you mean report?\n"
    assert refused("train") == f"mmib: the command 'train' is unknown: choose from {choice}\n"


# Refused by the parser


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trainer": {"max_epoch": 3}}, "trainer.max_epoch is no option of Trainer: did you mean max_epochs?"),
        (
            {"data": {"init_args": {"batchsize": 4}}},
            "data.batchsize is no option of DemoMREDataModule: did you mean batch_size?",
        ),
        ({"model": {"init_args": {"betta": 1.0}}}, "model.betta is no option of MREModule"),
        (
            {"model": {"init_args": {"optimizer": {"learning_rate": 1.0}}}},
            "model.optimizer.learning_rate is no option of OptimizerSettings: choose from ",
        ),
        (
            {"model": {"init_args": {"backbone": {"init_args": {"text_encoder": {"init_args": {"nam": 1}}}}}}},
            "model.backbone.text_encoder.nam is no option of TextEncoder: did you mean name?",
        ),
        ({"trainer": {"max_epochs": "many"}}, "trainer.max_epochs: expected int, got 'many'"),
        ({"model": {"class_path": "mmib.modules.NoSuchModule"}}, "model: there is no class mmib.modules.NoSuchModule"),
        (
            {"data": {"class_path": "mmib.datamodules.nowhere.Module"}},
            "data: there is no class mmib.datamodules.nowhere.Module",
        ),
        ({"wandb": "perhaps"}, "wandb: choose from 'auto', 'online', 'offline', 'off', got 'perhaps'"),
    ],
)
def test_an_unknown_key_or_value_is_named_with_a_suggestion(
    refused: Refused, workspace: Any, tmp_path: Path, changed: Any, message: str
) -> None:
    path = write(tmp_path / "mine.yaml", {"include": [str(workspace.experiment)], **changed})
    before = workspace.folders()
    assert f"mmib: the configuration is not valid: {message}" in refused("fit", "--config", path).splitlines()[-1]
    assert workspace.folders() == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.gama=1", "model.gama is no option of MREModule: did you mean gamma?"),
        ("--data.bach_size=4", "data.bach_size is no option of DemoMREDataModule: did you mean batch_size?"),
        ("--trainer.max_epoch=3", "trainer.max_epoch is no option of Trainer: did you mean max_epochs?"),
        ("--sed_everything=3", "--sed_everything=3 is no option of mmib fit: did you mean seed_everything?"),
        ("--batch_size=3", "--batch_size=3 is no option of mmib fit: did you mean data.batch_size?"),
        ("--no-such-option", "--no-such-option is no option of mmib fit; mmib fit --help lists all options"),
        ("--verbose=true", "--verbose=true is no option of mmib fit, but of validate and test"),
        ("--data.batch_size", "--data.batch_size needs a value"),
        ("--data.batch_size=many", "data.batch_size: expected int, got 'many'"),
        ("stray", "stray is no option"),
    ],
)
def test_an_unknown_option_is_named(refused: Refused, workspace: Any, option: str, message: str) -> None:
    output = refused("fit", "--config", str(workspace.experiment), option)
    assert f"mmib: the configuration is not valid: {message}" in output.splitlines()[-1]


def test_a_command_without_any_configuration_names_what_is_missing(refused: Refused) -> None:
    assert "it names no model and no data: start from an experiment with mmib test --config NAME" in refused("test")
    assert "it names no model and no data" in refused("fit", "--config", "trainer/debug.yaml")
    assert "it names no data" in refused("fit", "--config", "model/mre.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.gamma", "-1"], "gamma is -1.0: the weight of a loss term cannot be negative"),
        (["--model.optimizer.warmup", "2"], "optimizer.warmup is 2.0: it is a share"),
        (["--data.max_length", "1000"], "max_length is 1000: the text encoder takes 200 word pieces at most"),
        (["--model.backbone.image_encoder.weights", "/nowhere.pth"], "the image weights '/nowhere.pth' do not exist"),
        (["--model.backbone.image_encoder.name", "resnet_50"], "timm has no image model 'resnet_50'"),
        (
            ["--model.backbone.image_encoder.name", "test_resnet.r"],
            "timm has no weights 'r' of test_resnet; it has: test",
        ),
        (
            ["--model.backbone.image_encoder.name", "test_vit"],
            ".pth' do not fit test_vit: they lack 78 of its 78 tensors",
        ),
        (["--model.backbone.image_encoder.model_args", "{img_size: 9}"], "with model_args {'img_size': 9} (TypeError:"),
        (["--data.demo.size", "huge"], "demo corpus: unknown size 'huge'"),
        (["--runs", "/dev/null"], "cannot be made"),
    ],
)
def test_an_invalid_setting_is_a_single_message(
    refused: Refused, workspace: Any, options: list[str], message: str
) -> None:
    before = workspace.folders()
    error = refused("fit", "--config", str(workspace.experiment), *options)
    assert message in error.splitlines()[-1]
    assert workspace.folders() == before


# The model hub


def test_the_published_settings_fail_only_at_the_hub_in_one_clear_sentence(tmp_path: Path) -> None:
    environment = {"PATH": "", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name("mmib")), "fit", "--config", "mre-mnre-published", "--wandb", "off"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    message = next(line for line in done.stderr.splitlines() if line.startswith("mmib: "))
    for part in ("text encoder 'bert-base-uncased' could not be loaded", "no local folder", "local cache", "model hub"):
        assert part in message
    offline = "offline encoder (pip:efficientnet-lite0, pip:minilm-l6, pip:mpnet-base)"
    for way_out in ("Give a local folder", "fill the cache", offline):
        assert way_out in message


# The demo corpus


def test_the_demo_corpus_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo-data", str(tmp_path / "demo"), "--size", "tiny", "--seed", "4"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith(f"{tmp_path / 'demo'}: written\n")
    assert first.count("best possible F1: text 0.") == 12
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'demo'}: there already\n")


def test_the_noise_of_the_demo_corpus_can_be_chosen(tmp_path: Path) -> None:
    kinds = ["--noise-kinds", "meme", "food=3", "--test-noise", "0.5", "--test-noise-kinds", "scene"]
    assert main(["demo-data", str(tmp_path / "demo"), "--size", "tiny", "--noise", "0.2", *kinds]) == 0
    settings = json.loads((tmp_path / "demo" / "demo.json").read_text())["settings"]
    found = {name: settings[name] for name in ("noise", "noise_kinds", "test_noise", "test_noise_kinds")}
    weights = {"noise_kinds": {"meme": 1.0, "food": 3.0}, "test_noise_kinds": {"scene": 1.0}}
    assert found == {"noise": 0.2, "test_noise": 0.5, **weights}


def test_invalid_demo_settings_are_refused(refused: Refused, tmp_path: Path) -> None:
    assert "unknown size 'huge'" in refused("demo-data", str(tmp_path / "demo"), "--size", "huge")
    assert "noise is a share from 0 to 1, not 2.0" in refused("demo-data", str(tmp_path / "demo"), "--noise", "2")
    for option, weights, message in (
        ("--noise-kinds", ["meme", "food=x"], "'food=x' is no NAME=WEIGHT, such as meme=2"),
        (
            "--test-noise-kinds",
            ["memes=2"],
            "test_noise_kinds has the unknown kinds memes; there are scene, screenshot",
        ),
        ("--noise-kinds", ["meme=-1"], "noise_kinds holds weights of 0 and more, at least one of them above 0, not"),
    ):
        assert message in refused("demo-data", str(tmp_path / "demo"), option, *weights)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert "holds something that is no demo corpus" in refused("demo-data", str(tmp_path / "full"))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
