"""Parameters of sweeps: samples compared with SciPy's distributions, and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from scipy import stats

from mmib.schema import ConfigError
from mmib.search.sweep.parameters import Parameter, check_grid, combinations, nested, read_parameters

SAMPLES = 2000


def sample(spec: dict[str, Any], count: int = SAMPLES) -> list[Any]:
    (parameter,) = read_parameters({"x": spec}, "file")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(sampler=sampler)
    return [parameter.sample(study.ask()) for _ in range(count)]


def grid(content: Any) -> list[Parameter]:
    parameters = list(read_parameters(content, "file"))
    check_grid(parameters, "file")
    return parameters


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"min": -1.0, "max": 3.0}, stats.uniform(-1, 4)),
        ({"distribution": "uniform", "min": 2, "max": 3}, stats.uniform(2, 1)),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 10.0}, stats.loguniform(1e-4, 10)),
        ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 10.0}, stats.loguniform(1e-4, 10)),
        ({"distribution": "log_uniform", "min": -2, "max": 1}, stats.loguniform(math.exp(-2), math.exp(1))),
        ({"distribution": "normal", "mu": 2, "sigma": 0.5}, stats.norm(2, 0.5)),
        ({"distribution": "normal"}, stats.norm()),
    ],
    ids=lambda value: str(value)[:60],
)
def test_continuous_distributions_match_scipy(spec: dict[str, Any], expected: Any) -> None:
    sampled = sample(spec)
    assert stats.kstest(sampled, expected.cdf).pvalue > 0.001
    low, high = expected.support()
    assert low * (1 - 1e-12) - 1e-12 <= min(sampled)
    assert max(sampled) <= high * (1 + 1e-12)


@pytest.mark.parametrize(
    ("spec", "exact"),
    [
        ({"distribution": "q_uniform", "min": 0.0, "max": 2.0, "q": 0.5}, stats.uniform(0, 2)),
        ({"distribution": "q_log_uniform_values", "min": 1.0, "max": 40.0, "q": 4}, stats.loguniform(1, 40)),
    ],
    ids=lambda value: str(value)[:60],
)
def test_quantised_values_have_the_probability_of_their_interval(spec: dict[str, Any], exact: Any) -> None:
    sampled, step = sample(spec), spec.get("q", 1.0)
    if isinstance(step, int):
        assert all(isinstance(value, int) for value in sampled)
    multiples, counts = np.unique([round(value / step) for value in sampled], return_counts=True)
    np.testing.assert_allclose(np.array(sorted(set(sampled))), multiples * step)
    shares = exact.cdf((multiples + 0.5) * step) - exact.cdf((multiples - 0.5) * step)
    assert np.all(np.abs(counts - SAMPLES * shares) < 4.5 * np.sqrt(SAMPLES * shares) + 1)
    assert shares.sum() > 0.99


def test_integers_are_equally_likely_including_both_ends() -> None:
    sampled = sample({"min": 3, "max": 6})
    values, counts = np.unique(sampled, return_counts=True)
    assert list(values) == [3, 4, 5, 6]
    assert stats.chisquare(counts).pvalue > 0.001
    assert all(type(value) is int for value in sampled)


def test_choices_have_their_probabilities() -> None:
    sampled = sample({"values": ["a", "b", "c"], "probabilities": [0.7, 0.0, 0.3]})
    assert set(sampled) == {"a", "c"}
    assert stats.binomtest(sampled.count("a"), SAMPLES, 0.7).pvalue > 0.001
    plain = sample({"values": [True, [1, 2], {"deep": 3}]})
    assert all(
        stats.binomtest(plain.count(value), SAMPLES, 1 / 3).pvalue > 0.001 for value in (True, [1, 2], {"deep": 3})
    )


def test_a_constant_never_changes() -> None:
    assert sample({"value": [1, "two"]}, 3) == [[1, "two"]] * 3


def test_a_grid_contains_all_combinations_and_the_last_name_varies_fastest() -> None:
    content = {
        "b": {"values": ["x", "y"]},
        "a": {"min": 1, "max": 3},
        "c": {"value": 7},
        "d": {"distribution": "q_uniform", "min": 0.0, "max": 0.3, "q": 0.1},
    }
    parameters = grid(content)
    trials = [optuna.trial.FixedTrial(dict(indices)) for indices in combinations(parameters)]
    sampled = [tuple(parameter.listed_value(trial) for parameter in parameters) for trial in trials]
    assert len(set(sampled)) == len(sampled) == 3 * 2 * 3
    assert sampled[:4] == [(1, "x", 7, 0.0), (1, "x", 7, 0.1), (1, "x", 7, 0.2), (1, "y", 7, 0.0)]


def test_nested_parameters_are_passed_as_dictionaries() -> None:
    content = {"model": {"parameters": {"gamma": {"value": 1}, "optimizer": {"parameters": {"lr": {"value": 2}}}}}}
    parameters = list(read_parameters(content, "file"))
    assert [p.name for p in parameters] == ["model.gamma", "model.optimizer.lr"]
    assert nested({p.keys: (p.distribution.values or [])[0] for p in parameters} | {("seed",): 3}) == {
        "model": {"gamma": 1, "optimizer": {"lr": 2}},
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "at least one parameter"),
        ("x: 3", "'x' must be a mapping"),
        ("x: {}", "has no values to sample from"),
        ("x: {vales: [1]}", "has no values to sample from"),
        ("x: {values: [1], q: 2}", "unknown key 'q': choose from distribution, values, probabilities"),
        ("x: {distribution: beta, a: 1}", "'beta', which is not known here; choose from constant, categorical"),
        ("x: {distribution: unifrom, min: 0.0, max: 1.0}", "'unifrom', which is not known here; choose from"),
        ("x: {min: 0, max: 1.0}", "one an integer and one a float"),
        ("x: {distribution: {a: 1}, min: 0.0, max: 1.0}", "{'a': 1}, which is not known here; choose from"),
        (f"x: {{min: 0, max: 1{'0' * 400}}}", "'max' must be a number"),
        (f"x: {{min: 0, max: 1{'0' * 20}}}", "beyond 2^53"),
        ("x: {min: -1.0e+308, max: 1.0e+308}", "too far apart"),
        ("x: {distribution: log_uniform, min: 0.0, max: 800.0}", "values beyond the range of floats"),
        ("x: {distribution: q_uniform, min: 0.0, max: 1.0e+300, q: 1.0e-300}", "values beyond the range of floats"),
        ("x: {min: 1.0, max: 1.0}", "'min' 1.0 is not below its 'max' 1.0"),
        ("x: {min: 1e-5, max: 1.0}", "text '1e-5'; YAML reads 1e-5 as text and 1.0e-5 as a number"),
        ("x: {min: .nan, max: 1.0}", "'min' must be a number"),
        ("x: {min: true, max: 3}", "'min' must be a number"),
        ("x: {distribution: log_uniform_values, min: 0.0, max: 1.0}", "'min' must be above 0"),
        ("x: {distribution: q_uniform, min: 0.0, max: 1.0, q: 0}", "'q' must be above 0"),
        ("x: {distribution: normal, sigma: 0}", "'sigma' must be above 0"),
        ("x: {distribution: int_uniform, min: 0.0, max: 1.0}", "must be whole"),
        ("x: {distribution: log_uniform, min: 0.0}", "the distribution log_uniform needs 'max'"),
        ("x: {values: []}", "a list of at least one"),
        ("x: {values: 3}", "a list of at least one"),
        ("x: {values: [0.1, 0.2, 0.1]}", "the value 0.1 is there twice; leave one out"),
        ("x: {values: [1, 2], probabilities: [1.0]}", "as many 'probabilities' as 'values', which are 2"),
        ("x: {values: [1, 2], probabilities: [0.5, 0.6]}", "sum to 1 instead of 1.1"),
        ("x: {values: [1, 2], probabilities: [-0.5, 1.5]}", "must not be negative"),
        ("x: {parameters: {y: {value: 1}}, value: 2}", "unknown key 'value': choose from parameters"),
        ("x: {parameters: {y: {mni: 1}}}", "'x.y' has no values"),
    ],
)
def test_invalid_parameters_are_named_with_their_file(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        list(read_parameters(yaml.safe_load(text), "my.yaml"))
    assert str(error.value).startswith("my.yaml: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "spec", [{"min": 0.0, "max": 1.0}, {"distribution": "normal"}, {"values": [1, 2], "probabilities": [0.5, 0.5]}]
)
def test_a_grid_requires_listed_values(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a grid cannot hold the parameter 'x'"):
        grid({"x": spec})


@pytest.mark.parametrize(
    "text",
    [
        "x: {min: 0, max: 1000000000000}",
        "x: {distribution: q_uniform, min: 0.0, max: 1.0, q: 1.0e-9}",
        "\n".join(f"x{number}: {{min: 1, max: 10}}" for number in range(6)),
    ],
)
def test_an_infinite_grid_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"file: the grid has more than 100,000 trials: give 'x5?' fewer values"):
        grid(yaml.safe_load(text))
