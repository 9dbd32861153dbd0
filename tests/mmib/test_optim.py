"""Parameter groups that contain every parameter once, and schedules with known values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mmib.modules import MREModule
from mmib.optim import Constant, Cyclic, LinearWarmup, OptimizerSettings, linear_warmup_decay, parameter_groups
from mmib.schema import ConfigError


def network() -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "fc": nn.Linear(3, 2)})


def groups_of(module: nn.Module, rates: dict[str, float], weight_decay: float = 0.1) -> list[dict[str, Any]]:
    return parameter_groups(module.named_parameters(), rates, weight_decay)


def found(groups: list[dict[str, Any]], module: nn.Module) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) of each parameter name; a parameter in two groups is an error."""
    names = {id(p): name for name, p in module.named_parameters()}
    table: dict[str, tuple[float, float]] = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in table
            table[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    return table


def test_the_first_matching_pattern_gives_the_rate_and_only_matrices_decay() -> None:
    """Defects 10 and 11: the classifier's group was empty, and weight decay was applied to norm gains."""
    module = network()
    assert found(groups_of(module, {"^fc": 5.0, "encoder": 2.0, ".": 1.0}), module) == {
        "encoder.weight": (2.0, 0.1),
        "encoder.bias": (2.0, 0.0),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
        "fc.weight": (5.0, 0.1),
        "fc.bias": (5.0, 0.0),
    }


def test_a_pattern_without_any_match_is_refused_and_named() -> None:
    """Defect 10: `name == "fc"` matched no parameter, silently."""
    with pytest.raises(ConfigError, match=r"pattern '\^fc\$' matches no parameter.*encoder.weight"):
        groups_of(network(), {"^fc$": 5.0, ".": 1.0})


def test_an_unmatched_parameter_is_refused_and_named() -> None:
    with pytest.raises(ConfigError, match=r"no learning rate is set for the parameter norm.weight"):
        groups_of(network(), {"encoder": 1.0, "fc": 1.0})


def test_a_pattern_shadowed_by_an_earlier_one_is_not_reported_as_empty() -> None:
    module = network()
    assert found(groups_of(module, {"fc": 5.0, "fc.bias": 7.0, ".": 1.0}), module)["fc.bias"][0] == 5.0


def test_frozen_parameters_are_in_no_group_but_count_as_matches() -> None:
    module = network()
    module["encoder"].requires_grad_(False)
    assert set(found(groups_of(module, {"encoder": 2.0, ".": 1.0}), module)) == {
        *("norm.weight", "norm.bias", "fc.weight", "fc.bias")
    }


def test_groups_are_named_for_the_learning_rate_monitor() -> None:
    names = [group["name"] for group in groups_of(network(), {"fc": 5.0, ".": 1.0})]
    assert sorted(names) == [".", ". (no decay)", "fc", "fc (no decay)"]


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("trainable_layers", [None, 1])
def test_every_trainable_parameter_of_a_module_is_in_exactly_one_group(
    make_module: Callable[..., MREModule], gamma: float, frozen: bool, trainable_layers: int | None
) -> None:
    """Defects 9 to 11."""
    module = make_module({"image": {"frozen": frozen}, "text": {"trainable_layers": trainable_layers}}, gamma=gamma)
    rates = {r"^backbone\.text_encoder\.": 1.0, r"^backbone\.image_encoder\.": 2.0, ".": 3.0}
    groups = groups_of(module, rates)
    claimed = Counter(id(p) for group in groups for p in group["params"])
    assert claimed == Counter(id(p) for p in module.parameters() if p.requires_grad)
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    table = found(groups, module)
    assert table["head.classifier.weight"] == (3.0, 0.1)
    assert table["backbone.text_encoder.encoder.encoder.layer.2.output.dense.weight"] == (1.0, 0.1)
    assert ("backbone.text_encoder.markers.weight" in table) == (trainable_layers is None)
    assert any(name.startswith("backbone.alignment") for name in table) == (gamma > 0)
    assert any(name.startswith("backbone.image_encoder") for name in table) == (not frozen)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0.0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
        (0.2, [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0.0]),
        (0.5, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
    ],
)
def test_the_rate_rises_and_falls_linearly(warmup: float, expected: list[float]) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD([{"params": parameters[:1], "lr": 2.0}, {"params": parameters[1:], "lr": 0.5}])
    scheduler = linear_warmup_decay(optimizer, steps=10, warmup=warmup)
    rates = []
    for _ in expected:
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert [rate for rate, _ in rates] == pytest.approx([2.0 * factor for factor in expected])
    assert [rate for _, rate in rates] == pytest.approx([0.5 * factor for factor in expected])


def test_the_rate_stays_at_zero_after_the_last_step_and_a_single_step_trains() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = linear_warmup_decay(optimizer, steps=1, warmup=0.1)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [1.0, 0.0, 0.0, 0.0]


def test_a_constant_schedule_is_always_one() -> None:
    assert {Constant()(progress) for progress in (0.0, 0.4, 1.0)} == {1.0}


def test_a_linear_warmup_reaches_one_at_its_share_and_stays_there() -> None:
    schedule = LinearWarmup(0.4)
    values = [schedule(progress) for progress in (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)]
    assert values == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0, 1.0])


def test_a_cyclic_schedule_restarts_in_each_cycle_and_ends_at_one() -> None:
    schedule = Cyclic(cycles=2, share=0.5)
    values = [schedule(progress) for progress in (0.0, 0.125, 0.25, 0.49, 0.5, 0.625, 0.75, 0.99, 1.0)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0])


def test_one_cycle_is_a_linear_warmup() -> None:
    for progress in (0.0, 0.1, 0.3, 0.8, 1.0):
        assert Cyclic(cycles=1, share=0.3)(progress) == pytest.approx(LinearWarmup(0.3)(progress))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearWarmup(0.0),
        lambda: LinearWarmup(1.5),
        lambda: Cyclic(cycles=0),
        lambda: Cyclic(share=0.0),
        lambda: OptimizerSettings(warmup=1.0),
        lambda: OptimizerSettings(warmup=-0.1),
        lambda: OptimizerSettings(lr=-1.0),
        lambda: OptimizerSettings(other_lrs={"head": -1.0}),
        lambda: OptimizerSettings(weight_decay=-0.1),
    ],
)
def test_invalid_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()
