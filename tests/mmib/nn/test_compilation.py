"""Compiled blocks give the same results under the same names at every length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmib.callbacks.monitor import gradient_norms
from mmib.modules import ExtractionModule
from mmib.schema import ConfigError, PostBatch


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_code() -> Any:
    yield
    torch.compiler.reset()


def losses(module: ExtractionModule, batches: list[PostBatch]) -> list[torch.Tensor]:
    """Losses of one gradient descent step on each batch."""
    found = []
    for number, batch in enumerate(batches):
        torch.manual_seed(number)
        objective = module.objective(batch)
        module.zero_grad()
        objective.loss.backward()
        found.append(objective.loss.detach())
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad)
    return found


@pytest.mark.slow
def test_compiled_and_eager_training_match(
    make_module: Callable[..., ExtractionModule], make_batch: Callable[..., PostBatch]
) -> None:
    batches = [
        make_batch(),
        make_batch(lengths=(14, 11, 8), regions=(2, 1, 3), seed=1),
        make_batch(lengths=(9,) * 5, regions=(4,) * 5, seed=2),
    ]
    plain = make_module().train()
    compiled = make_module(compile=True).train()
    compiled.load_state_dict(plain.state_dict())
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert list(dict(compiled.named_parameters())) == list(dict(plain.named_parameters()))
    torch.testing.assert_close(losses(compiled, batches), losses(plain, batches), rtol=1e-4, atol=1e-5)
    for module in (plain, compiled):
        module.loss_terms = module.objective(batches[0]).terms
    # Several backward passes through one graph.
    assert gradient_norms(compiled).keys() == gradient_norms(plain).keys()


def test_a_missing_compiler_is_reported_in_advance(
    make_module: Callable[..., ExtractionModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++ -O2")
    with pytest.raises(ConfigError, match=r"^compile is on and there is no C\+\+ compiler '/nowhere/c\+\+' here"):
        make_module(compile=True)
    make_module(compile=False)
