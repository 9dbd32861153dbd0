"""The shared backbone: what may and may not affect its outputs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial

import pytest
import torch

from mmib.backbone import BackboneOutput, MultimodalIB
from mmib.datamodules.markers import opening
from mmib.nn.alignment import InfoNCEAlignment, JSDAlignment, Latents
from mmib.nn.fusion import CrossModalFusion, FusionOutput, LateFusion
from mmib.nn.gaussian import GaussianEncoder, Posterior
from mmib.schema import ConfigError
from mmib.tasks.mre import MREBatch
from tests.conftest import VOCABULARY

Build = Callable[..., MultimodalIB]
MakeBatch = Callable[..., MREBatch]
VARIANTS = {
    "default": {},
    "late": {"alignment": partial(InfoNCEAlignment, granularity="late")},
    "jsd": {"alignment": JSDAlignment},
    "late-fusion": {"fusion": partial(LateFusion, dropout=0.0)},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def rate(posterior: Posterior) -> torch.Tensor:
    """Nats per latent dimension, (D,): the KL averaged over valid positions; 0 if there are none."""
    return posterior.kl().sum(dim=(0, 1)) / posterior.mask.sum().clamp(min=1)


def tensors(output: BackboneOutput, batch: MREBatch) -> dict[str, torch.Tensor]:
    """All parts of an output that must not depend on padding."""
    length, regions = batch.text_mask.shape[1], batch.region_mask.shape[1]
    return {
        "states": output.states,
        "text": output.text.mean[:, :length][batch.text_mask],
        "image": output.image.mean[:, :regions][batch.region_mask],
        "kl_text": rate(output.text),
        "kl_image": rate(output.image),
        "alignment": output.alignment.loss,
        **output.alignment.scalars,
    }


@every_variant
@pytest.mark.parametrize(("pieces", "regions"), [(0, 0), (1, 0), (0, 1), (7, 3), (40, 11)])
def test_padding_changes_neither_states_nor_kl_nor_alignment(
    make_backbone: Build,
    make_batch: MakeBatch,
    append_garbage: Callable[..., MREBatch],
    variant: str,
    pieces: int,
    regions: int,
) -> None:
    """Defects 1, 2, 5 and 24; (0, 0) replaces existing padding."""
    backbone, batch = make_backbone(**VARIANTS[variant]).eval(), make_batch()
    expected = tensors(backbone(batch), batch)
    padded = tensors(backbone(append_garbage(batch, pieces, regions)), batch)
    for name, value in expected.items():
        torch.testing.assert_close(padded[name], value, msg=lambda text, name=name: f"{name}: {text}")


@every_variant
def test_states_are_those_of_the_requested_positions_in_order(
    make_backbone: Build, make_batch: MakeBatch, variant: str
) -> None:
    backbone, batch = make_backbone(**VARIANTS[variant]).eval(), make_batch()
    everywhere = torch.arange(batch.text_mask.shape[1]).repeat(len(batch), 1)
    asked = torch.tensor([[4, 1, 6], [1, 4, 11], [0, 0, 7], [9, 2, 3]])
    states = backbone(dataclasses.replace(batch, positions=asked)).states
    all_states = backbone(dataclasses.replace(batch, positions=everywhere)).states
    for row, columns in enumerate(asked.tolist()):
        torch.testing.assert_close(states[row], all_states[row, columns])


def test_a_post_is_independent_of_its_batch(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone().eval(), make_batch(lengths=(9, 9), regions=(2, 2))
    alone = dataclasses.replace(
        batch, **{f.name: v[:1] for f in dataclasses.fields(batch) if (v := getattr(batch, f.name)) is not None}
    )
    torch.testing.assert_close(backbone(batch).states[:1], backbone(alone).states)


def test_two_evaluation_passes_are_equal_and_use_the_means(make_backbone: Build, make_batch: MakeBatch) -> None:
    """Defect 6: development scores of relation extraction came from a single random sample."""
    backbone, batch = make_backbone(dropout=0.3, text={"dropout": 0.3}).eval(), make_batch()
    first, second = backbone(batch), backbone(batch)
    assert torch.equal(first.states, second.states)
    assert torch.equal(first.alignment.loss, second.alignment.loss)


def test_training_passes_differ_only_by_the_noise(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone().train(), make_batch()
    first, second = backbone(batch), backbone(batch)
    assert torch.equal(first.text.mean, second.text.mean)
    assert not torch.allclose(first.states, second.states)
    assert not torch.allclose(first.alignment.loss, second.alignment.loss)


def test_without_sampling_training_matches_evaluation(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone(sampling=False), make_batch()
    first, second = backbone.train()(batch), backbone.train()(batch)
    assert torch.equal(first.states, second.states)
    torch.testing.assert_close(backbone.eval()(batch).states, first.states)


def test_noise_follows_the_variance(make_backbone: Build, make_batch: MakeBatch) -> None:
    """Defect 4: with minimal log_var the training pass is close to the mean's, with log_var 5 it is not."""
    backbone, batch = make_backbone(), make_batch()
    distances = []
    for log_var in (-10.0, 5.0):
        for posterior in (backbone.text_posterior, backbone.image_posterior):
            torch.nn.init.constant_(posterior.log_var.bias, log_var)
        distances.append((backbone.train()(batch).states - backbone.eval()(batch).states).abs().mean().item())
    assert distances[0] < 0.05 < 10 * distances[0] < distances[1]


