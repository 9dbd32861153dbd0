"""Limits that would refuse every request are invalid, on the command line too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmib.schema import ConfigError
from mmib.serve.limits import Limits


@pytest.mark.parametrize(
    "name", ["body", "characters", "pixels", "posts", "waiting", "client", "connections", "seconds"]
)
def test_only_the_limits_of_entities_and_samples_may_be_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name} is 0"):
        Limits(**{name: 0})
    assert Limits(entities=0, samples=0).samples == 0


def test_a_single_sample_has_no_standard_deviation() -> None:
    with pytest.raises(ConfigError, match="--samples is 1"):
        Limits(samples=1)


@pytest.mark.parametrize("name", ["waiting", "client"])
def test_limits_too_small_for_the_maximum_request_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="would never be accepted"):
        Limits(**{"posts": 10, name: 9})


@pytest.mark.parametrize("seconds", ["nan", "inf"])
def test_infinite_seconds_are_refused(seconds: str) -> None:
    with pytest.raises(ConfigError, match=f"--seconds is {seconds}"):
        Limits(seconds=float(seconds))


def test_the_command_refuses_invalid_limits_before_loading_a_model(refused: Callable[..., str]) -> None:
    assert "--body is 0" in refused("serve", "--model", "nowhere", "--body", "0")
    assert "--model" in refused("serve")
    for name in ("https://mmib.example.org", "mmib.example.org/", "a b", ""):
        assert f"--name is {name!r}" in refused("serve", "--model", "nowhere", "--name", name)
