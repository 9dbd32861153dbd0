"""The networks of exported models: the same parameters and results as the modules that were trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmib.modules import ExtractionModule, MREModule
from mmib.network import NETWORKS, RelationNetwork
from mmib.schema import PostBatch, Task

both_tasks = pytest.mark.parametrize("task", ["mre", "mner"])


@both_tasks
def test_a_network_takes_the_weights_of_its_module_and_gives_the_same_scores(
    make_module: Callable[..., ExtractionModule], make_batch: Callable[..., PostBatch], task: Task
) -> None:
    module, batch = make_module().eval(), make_batch()
    network = NETWORKS[task](make_module().backbone).eval()
    network.load_state_dict(module.state_dict())
    output = network.backbone(batch)
    expected = module.task_loss(module.backbone(batch), batch)[1]
    torch.testing.assert_close(network.scores(output.states), expected)


@both_tasks
def test_posteriors_and_fusion_in_two_steps_are_the_forward_pass(
    make_module: Callable[..., ExtractionModule], make_batch: Callable[..., PostBatch]
) -> None:
    backbone, batch = make_module().backbone.eval(), make_batch()
    whole = backbone(batch)
    fused = backbone.fuse(batch, whole.text_latents, whole.image_latents, need_weights=True)
    text, image = backbone.posteriors(batch)
    assert torch.equal(text.mean, whole.text.mean)
    assert torch.equal(image.log_var, whole.image.log_var)
    assert torch.equal(fused.states, whole.states)
    assert torch.equal(fused.weights, whole.attention)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_relation_network_decides_as_its_module(
    make_module: Callable[..., MREModule], make_batch: Callable[..., PostBatch], threshold: float | None
) -> None:
    module, batch = make_module(threshold=threshold), make_batch()
    logits = 2 * torch.randn(50, 23)
    network = RelationNetwork(module.backbone, **module_settings(module))
    assert network.settings() == {"threshold": threshold}
    assert torch.equal(network.predict(logits), module.decode(logits, batch)["predicted"])


def module_settings(module: MREModule) -> dict[str, float | None]:
    return {"threshold": module.threshold}