@every_variant
def test_a_batch_without_any_image_works_and_is_marked(
    make_backbone: Build, make_batch: MakeBatch, variant: str
) -> None:
    backbone = make_backbone(**VARIANTS[variant]).train()
    output = backbone(make_batch(regions=(0, 0, 0, 0)))
    (output.states.square().sum() + output.alignment.loss + rate(output.image).sum()).backward()
    assert output.alignment.loss.item() == 0
    assert rate(output.image).tolist() == [0.0] * backbone.dim
    assert all(p.grad is None or p.grad.isfinite().all() for p in backbone.parameters())


def test_an_image_changes_only_the_states_of_its_post(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone().eval(), make_batch()
    assert batch.features is not None
    changed = batch.features.clone()
    changed[0, 0] += torch.randn(changed.shape[-1])
    before, after = backbone(batch).states, backbone(dataclasses.replace(batch, features=changed)).states
    assert (after[0] - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(after[1:], before[1:])


def test_boxes_distinguish_equal_regions(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone().eval(), make_batch()
    moved = batch.boxes.clone()
    moved[0, 0] = torch.tensor([0.5, 0.5, 1.0, 1.0])
    before, after = backbone(batch).states, backbone(dataclasses.replace(batch, boxes=moved)).states
    assert (after[0] - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(after[1:], before[1:])


def as_features(backbone: MultimodalIB, batch: MREBatch) -> MREBatch:
    """The same batch with features as stored in a cache."""
    assert batch.pixels is not None
    with torch.no_grad():
        encoded = copy.deepcopy(backbone.image_encoder).eval()(batch.pixels).flatten(0, 1)
    features = torch.zeros(*batch.region_mask.shape, encoded.shape[-1])
    position = 0
    for row in range(len(batch)):
        for region in range(int(batch.region_mask[row].sum())):
            features[row, region] = encoded[position]
            position += 1
    assert position == len(encoded)
    return dataclasses.replace(batch, features=features, pixels=None)


@pytest.mark.parametrize("frozen", [True, False])
def test_pixels_and_cached_features_give_the_same_result(
    make_backbone: Build, make_batch: MakeBatch, frozen: bool
) -> None:
    backbone, batch = make_backbone(image={"frozen": frozen}).eval(), make_batch(regions=(3, 0, 1, 2), pixels=True)
    from_pixels, from_features = backbone(batch), backbone(as_features(backbone, batch))
    torch.testing.assert_close(from_pixels.states, from_features.states)
    torch.testing.assert_close(from_pixels.alignment.loss, from_features.alignment.loss)


def test_grid_pixels_and_cached_features_give_the_same_result(make_backbone: Build, make_batch: MakeBatch) -> None:
    """An image of 64 pixels has a 2 x 2 grid: four regions per row with an image."""
    backbone = make_backbone(image={"regions": "grid"}).eval()
    batch = make_batch(regions=(4, 0, 4, 4), pixels=True)
    batch = dataclasses.replace(batch, pixels=torch.randn(3, 3, 64, 64))
    assert backbone.image_encoder(batch.pixels).shape[:2] == (3, 4)
    torch.testing.assert_close(backbone(batch).states, backbone(as_features(backbone, batch)).states)


@pytest.mark.parametrize("task", ["mre", "mner"])
def test_posteriors_and_fusion_in_two_steps_match_the_forward_pass(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone().eval(), make_batch()
    whole = backbone(batch)
    fused = backbone.fuse(batch, whole.text_latents, whole.image_latents, need_weights=True)
    text, image, _ = backbone.posteriors(batch)
    assert torch.equal(text.mean, whole.text.mean)
    assert torch.equal(image.log_var, whole.image.log_var)
    assert torch.equal(fused.states, whole.states)
    assert torch.equal(fused.weights, whole.attention)


class Gated(LateFusion):
    """Reports the value of its gate for each post."""

    def forward(self, queries: torch.Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """See `Fusion.forward`."""
        fused = super().forward(queries, text, image, need_weights)
        return fused._replace(scalars={"gate": image.mask.float().mean(dim=1)})


def test_per_post_values_of_a_fusion_are_returned(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone, batch = make_backbone(fusion=partial(Gated, dropout=0.0)), make_batch()
    assert make_backbone()(batch).fusion_scalars == {}
    assert backbone(batch).fusion_scalars.keys() == {"gate"}
    torch.testing.assert_close(backbone(batch).fusion_scalars["gate"], batch.region_mask.float().mean(dim=1))


def test_a_batch_with_neither_features_nor_pixels_is_refused(make_backbone: Build, make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match="either features or pixels"):
        make_backbone()(dataclasses.replace(make_batch(), features=None))


def train_step(backbone: MultimodalIB, batch: MREBatch) -> None:
    backbone.train()
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.01)
    output = backbone(batch)
    (output.states.square().mean() + rate(output.image).mean() + output.alignment.loss).backward()
    optimizer.step()


def test_a_frozen_image_encoder_is_bit_identical_after_a_training_step(
    make_backbone: Build, make_batch: MakeBatch
) -> None:
    """Defects 7 and 9: weights and running statistics, and no gradient reaches it."""
    backbone = make_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.image_encoder.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    train_step(backbone, make_batch(pixels=True))
    after = backbone.image_encoder.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(p.grad is None for p in backbone.image_encoder.parameters())


def test_an_unfrozen_image_encoder_changes_in_a_training_step(make_backbone: Build, make_batch: MakeBatch) -> None:
    """Defect 8."""
    backbone = make_backbone(image={"frozen": False})
    before = {name: p.detach().clone() for name, p in backbone.image_encoder.named_parameters()}
    train_step(backbone, make_batch(pixels=True))
    changed = [name for name, p in backbone.image_encoder.named_parameters() if not torch.equal(p, before[name])]
    assert "encoder.conv1.0.weight" in changed  # the very first layer
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.image_encoder.parameters())


def test_works_in_float64_with_float32_features(make_backbone: Build, make_batch: MakeBatch) -> None:
    output = make_backbone().double()(make_batch())
    for tensor in (output.states, output.text.kl(), output.image.kl(), output.alignment.loss):
        assert tensor.dtype == torch.float64
        assert tensor.isfinite().all()


@every_variant
@pytest.mark.parametrize("pixels", [True, False])
def test_every_tensor_is_created_on_the_device_of_its_input(
    make_backbone: Build, make_batch: MakeBatch, variant: str, pixels: bool
) -> None:
    """Defect 26: hard-coded devices. A tensor created on the default device, here meta, does not fit the batch's."""
    backbone, batch = make_backbone(**VARIANTS[variant]), make_batch(pixels=pixels)
    with torch.device("meta"):
        output = backbone(batch)
        loss = output.states.sum() + output.alignment.loss + rate(output.text).sum() + rate(output.image).sum()
    loss.backward()
    assert {value.device.type for value in (output.states, loss, *output.alignment.scalars.values())} == {"cpu"}


def levitated(batch: MREBatch, places: list[list[int]]) -> MREBatch:
    """The batch without markers in its texts, and with entity pairs at the same positions in each text."""
    ids = batch.input_ids.masked_fill(batch.input_ids >= len(VOCABULARY), 5)
    markers = torch.tensor([places]).expand(len(batch), -1, -1)
    return dataclasses.replace(batch, input_ids=ids, markers=markers, positions=opening(markers))


@pytest.mark.parametrize("variant", ["late", "jsd"])
def test_levitated_markers_affect_only_the_states_of_their_pair(
    make_backbone: Build, make_batch: MakeBatch, variant: str
) -> None:
    """Nested entities, one over the last piece of the shortest text, and the same pair in both orders."""
    backbone = make_backbone(text={"markers": "levitated"}, **VARIANTS[variant]).eval()
    pairs = [[1, 2, 4, 4], [4, 4, 1, 2], [1, 5, 3, 3], [7, 7, 2, 3]]
    batch = levitated(make_batch(), pairs)
    together = backbone(batch)
    plain = backbone(dataclasses.replace(batch, markers=None))
    for found, expected in zip(tensors(together, batch).values(), tensors(plain, batch).values(), strict=True):
        if found is not together.states:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for number, pair in enumerate(pairs):
        alone = backbone(levitated(batch, [pair]))
        torch.testing.assert_close(alone.states, together.states[:, 2 * number : 2 * number + 2], rtol=1e-4, atol=1e-5)
    assert (together.states[:, :2] - together.states[:, [3, 2]]).abs().max() > 1e-3, "a head is no tail"


def test_the_kl_of_levitated_markers_is_counted_at_their_pieces(make_backbone: Build, make_batch: MakeBatch) -> None:
    backbone = make_backbone(text={"markers": "levitated"}).train()
    batch = levitated(make_batch(), [[4, 5, 4, 4], [2, 2, 6, 6]])
    last = batch.markers.clone()
    last[1:, 1] = -1
    batch = dataclasses.replace(batch, markers=last, positions=opening(last))
    output = backbone(batch)
    assert output.markers is not None
    added = (output.kl["text"] - output.text.kl()).sum(dim=2)
    nats = output.markers.kl().sum(dim=2)
    assert (nats[1:, 2:] == 0).all(), "a pair that is not there holds nothing"
    expected = torch.zeros_like(added)
    expected[:, 4] = nats[:, 0] + nats[:, 1]
    expected[0, [2, 6]] = nats[0, 2:]
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)
    rate, _, _ = output.loss_terms(batch.valid, 0.0)
    assert rate.count == batch.text_mask.sum(), "markers are no positions"
    rate.sum.sum().backward()
    assert (backbone.text_encoder.markers.weight.grad.abs().sum(dim=1) > 0).all()
    assert not torch.equal(output.states, backbone(batch).states), "their latents are sampled"


def test_parts_that_do_not_fit_the_width_are_refused_together_by_option(make_backbone: Build) -> None:
    """The width is the text encoder's, and users may change that without thinking of the number of heads."""
    wrong = "5 attention heads do not divide the width 24: set heads to a divisor of 24"
    with pytest.raises(ConfigError, match=f": model.backbone.gaussian: {wrong}; model.backbone.fusion: {wrong}$"):
        make_backbone(gaussian=partial(GaussianEncoder, heads=5), fusion=partial(CrossModalFusion, heads=5))
