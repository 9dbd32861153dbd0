"""The help page of a trainer command shows all options, in sections, within 80 columns."""

from __future__ import annotations

import re

import pytest

from mmib.configs import expand_configs
from mmib.options.composition import options, options_of
from mmib.options.help import LINKED, OBJECTIVE, SECTIONS, help_page
from mmib.schema import ConfigError

OPTION = re.compile(r"^  --([\w.]+) ", re.MULTILINE)
TITLE = re.compile(r"^([A-Za-z].*):$", re.MULTILINE)


def page(*arguments: str) -> str:
    return help_page("fit", "train", expand_configs(["fit", *arguments])[1:])


def entry(text: str, name: str) -> str:
    """The text about an option, on one line."""
    return " ".join(text.partition(f"\n  --{name} ")[2].partition("\n  --")[0].split())


@pytest.mark.parametrize("arguments", [(), ("--config", "mre-demo"), ("--config", "mner-twitter2017-published")])
def test_every_option_is_listed_once_and_no_line_is_longer_than_80_columns(arguments: tuple[str, ...]) -> None:
    text = page(*arguments)
    listed = OPTION.findall(text)
    assert len(set(listed)) == len(listed)
    assert {"config", "data.batch_size", "model.gamma", "model.optimizer.lr", "trainer.max_epochs"} <= set(listed)
    assert {f"trainer.{name}" for name in options_of("fit")["trainer"]["properties"]} <= set(listed)
    assert not [name for name in listed if f"{name}.".startswith(LINKED)]
    assert max(map(len, text.splitlines())) <= 80


def test_the_most_used_sections_come_first() -> None:
    titles = [title.partition(" (")[0] for title in TITLE.findall(page("--config", "mre-demo"))]
    assert titles[: len(SECTIONS)] == list(SECTIONS.values())
    assert titles[len(SECTIONS) :] == ["beta_schedule", "demo", "further options of Lightning's trainer"]


def test_values_match_the_configuration() -> None:
    text = page(
        "--config", "mre-demo", "--data.batch_size", "7", "--model.backbone.fusion", "mmib.nn.fusion.LateFusion"
    )
    assert "\ndata (DemoMREDataModule):\n" in text
    assert " [7]" in entry(text, "data.batch_size")
    assert " [2]" in entry(text, "model.backbone.text_encoder.trainable_layers")
    assert "\nfusion (LateFusion):\n" in text
    assert "--model.backbone.fusion.heads" not in text
    assert "JSDAlignment" in entry(text, "model.backbone.alignment")


def test_options_of_the_command_itself_are_in_its_section() -> None:
    assert "--verbose" not in page()
    assert "--verbose" in help_page("validate", "score", [])


def test_an_invalid_option_is_refused_there_too() -> None:
    with pytest.raises(ConfigError, match="did you mean max_epochs"):
        page("--trainer.max_epoch", "3")


def test_the_terms_of_the_objective_are_options_of_every_model() -> None:
    names = [option.name for option in options(options_of("fit"), {})]
    assert {f"model.{name}" for name in OBJECTIVE} <= set(names)
