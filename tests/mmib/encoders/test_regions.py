"""Shared parts of region encoders: positions of features in a batch."""

from __future__ import annotations

import torch

from mmib.encoders.regions import lay_out


def test_features_are_placed_by_the_mask_with_zeros_elsewhere() -> None:
    mask = torch.tensor([[False, True, True], [False, False, False], [True, False, False]])
    features = torch.arange(6.0).reshape(3, 2).requires_grad_()
    regions = lay_out(features, mask)
    assert regions.tolist() == [[[0, 0], [0, 1], [2, 3]], [[0, 0]] * 3, [[4, 5], [0, 0], [0, 0]]]
    regions.sum().backward()
    assert torch.equal(features.grad, torch.ones(3, 2))
    assert lay_out(torch.zeros(0, 2), mask & False).shape == (3, 3, 2)
