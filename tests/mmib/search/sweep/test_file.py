"""Sweep files: parsing, and errors that name the file, the key and the choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmib.schema import ConfigError
from mmib.search.sweep.file import Metric, read_sweep


def test_all_settings_of_a_file_are_read(write_sweep: Any) -> None:
    file = read_sweep(write_sweep(name="my-sweep", run_cap=7, early_terminate={"type": "hyperband", "min_iter": 1}))
    assert (file.name, file.method, file.run_cap) == ("my-sweep", "grid", 7)
    assert file.hyperband is not None
    assert file.command == ("${env}", "${interpreter}", "${program}", "${args}")


def test_a_sweep_without_a_name_is_named_after_its_file(write_sweep: Any) -> None:
    assert read_sweep(write_sweep()).name == "toy"


def test_the_number_of_trials_is_determined_by_grid_or_run_cap(write_sweep: Any) -> None:
    grid = read_sweep(write_sweep())
    assert [grid.trials(cap) for cap in (None, 1, 9)] == [2, 1, 2]
    random = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    assert read_sweep(write_sweep(**random, run_cap=5)).trials(None) == 5
    assert read_sweep(write_sweep(**random, run_cap=5)).trials(9) == 9
    with pytest.raises(ConfigError, match="'run_cap' in the file, or with --trials"):
        read_sweep(write_sweep(**random)).trials(None)


def test_the_number_of_trials_and_the_description_do_not_identify_a_sweep(write_sweep: Any) -> None:
    before = read_sweep(write_sweep()).digest
    assert read_sweep(write_sweep(run_cap=5, description="longer")).digest == before
    assert read_sweep(write_sweep(parameters={"model.beta": {"values": [0.1, 0.4]}})).digest != before


def test_goals_and_targets_are_read() -> None:
    highest, lowest = Metric("val/f1", "maximize", 0.5), Metric("val/loss", "minimize", 0.5)
    assert (highest.best([0.2, 0.7]), lowest.best([0.2, 0.7])) == (0.7, 0.2)
    assert [highest.reached(value) for value in (0.4, 0.5, 0.6)] == [False, True, True]
    assert [lowest.reached(value) for value in (0.4, 0.5, 0.6)] == [True, True, False]
    assert (highest.costs([1.0, 2.0]), lowest.costs([1.0, 2.0])) == ([-1.0, -2.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "grid"}, "unknown key 'metod': choose from program, command, method"),
        ({"controller": {"type": "local"}}, "unknown key 'controller'"),
        ({"method": "custom"}, "the method 'custom': choose from grid, random, bayes"),
        ({"method": None}, "the method None"),
        ({"parameters": None}, "'parameters' must name at least one"),
        ({"metric": None}, "'metric' must be a mapping with the name of a scalar"),
        ({"metric": {"name": "val/f1", "gaol": "maximize"}}, "unknown key 'gaol': choose from name, goal, target"),
        ({"metric": {"name": "val/f1", "impute": "worst"}}, "unknown key 'impute'"),
        ({"metric": {"name": "val/f1", "goal": "max"}}, "'max': choose from minimize, maximize"),
        ({"metric": {"name": "val/f1", "target": "high"}}, "must be a number, not 'high'"),
        ({"run_cap": 0}, "'run_cap' must be a whole number above 0, not 0"),
        ({"run_cap": True}, "'run_cap' must be a whole number"),
        ({"parameters": {"x": {"values": [{1: "a", "b": 2}]}}}, "keys are not all texts: quote them"),
        ({"name": "../elsewhere"}, "'../elsewhere' is not a valid folder name"),
        ({"early_terminate": {"type": "envelope"}}, "'type: hyperband'"),
        ({"command": "mmib fit"}, "'command' must be a list"),
        ({"program": None}, "there is no 'program'"),
        ({"parameters": {"x": {"min": 0.0, "max": 1.0}}}, "a grid cannot hold the parameter 'x'"),
    ],
)
def test_bad_files_are_refused(write_sweep: Any, changes: dict[str, Any], message: str) -> None:
    path = write_sweep(**changes)
    with pytest.raises(ConfigError) as error:
        read_sweep(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no sweep file"),
        (b"a: [", "is not valid YAML"),
        (b"\xff", "is not valid YAML: .utf-8. codec"),
        (b"- 1", "is no sweep file: it must hold the keys method"),
    ],
)
def test_files_without_a_sweep_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_sweep(path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path} cannot be read: Is a directory$"):
        read_sweep(tmp_path)
