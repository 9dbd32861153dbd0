"""Extraction in Ray Data matches the command, in a local Ray if the package is installed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract import ray_data
from mmib.extract.extractor import Extractor
from mmib.extract.ray_data import ExtractPosts
from mmib.schema import ConfigError, InputError

TEXTS = ["anna meets bob", " ", "bob in paris"]


@pytest.fixture
def model(make_trained: Callable[..., TrainedModel], tmp_path: Path) -> str:
    write_export([make_trained("mner"), make_trained("mre")], tmp_path / "model")
    return str(tmp_path / "model")


def columns() -> dict[str, Any]:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "png")
    images = np.array([file.getvalue(), None, None], dtype=object)
    entities = np.empty(3, dtype=object)
    entities[2] = np.array([np.array([0, 3]), np.array([7, 12])])
    return {"text": np.array(TEXTS, dtype=object), "id": np.arange(3) + 7, "image": images, "entities": entities}


def test_a_batch_gets_the_results_of_each_row(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data, "find_spec", lambda name: "there")
    batch = columns()
    result = ExtractPosts([model])(batch)
    assert list(result) == [*batch, "extracted"]
    first, empty, given = map(json.loads, result["extracted"])
    extractor = Extractor.from_pretrained(model)
    assert [first["id"], empty["id"], given["id"]] == [7, 8, 9]
    assert "nothing but space" in empty["error"]
    for found, expected in (
        (first, extractor.extract(TEXTS[0], batch["image"][0])),
        (given, extractor.extract(TEXTS[2], entities=[(0, 3), (7, 12)])),
    ):
        names = [entity["text"] for entity in found["entities"]]
        assert names == [entity.text for entity in expected.entities]
        assert [relation["label"] for relation in found["relations"]] == [one.label for one in expected.relations]
    with pytest.raises(ConfigError, match="no column 'text': it has words"):
        ExtractPosts([model])({"words": batch["text"]})


def test_without_ray_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package ray: pip install 'mmib\[ray\]'"):
        ExtractPosts(["nowhere"])


def test_a_single_sample_is_refused_before_the_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data, "find_spec", lambda name: "there")
    with pytest.raises(InputError, match="samples is 1: a spread takes two samples or more"):
        ExtractPosts(["nowhere"], samples=1)


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'mmib[ray]'")
def test_a_local_ray_extracts_a_data_set(model: str) -> None:
    import ray
    import ray.data

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        posts = ray.data.from_items([{"text": text} for text in TEXTS])
        options = {"fn_constructor_args": ([model],), "concurrency": 1, "batch_size": 2}
        rows = posts.map_batches(ExtractPosts, **options).take_all()
    finally:
        ray.shutdown()
    found = {row["text"]: json.loads(row["extracted"]) for row in rows}
    assert set(found) == set(TEXTS)
    assert "error" in found[" "]
    expected = Extractor.from_pretrained(model).extract(TEXTS[0])
    assert [entity["text"] for entity in found[TEXTS[0]]["entities"]] == [entity.text for entity in expected.entities]
