"""Study files: every combination, one folder a run, and files that say what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmib.schema import ConfigError
from mmib.search.study_file import Plan, Point, read_plan

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
FILES = (Path(__file__).parents[2] / "experiments").glob("*/*.yaml")
SHIPPED = sorted(path for path in FILES if "factors" in yaml.safe_load(path.read_text(encoding="utf-8")))


def plan_of(tmp_path: Path, **changes: Any) -> Plan:
    path = tmp_path / "study.yaml"
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_plan(path)


def test_every_combination_is_a_point_with_the_options_of_its_levels(tmp_path: Path) -> None:
    points = list(plan_of(tmp_path).points())
    assert [str(point) for point in points] == [
        *("full, noise 0.2", "full, noise 0.5"),
        *("without AR, noise 0.2", "without AR, noise 0.5"),
    ]
    assert points[3].options == ("--model.gamma", "0", "--data.demo.noise", "0.5")
    assert points[3].command("mre-demo", 2) == [
        *("--config", "mre-demo", "--model.gamma", "0", "--data.demo.noise", "0.5", "--seed_everything", "2")
    ]


def test_points_of_the_same_settings_share_a_key_whatever_their_levels_are_called() -> None:
    assert Point({"a": "full"}, ()).key("mre-demo", 1) == Point({"b": 0.2}, ()).key("mre-demo", 1)


def test_a_key_changes_with_everything_that_decides_a_run(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("include: [mre-demo]\nname: own\n")
    point = Point({}, ("--model.gamma", "0"))
    keys = {
        point.key("mre-demo", 1),
        point.key("mre-demo", 2),
        point.key("mner-demo", 1),
        Point({}, ("--model.gamma", "1")).key("mre-demo", 1),
        point.key(str(own), 1),
    }
    assert len(keys) == 5
    before = point.key(str(own), 1)
    assert point.key(str(own), 1) == before
    own.write_text("include: [mre-demo]\nname: own\nmodel: {init_args: {beta_text: 0.5}}\n")
    assert point.key(str(own), 1) != before


def test_keys_are_names_of_folders() -> None:
    key = Point({}, ("--config", "mre-demo", "--model.backbone.fusion", "a/b c:d")).key("mre-demo", 1)
    assert Path(key).name == key
    assert " " not in key


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_studies_and_the_configurations_they_name_are_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parents[2])
    plan = read_plan(path)
    assert len(plan.seeds) >= 3
    keys = [point.key(experiment, 1) for experiment in plan.experiments for point in plan.points()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, "the key 'sedes' is unknown"),
        ({"seeds": None}, "'seeds' is missing"),
        ({"seeds": [1, "2"]}, "a list of whole numbers"),
        ({"seeds": [1, 1]}, "names one twice"),
        ({"experiments": "mre-demo"}, "'experiments' must be"),
        ({"baseline": {"variant": "ful"}}, "'ful' is no level: choose from .*full"),
        ({"baseline": {"varient": "full"}}, "varient: 'full' is no level"),
        ({"baseline": "full"}, "'baseline' must be"),
        ({"baseline": {"variant": {"full": []}}}, "is no level: choose from"),
        ({"factors": ["full"]}, "'factors' must be"),
        ({"factors": {"variant": {"full": "--model.gamma 0"}}}, "must be a list of options"),
        ({"factors": {"variant": {True: []}}}, "no name and no number: quote it"),
        ({"factors": {"variant": {"full": ["--seed_everything=2"]}}}, "cannot set --seed_everything: the study does"),
        ({"name": "a/b"}, "the name 'a/b' names a folder"),
    ],
    ids=str,
)
def test_a_file_that_cannot_work_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        plan_of(tmp_path, **changes)
    assert "study.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"), [("- a", "is no study"), ("a: [", "not valid YAML"), (None, "no study")]
)
def test_a_file_that_is_no_study(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_plan(tmp_path / "study.yaml")
