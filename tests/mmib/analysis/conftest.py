"""A custom task in a user's module, for reports and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.labels import LabelSet
from mmib.runs.reader import FinishedRun
from mmib.schema import Task, register_task
from mmib.tasks.base import PostClassification

from .toy_runs import make_group

RELEVANCE = LabelSet(("related", "unclear", "unrelated"), "unrelated")


class Relevance(PostClassification):
    """Whether the image of a post is relevant to its text."""

    name = "relevance"
    title = "image-text relevance"


@pytest.fixture
def relevance(monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task, registered during a test; its labels are `relevance_labels`."""
    monkeypatch.setattr("mmib.schema._TASKS", {})
    register_task(Relevance())
    return Relevance()


@pytest.fixture(scope="session")
def relevance_labels() -> LabelSet:
    """Three classes, with the negative one last."""
    return RELEVANCE


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, list[FinishedRun]]:
    skills = {"full": 0.8, "no_AR": 0.75, "text only": 0.3}
    return {name: make_group(tmp_path, name, (1, 2, 3), skill) for name, skill in skills.items()}
