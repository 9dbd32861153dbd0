"""Options of the commands: no abbreviations, and one-sentence errors."""

from __future__ import annotations

import pytest

from mmib.base.argument_parser import CommandParser
from mmib.cli import OTHER_COMMANDS, main
from mmib.schema import ConfigError


@pytest.fixture
def parser() -> CommandParser:
    parser = CommandParser(prog="mmib thing")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("-o", "--output")
    return parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--thresh", "1"], "unrecognized arguments: --thresh 1: did you mean --threshold?; mmib thing --help"),
        (["--treshold=1"], "unrecognized arguments: --treshold=1: did you mean --threshold?; mmib thing --help"),
        (["--wild", "1"], "unrecognized arguments: --wild 1; mmib thing --help lists all options"),
        (["--threshold", "x"], "argument --threshold: invalid float value: 'x'; mmib thing --help lists all options"),
        (["--output"], "argument -o/--output: expected one argument; mmib thing --help lists all options"),
    ],
)
def test_errors_are_one_sentence(parser: CommandParser, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parser.parse_args(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--treshold=1"], "unrecognized arguments: --treshold: did you mean --threshold?; mmib thing --help"),
        (["-x", "1"], "unrecognized arguments: -x; mmib thing --help"),
        (["--threshold", "-1", "-oout"], "the following arguments are required: posts; mmib thing --help"),
    ],
)
def test_a_misspelt_option_is_reported_before_a_missing_argument(
    parser: CommandParser, arguments: list[str], message: str
) -> None:
    parser.add_argument("posts")
    with pytest.raises(ConfigError) as error:
        parser.parse_args(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("command", sorted(OTHER_COMMANDS))
def test_no_command_accepts_abbreviations(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--hel"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("mmib: ")
    assert message.count("\n") == 1
