"""Shared definitions."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from mmib import schema
from mmib.schema import MARKERS, MMIBError, TaskError, Window, register_task, task_named, task_names
from mmib.tasks.mre import MREBatch, RelationExtraction


def test_there_are_four_different_markers() -> None:
    assert len(set(MARKERS)) == 4


def test_all_errors_of_the_project_share_a_base_class() -> None:
    errors = [kind for _, kind in inspect.getmembers(schema, inspect.isclass) if issubclass(kind, Exception)]
    assert MMIBError in errors
    assert all(issubclass(kind, MMIBError) for kind in errors)


# Batches


@pytest.mark.parametrize("pixels", [True, False])
def test_moving_a_batch_moves_every_tensor_and_keeps_missing_ones(
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


def test_padding_rows_are_rows_without_a_number(make_batch: Callable[..., MREBatch]) -> None:
    batch = dataclasses.replace(make_batch(), rows=torch.tensor([0, -1, 7, -1]))
    assert batch.valid.tolist() == [True, False, True, False]


def test_the_length_of_a_batch_is_its_number_of_rows(make_batch: Callable[..., MREBatch]) -> None:
    assert len(make_batch(lengths=(9, 8, 9), regions=(1, 0, 2))) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_a_pinned_batch_is_page_locked(make_batch: Callable[..., MREBatch]) -> None:
    batch = make_batch().pin_memory()
    assert batch.input_ids.is_pinned()
    assert batch.pixels is None


# The registry of tasks


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, schema.Task]:
    """The registered tasks; tasks added by a test are removed."""
    tasks = dict(schema._TASKS)
    monkeypatch.setattr(schema, "_TASKS", tasks)
    return tasks


class Another(RelationExtraction):
    """A task with another name."""

    name = "another"


class Rival(RelationExtraction):
    """A task with an existing name."""

    name = "another"


def test_a_registered_task_is_found_by_its_name(registry: dict[str, schema.Task]) -> None:
    assert task_names() == ["mre", "mner"]
    register_task(task := Another())
    assert task_named("another") is task
    assert task_names() == ["mre", "mner", "another"]


def test_two_tasks_with_the_same_name_are_refused_and_both_shown(registry: dict[str, schema.Task]) -> None:
    register_task(Another())
    with pytest.raises(TaskError) as error:
        register_task(Rival())
    assert str(error.value) == (
        f"two tasks are named 'another', {__name__}.Another and {__name__}.Rival: give one of them another name"
    )
    assert type(task_named("another")) is Another, "the first stays"


def test_a_reimported_module_registers_its_task_again(registry: dict[str, schema.Task]) -> None:
    register_task(Another())
    register_task(again := Another())
    assert task_named("another") is again


@pytest.mark.parametrize("name", ["mrr", "", None, 3, ["mre"]])
def test_an_unknown_task_is_refused_with_the_choices(name: object) -> None:
    with pytest.raises(
        TaskError, match=rf"there is no task {re.escape(repr(name))}: choose from mre, mner, or .* --plugin MODULE"
    ):
        task_named(name)


@pytest.mark.parametrize("name", ["mre", "mner"])
def test_the_projects_tasks_are_imported_on_demand(name: str) -> None:
    asked = f"import sys; from mmib.schema import task_named; assert 'mmib.tasks.{name}' not in sys.modules; "
    found = f"print(task_named({name!r}).name)"
    done = subprocess.run([sys.executable, "-c", asked + found], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (name, 0), done.stderr
