"""Study files: all combinations, one folder per run, and errors that describe faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.schema import ConfigError
from mmib.search.study_file import StudyFile, Trial, read_study_file

CONTENT: dict[str, Any] = {
    "name": "toy",
    "experiments": ["mre-demo"],
    "seeds": [1, 2],
    "baseline": {"variant": "full"},
    "factors": {
        "variant": {"full": [], "without AR": ["--model.gamma", 0]},
        "noise": {0.2: [], 0.5: ["--data.demo.noise", 0.5]},
    },
}
FILES = (Path(__file__).parents[3] / "experiments").glob("*/*.yaml")
SHIPPED = sorted(path for path in FILES if "factors" in yaml.safe_load(path.read_text(encoding="utf-8")))


def study_of(tmp_path: Path, **changes: Any) -> StudyFile:
    path = tmp_path / "study.yaml"
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study_file(path)


def test_every_combination_is_a_trial_with_the_options_of_its_levels(tmp_path: Path) -> None:
    trials = list(study_of(tmp_path).trials())
    assert [str(trial) for trial in trials] == [
        *("full, noise 0.2", "full, noise 0.5"),
        *("without AR, noise 0.2", "without AR, noise 0.5"),
    ]
    assert trials[3].options == ("--model.gamma", "0", "--data.demo.noise", "0.5")
    assert trials[3].command("mre-demo", 2) == [
        *("--config", "mre-demo", "--model.gamma", "0", "--data.demo.noise", "0.5", "--seed_everything", "2")
    ]


def test_trials_with_the_same_settings_share_a_key_for_any_level_names() -> None:
    assert Trial({"a": "full"}, ()).key("mre-demo", 1) == Trial({"b": 0.2}, ()).key("mre-demo", 1)


def test_a_key_depends_on_everything_that_determines_a_run(tmp_path: Path) -> None:
    custom = tmp_path / "custom.yaml"
    custom.write_text("include: [mre-demo]\nname: custom\n")
    trial = Trial({}, ("--model.gamma", "0"))
    keys = {
        trial.key("mre-demo", 1),
        trial.key("mre-demo", 2),
        trial.key("mner-demo", 1),
        Trial({}, ("--model.gamma", "1")).key("mre-demo", 1),
        trial.key(str(custom), 1),
    }
    assert len(keys) == 5
    before = trial.key(str(custom), 1)
    custom.write_text("# The same settings.\ninclude:\n  - mre-demo\nname: custom\n")
    assert trial.key(str(custom), 1) == before
    custom.write_text("include: [mre-demo]\nname: custom\nmodel: {init_args: {beta_text: 0.5}}\n")
    assert trial.key(str(custom), 1) != before


def test_keys_are_valid_folder_names() -> None:
    key = Trial({}, ("--config", "mre-demo", "--model.backbone.fusion", "a/b c:d")).key("mre-demo", 1)
    assert Path(key).name == key
    assert " " not in key


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_studies_and_their_configurations_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parents[2])
    study = read_study_file(path)
    assert len(study.seeds) >= 3
    for trial in study.trials():
        tried = study.candidates(trial).values()
        assert all(each.options[len(each.options) - len(trial.options) :] == trial.options for each in tried)
    keys = [trial.key(experiment, 1) for experiment in study.experiments for trial in study.trials()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, "has the unknown key 'sedes': choose from name, experiments, seeds"),
        ({"seeds": None}, "'seeds' is missing"),
        ({"seeds": [1, "2"]}, "a list of whole numbers"),
        ({"seeds": [1, 1]}, "names one twice"),
        ({"experiments": "mre-demo"}, "'experiments' must be"),
        ({"experiments": ["a/toy.yaml", "b/toy.yaml"]}, "a/toy.yaml and b/toy.yaml would share the folder"),
        ({"baseline": {"variant": "ful"}}, "'ful' is no level: choose from .*full"),
        ({"baseline": {"varient": "full"}}, "varient: 'full' is no level"),
        ({"baseline": "full"}, "'baseline' must be"),
        ({"baseline": {"variant": {"full": []}}}, "is no level: choose from"),
        ({"factors": ["full"]}, "'factors' must be"),
        ({"factors": {"variant": {"full": "--model.gamma 0"}}}, "must be a list of options"),
        ({"factors": {"variant": {True: []}}}, "neither a name nor a number: quote it"),
        (
            {"factors": {"variant": {"full": ["--seed_everything=2"]}}},
            "cannot set --seed_everything: the study sets it",
        ),
        ({"name": "a/b"}, "the name 'a/b' names a folder"),
        ({"factors": {"variant": {"full": {"search": {}, "options": []}}}}, "levels must share it to be comparable"),
        ({"search": ["--model.gamma"]}, "'search' must be {seed: whole number"),
        ({"search": {"seed": "1", "settings": {"a": [], "b": []}}}, "'search' must be {seed: whole number"),
        ({"search": {"seed": 1, "trials": 6}}, "'search' has the unknown key 'trials'"),
        ({"search": {"seed": 1, "settings": {"a": []}}}, "there is nothing to choose between"),
        ({"search": {"seed": 1, "settings": {"a": [], "b": ["--runs", "x"]}}}, "'b' of 'search' cannot set --runs"),
        (
            {"search": {"seed": 1, "settings": {"a": [], "b": []}, "options": ["--evaluate", "true"]}},
            "the options of 'search' cannot set --evaluate: the study sets it",
        ),
    ],
    ids=str,
)
def test_an_invalid_file_is_refused_with_the_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        study_of(tmp_path, **changes)
    assert "study.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"), [("- a", "is no study"), ("a: [", "not valid YAML"), (None, "no study")]
)
def test_a_file_without_a_study_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_study_file(tmp_path / "study.yaml")
