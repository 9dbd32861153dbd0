"""Latents of a sample of validation posts: selection and order."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmib.callbacks.latent_sample import LatentSample
from mmib.schema import ConfigError, PostBatch


def trainer_of(rows: list[int]) -> Any:
    return SimpleNamespace(datamodule=SimpleNamespace(val_sample=lambda most: rows[:most]))


def test_selected_rows_are_returned_in_order_and_once(
    make_module: Callable[..., Any], make_batch: Callable[..., PostBatch]
) -> None:
    module = make_module().eval()
    batches = [make_batch(regions=(3, 1, 2, 2), seed=seed) for seed in range(2)]
    batches[0].rows, batches[1].rows = torch.tensor([7, 2, 9, -1]), torch.tensor([4, 0, 5, -1])
    sample = LatentSample(posts=4)
    for _ in range(2):
        sample.start(trainer_of([9, 4, 7, 0, 5]))
        with torch.no_grad():
            outputs = [module.backbone(batch) for batch in batches]
        for batch, output in zip(batches, outputs, strict=True):
            sample.add(batch, output)
        found = sample.gathered()
        assert found["rows"].tolist() == [0, 4, 7, 9]
        places = [(1, 1), (1, 0), (0, 0), (0, 2)]
        for number, (batch_number, place) in enumerate(places):
            batch, output = batches[batch_number], outputs[batch_number]
            assert found["image_ids"][number] == batch.image_ids[place]
            for side, mask in (("text", batch.text_mask), ("image", batch.region_mask)):
                mean = getattr(output, side).mean[place, mask[place]].mean(dim=0)
                torch.testing.assert_close(found[side][number], mean)
    assert found["text"].dtype == torch.float32
    assert sample.gathered() == {}, "they are forgotten"


@pytest.mark.parametrize(("posts", "rows"), [(0, [1, 2]), (5, []), (5, [99])])
def test_without_samples_there_are_no_latents(
    make_module: Callable[..., Any], make_batch: Callable[..., PostBatch], posts: int, rows: list[int]
) -> None:
    sample, batch = LatentSample(posts), make_batch()
    sample.start(trainer_of(rows))
    sample.add(batch, make_module().eval().backbone(batch))
    assert sample.gathered() == {}


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="latents cannot be kept of -2 posts: give 0 or more"):
        LatentSample(-2)
