"""The service with randomly initialised models."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor
from mmib.serve.app import create_app
from mmib.serve.limits import Limits

MakeClient = Callable[..., TestClient]


@pytest.fixture(scope="session")
def cache() -> dict[str, Any]:
    return {}


@pytest.fixture
def extractor(cache: dict[str, Any], make_trained: Callable[..., TrainedModel]) -> Extractor:
    """An extractor of both tasks, created once; unlike in a new model, words have different amounts of information."""
    if "extractor" not in cache:
        torch.manual_seed(7)  # weights that find entities and relations in the posts of the tests
        models = [make_trained("mner"), make_trained("mre", max_crops=3)]
        for model in models:
            torch.nn.init.normal_(model.network.backbone.text_posterior.mean.weight, std=0.3)
        cache["extractor"] = Extractor(models)
    return cache["extractor"]


@pytest.fixture
def exported(
    cache: dict[str, Any], make_trained: Callable[..., TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with models of both tasks, created once."""
    if "exported" not in cache:
        cache["exported"] = tmp_path_factory.mktemp("exported") / "both"
        write_export([make_trained("mner"), make_trained("mre")], cache["exported"])
    return cache["exported"]


@pytest.fixture
def make_client(extractor: Extractor) -> Iterator[MakeClient]:
    """Makes a client of a service with the given limits."""
    clients: list[TestClient] = []

    def make(
        served: Extractor = extractor,
        hosts: frozenset[str] | None = None,
        names: frozenset[str] = frozenset(),
        **limits: Any,
    ) -> TestClient:
        client = TestClient(create_app(served, Limits(**limits), hosts, names))
        clients.append(client)
        return client.__enter__()

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG file of 48 x 40 pixels."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 40)).convert("RGB").save(file, "PNG")
    return file.getvalue()
