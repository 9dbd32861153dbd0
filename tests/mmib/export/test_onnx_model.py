"""The ONNX file matches PyTorch for all shapes, and is not written otherwise."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from mmib.base import onnx_files
from mmib.export import onnx_model
from mmib.export.folder import read_export, write_export
from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor
from mmib.labels import LabelSet
from mmib.nn.alignment import latents
from mmib.plugins import import_plugins
from mmib.schema import ExportError, PostBatch
from mmib.tagging import bio_tags, split_tag

# An export takes ten seconds, and is shared by the tests of its model kind.
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "extract.md"


class Kind(NamedTuple):
    """A kind of model: its task and labels, image encoder, image size, and number of regions per image."""

    task: str
    labels: LabelSet
    regions: str
    side: int
    cells: int


TRADES, PRODUCTS = LabelSet(("made by", "plays for", "sponsors")), LabelSet(("PRODUCT", "TEAM", "work-of-art"))
RELATIONS, ENTITIES = Kind("mre", TRADES, "crops", 32, 1), Kind("mner", PRODUCTS, "grid", 64, 4)
both = pytest.mark.parametrize("kind", [RELATIONS, ENTITIES], ids=["mre-crops", "mner-grid"])
MakeBatch = Callable[..., PostBatch]


class Exported(NamedTuple):
    """An export with its ONNX file, and the exported model."""

    folder: Path
    model: TrainedModel
    config: dict[str, Any]

    def scores(self, batch: PostBatch) -> np.ndarray:
        """Scores computed without torch."""
        session = onnxruntime.InferenceSession(self.folder / "model.onnx", providers=["CPUExecutionProvider"])
        named = {name: getattr(batch, name).numpy() for name in self.config["onnx"]["inputs"]}
        (found,) = session.run(None, named)
        return found


@pytest.fixture
def task(kind: Kind) -> str:
    return kind.task


@pytest.fixture(scope="module")
def known() -> dict[Any, Exported]:
    return {}


@pytest.fixture
def exported(
    known: dict[Any, Exported],
    kind: Kind,
    make_trained: Callable[..., TrainedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """Created once per kind: an export takes seconds."""
    if kind not in known:
        model = make_trained(kind.task, kind.labels, image={"regions": kind.regions}, max_crops=0)
        encoder = model.network.backbone.image_encoder
        encoder.preprocess_as(encoder.preprocessing | {"input_size": (3, kind.side, kind.side)})
        folder = tmp_path_factory.mktemp("onnx") / kind.task
        write_export([model], folder, onnx=True)
        known[kind] = Exported(folder, model, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return known[kind]


def with_pixels(batch: PostBatch, kind: Kind) -> PostBatch:
    """The batch with images of the kind's size, each of which has the kind's number of regions."""
    pictures = int(batch.region_mask.sum()) // kind.cells
    return dataclasses.replace(batch, pixels=torch.randn(pictures, 3, kind.side, kind.side))


@torch.no_grad()
def torch_scores(model: TrainedModel, batch: PostBatch) -> np.ndarray:
    """Scores computed as in training and extraction."""
    backbone = model.network.backbone
    text, image, _ = backbone.posteriors(batch)
    fused = backbone.fuse(batch, latents(text, sampled=False), latents(image, sampled=False))
    return model.network.scores(fused.states).numpy()


@both
def test_scores_match_pytorch_for_all_shapes(
    exported: Exported, make_batch: MakeBatch, append_garbage: Callable[..., PostBatch], kind: Kind
) -> None:
    for seed, (lengths, pictures) in enumerate(
        [((9, 12, 8), (3, 0, 1)), ((30,), (2,)), ((8, 8, 8, 8, 21), (0, 0, 5, 0, 1)), ((11, 9), (0, 0)), ((10,), (0,))]
    ):
        sampled = make_batch(lengths, [kind.cells * count for count in pictures], pixels=True, seed=seed)
        batch = with_pixels(sampled, kind)
        expected, found = torch_scores(exported.model, batch), exported.scores(batch)
        assert found.shape == expected.shape
        seen = batch.position_mask.numpy()
        rows = (seen if kind is ENTITIES else slice(None),)
        np.testing.assert_allclose(found[rows], expected[rows], rtol=0, atol=1e-4)
        padded = append_garbage(batch, 3, 2 * kind.cells, *([2] if kind is ENTITIES else []))
        longer = exported.scores(padded)
        longer = longer[:, : found.shape[1]] if kind is ENTITIES else longer
        np.testing.assert_allclose(longer[rows], expected[rows], rtol=0, atol=1e-4)


@both
def test_the_file_describes_itself_and_contains_no_paths(exported: Exported, kind: Kind) -> None:
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx", providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": "int64", "tensor(bool)": "bool", "tensor(float)": "float32"}
    described = {one.name: {"type": types[one.type], "shape": one.shape} for one in session.get_inputs()}
    assert described == exported.config["onnx"]["inputs"]
    (output,) = session.get_outputs()
    names = bio_tags(PRODUCTS.names) if kind is ENTITIES else TRADES.names
    found = {"name": output.name, "type": types[output.type], "shape": output.shape, "scores_of": list(names)}
    assert found == exported.config["onnx"]["output"]
    assert output.shape[-1] == len(names)
    assert output.name == ("emissions" if kind is ENTITIES else "logits")
    assert exported.config["onnx"]["largest_deviation"] < 1e-4
    content = (exported.folder / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[3]).encode() not in content
    assert {"model.onnx", "model.safetensors"} <= exported.config["files"].keys()
    assert read_export(exported.folder)[0].task == exported.model.task


@pytest.mark.smoke
@pytest.mark.parametrize("kind", [ENTITIES])
def test_emissions_are_decoded_with_the_files_of_the_export(
    exported: Exported, make_batch: MakeBatch, kind: Kind
) -> None:
    spec = importlib.util.spec_from_file_location("copied", exported.folder / "numpy_crf.py")
    assert spec is not None
    assert spec.loader is not None
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    chain = json.loads((exported.folder / "crf.json").read_text(encoding="utf-8"))
    assert chain.pop("tags") == list(bio_tags(PRODUCTS.names))
    assert {split_tag(tag)[1] for tag in bio_tags(PRODUCTS.names)} == {"", *PRODUCTS.names}
    batch = with_pixels(make_batch((14, 9, 30), (4, 0, 8), pixels=True), kind)
    emissions, mask = exported.scores(batch), batch.position_mask
    crf: Any = exported.model.network.get_submodule("crf")
    assert (
        copied.viterbi(emissions, mask.numpy(), **chain).tolist()
        == crf.viterbi(torch.from_numpy(emissions), mask).tolist()
    )


def test_a_custom_task_that_labels_posts_is_exported(
    make_trained: Callable[..., TrainedModel], relevance: str, tmp_path: Path
) -> None:
    import_plugins([relevance])
    labels = LabelSet(("related", "unrelated"), "unrelated")
    write_export([make_trained("relevance", labels)], tmp_path / "exported", onnx=True)
    described = json.loads((tmp_path / "exported" / "config.json").read_text(encoding="utf-8"))["onnx"]
    assert described["inputs"]["positions"]["shape"] == ["posts", 1]
    assert described["output"] == {
        "name": "logits",
        "type": "float32",
        "shape": ["posts", 2],
        "scores_of": ["related", "unrelated"],
    }
    assert described["largest_deviation"] < 1e-4
    assert not (tmp_path / "exported" / "crf.json").exists()


@pytest.mark.parametrize("kind", [RELATIONS])
def test_a_file_with_different_results_is_refused(exported: Exported) -> None:
    content = (exported.folder / "model.onnx").read_bytes()
    head = exported.model.network.get_submodule("head.classifier")
    assert isinstance(head, torch.nn.Linear)
    network = onnx_model.ScoringNetwork(exported.model.network)
    head.bias += 1e-3
    try:
        with pytest.raises(ExportError, match=r"differ by 1\.0e-03"):
            onnx_model._largest_deviation(content, network, exported.model)
    finally:
        head.bias -= 1e-3
    with pytest.raises(ExportError, match="cannot run the exported network"):
        onnx_model._largest_deviation(b"no model", network, exported.model)


class Deciding(torch.nn.Module):
    """Has data-dependent control flow."""

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels if pixels.sum() > 0 else -pixels


def test_a_network_that_cannot_be_traced_is_refused_in_one_sentence(
    make_trained: Callable[..., TrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_trained("mre")
    monkeypatch.setattr(model.network.backbone.image_encoder, "encoder", Deciding())
    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        onnx_model.write_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(
    make_run: Callable[..., Path], tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("mre")
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None if name == "onnxruntime" else "there")
    message = refused("export", str(run), "-o", str(tmp_path / "export"), "--onnx")
    assert "needs onnxruntime: pip install 'mmib[onnx]'" in message
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("kind", [ENTITIES])
def test_the_script_of_the_docs_finds_the_same_as_the_extractor(exported: Exported, tmp_path: Path) -> None:
    """In a separate process without torch."""
    (script,) = re.findall(r"^```python\n# onnx_entities\.py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "exports").symlink_to(exported.folder)
    Image.linear_gradient("L").resize((90, 70)).convert("RGB").save(tmp_path / "photo.png")
    text = "anna and bob meets carl in the paris head sep"
    code = script.replace("photo.jpg", "photo.png").replace("Ada joined Big Org in London", text)
    code += "\nprint(json.dumps([found, 'torch' in sys.modules]))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found, with_torch = json.loads(done.stdout.splitlines()[-1])
    assert not with_torch
    entities = Extractor([exported.model]).extract(text, image=tmp_path / "photo.png").entities
    assert entities
    assert [(one["text"], one["type"]) for one in found] == [(one.text, one.type) for one in entities]
    assert [one["confidence"] for one in found] == pytest.approx([one.confidence for one in entities], abs=1e-4)
