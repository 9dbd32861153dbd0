"""The published recipe computes the same on padded batches of pixels, and the waterfall leads from it to ours."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.benchmarks.corpus import SETS, open_set, read_set, write_set
from experiments.benchmarks.recipe import (
    ENCODERS,
    PUBLISHED,
    PackagedCRF,
    PerRowFusion,
    Setup,
    build_module,
    compute,
    make_loader,
    make_optimizer,
    running_as,
    training_step,
)
from experiments.benchmarks.training import waterfall
from mmib.modules import ExtractionModule
from mmib.nn.crf import LinearChainCRF
from mmib.schema import PostBatch
from mmib.tasks.mner import MNERBatch

ROWS = 4
NAMES = ("mnre", "twitter2017")


@dataclasses.dataclass
class Case:
    """A model, and the single batch of all rows in each setup."""

    name: str
    module: ExtractionModule
    batch: Callable[[Setup], PostBatch]


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path: Path, data_root: Path) -> Case:
    name = request.param
    source = write_set(tmp_path / "data", name, ROWS, data_root)
    assert source == f"real posts of {name}"
    (tmp_path / "text").mkdir()
    module = build_module(SETS[name].task, ENCODERS["tiny"], tmp_path / "text")
    opened: dict[bool, Any] = {}

    def batch(setup: Setup) -> PostBatch:
        if setup.cached not in opened:
            cache = tmp_path / "cache" if setup.cached else None
            opened[setup.cached] = open_set(tmp_path / "data", name, module, cache, batch_size=ROWS)
            read_set(opened[setup.cached])
        (whole,) = make_loader(opened[setup.cached], setup, SETS[name])
        return whole

    return Case(name, module, batch)


def gradients(module: ExtractionModule) -> Iterator[torch.Tensor]:
    return (p.grad for p in module.parameters() if p.grad is not None)


def test_all_steps_of_the_waterfall_compute_the_same_loss_and_gradients(case: Case) -> None:
    module = case.module.eval()  # no dropout, and means instead of samples
    found = []
    for setup in waterfall(SETS[case.name].task).values():
        if setup.bf16:
            break
        module.zero_grad()
        with running_as(module, setup):
            objective = compute(module, case.batch(setup), setup)
        objective.loss.backward()
        norm = torch.stack([gradient.norm() for gradient in gradients(module)]).norm()
        found.append((setup, objective.loss.detach(), norm))
    ours = found[-1]
    assert ours[2] > 0
    for setup, loss, norm in found:
        # The cache stores features in float16.
        tolerance = 1e-4 if setup.cached else 1e-2
        torch.testing.assert_close(loss, ours[1], rtol=tolerance, atol=0)
        torch.testing.assert_close(norm, ours[2], rtol=tolerance, atol=0)


def test_the_recipe_pads_everything_to_the_maximum_length_and_decodes_every_image(case: Case) -> None:
    posts, batch = SETS[case.name], case.batch(PUBLISHED)
    assert batch.input_ids.shape == batch.text_mask.shape == (ROWS, posts.max_length)
    assert batch.pixels is not None
    assert len(batch.pixels) == ROWS * posts.regions
    assert batch.region_mask.all()
    if isinstance(batch, MNERBatch):
        shape = (ROWS, posts.max_length)
        assert batch.tags.shape == batch.gold.shape == batch.positions.shape == batch.word_mask.shape == shape
        assert batch.word_mask.sum() == 4 + 5 + 6 + 7
    ours = case.batch(Setup(cached=True, padded=False, bucketed=True))
    assert ours.pixels is None
    assert ours.features is not None
    assert ours.input_ids.shape[1] == ours.text_mask.sum(dim=1).max() < posts.max_length
    assert ours.text_mask.sum() == batch.text_mask.sum()


def test_steps_update_only_unfrozen_parameters(case: Case) -> None:
    module = case.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with running_as(module, PUBLISHED):
        training_step(module, make_optimizer(module, fused=False), case.batch(PUBLISHED), PUBLISHED)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("backbone.image_encoder.") for name in changed)
    assert {"backbone.fusion.text_reads_image.value.weight", "backbone.text_encoder.markers.weight"} - changed <= (
        set() if case.name == "mnre" else {"backbone.text_encoder.markers.weight"}
    )


def test_replaced_parts_are_restored_even_after_an_error(case: Case) -> None:
    parts, names = dict(case.module.named_children()), [name for name, _ in case.module.named_parameters()]
    with running_as(case.module, PUBLISHED) as module:
        assert dict(module.named_children()) != parts
        broken = dataclasses.replace(case.batch(PUBLISHED), positions=torch.tensor([]))
    with pytest.raises(IndexError), running_as(case.module, PUBLISHED):
        compute(case.module, broken, PUBLISHED)
    assert dict(case.module.named_children()) == parts
    assert dict(case.module.network.named_children()).items() <= parts.items()
    assert [name for name, _ in case.module.named_parameters()] == names


def test_the_recipe_uses_the_packaged_crf_and_gathers_row_by_row(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for part in (PackagedCRF, PerRowFusion):
        forward = part.forward
        monkeypatch.setattr(
            part,
            "forward",
            lambda self, *batch, forward=forward: ran.append(type(self).__name__) or forward(self, *batch),
        )
    expected = ["PerRowFusion", *(["PackagedCRF"] if case.name == "twitter2017" else [])]
    for setup, parts in ((PUBLISHED, expected), (Setup(per_row=False, packaged_crf=False, decoding=False), [])):
        ran.clear()
        with running_as(case.module, setup):
            compute(case.module, case.batch(setup), setup)
        assert ran == parts


def test_the_packaged_crf_and_ours_decode_the_same() -> None:
    crf = LinearChainCRF(5)
    for scores in crf.parameters():
        torch.nn.init.normal_(scores)
    emissions, lengths = torch.randn(6, 9, 5), torch.tensor([9, 1, 4, 7, 2, 9])
    mask = torch.arange(9)[None, :] < lengths[:, None]
    ours = crf.viterbi(emissions, mask)
    packaged = PackagedCRF(crf).viterbi(emissions, mask)
    assert packaged == [row[:length].tolist() for row, length in zip(ours, lengths, strict=True)]


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_the_waterfall_changes_one_thing_at_a_time(task: Any) -> None:
    setups = [dataclasses.asdict(setup) for setup in waterfall(task).values()]
    assert setups[0] == dataclasses.asdict(PUBLISHED)
    for before, after in itertools.pairwise(setups):
        assert sum(before[name] != after[name] for name in before) == 1


def test_generated_posts_replace_missing_sets(tmp_path: Path) -> None:
    source = write_set(tmp_path / "data", "twitter2015", 2, tmp_path / "nowhere")
    assert source == "posts of the demo corpus"
    assert (tmp_path / "data/twitter2015/train.txt").read_text(encoding="utf-8").count("IMGID:") == 2
    assert len(list((tmp_path / "data/twitter2015_aux_images/train/crops").iterdir())) == 2 * 4
