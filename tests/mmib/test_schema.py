"""What every part agrees on."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import pytest
import torch

from mmib import schema
from mmib.schema import (
    MARKERS,
    NO_RELATION,
    NO_TAG,
    RELATION_IDS,
    RELATIONS,
    TAG_IDS,
    TAGS,
    MMIBError,
    MREBatch,
    Window,
)


def test_relations_are_the_23_of_mnre_with_none_first() -> None:
    assert len(set(RELATIONS)) == len(RELATIONS) == 23
    assert RELATIONS[0] == NO_RELATION == "None"
    assert all(RELATIONS[number] == name for name, number in RELATION_IDS.items())


def test_every_other_relation_names_the_types_of_its_entities() -> None:
    types = {name.lower() for name in schema.ENTITY_TYPES}
    for name in RELATIONS[1:]:
        _, head, tail, relation = name.split("/")
        assert {head, tail} <= types
        assert relation


def test_tags_are_bio_of_every_entity_type() -> None:
    assert TAGS == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC")
    assert all(TAGS[number] == name for name, number in TAG_IDS.items())
    assert NO_TAG not in TAG_IDS.values()


def test_markers_are_four_different_ones() -> None:
    assert len(set(MARKERS)) == 4


def test_every_error_of_the_project_has_one_base() -> None:
    errors = [kind for _, kind in inspect.getmembers(schema, inspect.isclass) if issubclass(kind, Exception)]
    assert MMIBError in errors
    assert all(issubclass(kind, MMIBError) for kind in errors)


@pytest.mark.parametrize("pixels", [True, False])
def test_moving_a_batch_moves_every_tensor_and_keeps_what_is_absent(
    make_batch: Callable[..., MREBatch], pixels: bool
) -> None:
    batch = dataclasses.replace(make_batch(pixels=pixels), window=Window(0.5, 2.0, 1.5, 0.0))
    moved = batch.to("meta")
    assert isinstance(moved, MREBatch)
    for field in dataclasses.fields(batch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        assert type(before) is type(after)
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta"
            assert after.shape == before.shape
        else:
            assert after == before
    assert (moved.features is None) == pixels
    assert batch.input_ids.device.type == "cpu"


def test_fillers_are_the_rows_without_a_number(make_batch: Callable[..., MREBatch]) -> None:
    batch = dataclasses.replace(make_batch(), rows=torch.tensor([0, -1, 7, -1]))
    assert batch.counted.tolist() == [True, False, True, False]


def test_length_of_a_batch_is_its_rows(make_batch: Callable[..., MREBatch]) -> None:
    assert len(make_batch(lengths=(9, 8, 9), regions=(1, 0, 2))) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinned_batch_is_page_locked(make_batch: Callable[..., MREBatch]) -> None:
    batch = make_batch().pin_memory()
    assert batch.input_ids.is_pinned()
    assert batch.pixels is None
