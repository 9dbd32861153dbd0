"""Configuration files and their includes are found by name, and refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.configs import expand_configs
from mmib.schema import ConfigError

Refused = Callable[..., str]
# Thirty levels of lists, each of which contains the previous one twice.
BOMB = "include:\n- &a0 [x]\n" + "".join(f"- &a{level + 1} [*a{level}, *a{level}]\n" for level in range(30))


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def expanded(*names: str) -> list[str]:
    """Names of the files that a command line's configurations expand to, in order."""
    arguments = expand_configs([part for name in names for part in ("--config", name)])
    assert arguments[::2] == ["--config"] * (len(arguments) // 2)
    return [Path(path).name for path in arguments[1::2]]


# Includes


def test_an_experiment_is_expanded_to_its_includes_followed_by_itself() -> None:
    files = expanded("mre-demo")
    assert files[-1] == "mre-demo.yaml"
    assert files[0] == "base.yaml"


def test_names_shipped_paths_and_custom_paths_all_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", {"include": ["base.yaml"], "name": "mine"})
    assert expanded("mine.yaml") == ["base.yaml", "mine.yaml"]
    assert expanded("experiment/mre-demo.yaml") == expanded("mre-demo")
    spelled = expand_configs(["fit", "-c", "mine.yaml", "--x=1", "--config=mine.yaml", "y"])
    assert [Path(part).name for part in spelled] == [
        *("fit", "--config", "base.yaml", "--config", "mine.yaml", "--x=1"),
        *("--config", "base.yaml", "--config", "mine.yaml", "y"),
    ]


def test_includes_are_resolved_relative_to_their_file(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "a.yaml", {"include": ["b.yaml"]})
    write(tmp_path / "parts" / "b.yaml", "")
    outer = write(tmp_path / "outer.yaml", {"include": ["parts/a.yaml"]})
    assert expanded(outer) == ["b.yaml", "a.yaml", "outer.yaml"]


def test_a_file_included_twice_is_no_cycle(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "")
    for name in ("left", "right"):
        write(tmp_path / f"{name}.yaml", {"include": ["base.yaml"]})
    top = write(tmp_path / "top.yaml", {"include": ["left.yaml", "right.yaml"]})
    assert expanded(top) == ["base.yaml", "left.yaml", "base.yaml", "right.yaml", "top.yaml"]


@pytest.mark.parametrize("cycle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_cycle_is_refused_with_its_path(tmp_path: Path, cycle: list[str]) -> None:
    for name, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        write(tmp_path / f"{name}.yaml", {"include": [f"{following}.yaml"]})
    with pytest.raises(ConfigError, match=r"a\.yaml includes itself, by way of") as error:
        expand_configs(["--config", str(tmp_path / "a.yaml")])
    assert all(f"{name}.yaml" in str(error.value) for name in cycle)


# Refusals


def test_an_unknown_experiment_is_refused_with_the_choices(refused: Refused) -> None:
    assert refused("fit", "--config", "mre-demmo").endswith("file 'mre-demmo': did you mean mre-demo?\n")
    message = refused("fit", "--config", "relations")
    assert message.startswith("mmib: there is no configuration file 'relations': give a path, or one of")
    assert "mre-demo, mre-mnre-mpnet, mre-mnre-offline, mre-mnre-published" in message
    assert message.count("\n") == 1


def test_a_config_option_without_a_file_is_refused(refused: Refused) -> None:
    assert "there is no configuration file ''" in refused("fit", "--config")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: [1, 2", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("model:\n\t- x", "is not valid YAML"),
        ("- a\n- b", "holds a list: a configuration is a mapping"),
        ("just text", "holds a str: a configuration is a mapping"),
        ("modle: {}\n", "the top-level key 'modle' is unknown: choose from"),
        ("include: base.yaml\n", "'include' must be a list of configuration files"),
        ("include: [nowhere.yaml]\n", "there is no configuration file 'nowhere.yaml'"),
        ("include: [[base.yaml]]\n", "'include' must be a list of configuration files"),
        (f"include: [{'nowhere.yaml' * 300}]\n", "there is no configuration file 'nowhere"),
        ("seed_everything: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
        (BOMB, "is not valid YAML: it holds more than 100,000 values when its aliases are expanded"),
    ],
)
def test_a_malformed_file_is_refused_by_name(refused: Refused, tmp_path: Path, content: str, message: str) -> None:
    error = refused("fit", "--config", write(tmp_path / "mine.yaml", content))
    assert message in error
    assert error.count("\n") == 1
    assert "mine.yaml" in error or "nowhere.yaml" in error


def test_a_file_that_is_not_utf8_is_refused_by_name(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"name: caf\xe9\n")
    assert "mine.yaml is not valid YAML" in refused("fit", "--config", str(tmp_path / "mine.yaml"))


# Class paths of earlier versions

OLD, NEW = "datamodules.mnre.MNREDataModule", "mmib.datamodules.mnre.MNREDataModule"
SAID = f"{OLD} is read as {NEW}, its name since version 0.2"


def test_a_file_with_old_class_paths_is_replaced_by_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = write(tmp_path / "inner.yaml", f"# mine\ndata:\n  class_path: {OLD}\n")
    outer = write(tmp_path / "outer.yaml", {"include": ["inner.yaml"], "name": "mine"})
    before = Path(inner).read_text(encoding="utf-8")
    for _ in range(2):
        arguments = expand_configs(["fit", "--config", outer])
        assert arguments[:2] + arguments[3:] == ["fit", "--config", "--config", outer]
        assert Path(arguments[2]).name == "inner.yaml"
        assert Path(arguments[2]).read_text(encoding="utf-8") == before.replace(OLD, NEW)
    assert Path(inner).read_text(encoding="utf-8") == before
    assert capsys.readouterr().err == f"mmib: {inner}: {SAID}\n"


def test_old_class_paths_on_the_command_line_are_converted(capsys: pytest.CaptureFixture[str]) -> None:
    assert expand_configs(["fit", f"--data={OLD}"]) == ["fit", f"--data={NEW}"]
    assert expand_configs(["fit", "--data", OLD]) == ["fit", "--data", NEW]
    assert capsys.readouterr().err == f"mmib: the command line: {SAID}\n"


def test_a_run_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", {"data": {"class_path": OLD}})
    _, _, config, *rest = expand_configs(["fit", "--run", str(tmp_path)])
    assert yaml.safe_load(Path(config).read_text(encoding="utf-8")) == {"data": {"class_path": NEW}}
    assert rest == ["--run", str(tmp_path)]


def test_copies_are_deleted_when_the_process_exits(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", {"data": {"class_path": OLD}})
    code = "import sys; from mmib.configs import expand_configs; print(expand_configs(sys.argv[1:])[1])"
    command = [sys.executable, "-c", code, "--config", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() not in ("", path)
    assert not Path(done.stdout.strip()).parent.exists()
    assert done.stderr.count("\n") == 1
