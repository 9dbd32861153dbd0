"""The relation classifier uses the states of the two opening markers, head first."""

from __future__ import annotations

import torch

from mmib.nn.relation import RelationHead


def test_logits_are_a_linear_map_of_head_and_tail() -> None:
    head = RelationHead(6, relations=5, dropout=0.0)
    states = torch.randn(3, 2, 6)
    expected = [head.classifier.weight @ torch.cat([first, second]) + head.classifier.bias for first, second in states]
    torch.testing.assert_close(head(states), torch.stack(expected))


def test_the_direction_of_the_relation_matters() -> None:
    head = RelationHead(6, relations=5, dropout=0.0)
    states = torch.randn(2, 2, 6)
    assert not torch.allclose(head(states), head(states.flip(1)))


def test_dropout_acts_in_training_only() -> None:
    head = RelationHead(64, relations=5, dropout=0.5)
    states = torch.randn(1, 2, 64)
    assert not torch.equal(head(states), head(states))
    head.eval()
    assert torch.equal(head(states), head(states))
