"""A model with levitated markers scores all pairs of a post at once, with the same result as for each pair alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmib.cli import main
from mmib.encoders.text import TextEncoder
from mmib.export.folder import CONFIG, read_export, write_export
from mmib.export.model import TrainedModel
from mmib.export.onnx_model import require_packages
from mmib.extract.extractor import Extractor, Post
from mmib.extract.readers import Wanted
from mmib.labels import LabelSet
from mmib.schema import ExportError

TEXT = "anna and bob meets @carl in the paris head, sep!"
# Two of these are nested, two overlap, and one ends the post.
ENTITIES = [(0, 4), (5, 12), (9, 12), (9, 18), (32, 42), (44, 48)]
RELATED = LabelSet(("meets", "is in", "knows"))
MakeTrained = Callable[..., TrainedModel]


@pytest.fixture
def model(make_trained: MakeTrained) -> TrainedModel:
    return make_trained("mre", RELATED, markers="levitated")


def pairs_of(found: Any) -> dict[tuple[int, int], tuple[str, float]]:
    return {(relation.head, relation.tail): (relation.label, relation.confidence) for relation in found.relations}


def test_all_pairs_of_a_post_are_one_row_and_match_individual_pairs(
    model: TrainedModel, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int]] = []
    encode = TextEncoder.with_markers

    def counted(encoder: TextEncoder, input_ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> Any:
        rows.append((len(input_ids), places.shape[1]))
        return encode(encoder, input_ids, mask, places)

    monkeypatch.setattr(TextEncoder, "with_markers", counted)
    extractor = Extractor([model])
    whole = extractor.extract(TEXT, picture, entities=ENTITIES, evidence=True, samples=2)
    assert rows == [(1, 30)]
    assert len(whole.relations) == 15
    reader = extractor.relations
    assert reader
    prepared = extractor.prepare(Post(TEXT, picture, entities=ENTITIES))
    regions = reader.look([prepared])
    pairs, examples = reader._examples([prepared], [prepared.given])
    logits = {}
    with torch.inference_mode():
        ((numbers, _, scored),) = reader.batches(examples, regions * len(pairs), Wanted(evidence=True))
        for row, number in enumerate(numbers):
            ((_, _, alone),) = reader.batches([examples[number]], regions, Wanted(evidence=True))
            torch.testing.assert_close(alone.scores[0], scored.scores[row], rtol=1e-4, atol=1e-4)
            assert alone.evidence.keys() == scored.evidence.keys() == {"kl", "kl_image", "similarity", "attention"}
            for name, value in alone.evidence.items():
                torch.testing.assert_close(value[0], scored.evidence[name][row], rtol=1e-4, atol=1e-3)
            logits[pairs[number].head, pairs[number].tail] = alone.scores[0]
    for (head, tail), (label, confidence) in pairs_of(whole).items():
        assert confidence == pytest.approx(float(logits[head, tail].softmax(0)[RELATED.id_of(label)]), abs=1e-4)
    for relation in whole.relations:
        assert relation.spread
        assert relation.evidence
        assert len(relation.evidence.attention) == 2


def test_posts_with_different_numbers_of_pairs_and_windows_share_a_batch(
    model: TrainedModel, picture: Image.Image
) -> None:
    long = " ".join(["anna meets bob"] * 40)
    near, far = [(0, 4), (11, 14), (15, 19)], [(len(long) - 14, len(long) - 10), (len(long) - 3, len(long))]
    posts = [
        Post(TEXT, picture, entities=ENTITIES),
        Post(long, entities=[*near, *far]),
        Post("bob meets anna", entities=[(0, 3), (10, 14)]),
        Post("bob", entities=[(0, 3)]),
    ]
    extractor = Extractor([model])
    together = extractor.extract_batch(posts)
    for post, found in zip(posts, together, strict=True):
        alone = pairs_of(extractor.extract(post.text, post.image, entities=post.entities))
        assert pairs_of(found).keys() == alone.keys()
        for pair, (label, confidence) in pairs_of(found).items():
            assert (label, confidence) == (alone[pair][0], pytest.approx(alone[pair][1], abs=1e-4))
    assert {frozenset(pair) for pair in pairs_of(together[1])} == {
        frozenset(p) for p in ((0, 1), (0, 2), (1, 2), (3, 4))
    }
    assert together[1].notes == ["12 pairs are too far apart: the model reads 60 word pieces at a time"]


def test_an_export_uses_levitated_markers_like_its_model(model: TrainedModel, tmp_path: Path) -> None:
    write_export([model], tmp_path / "export")
    (exported,) = read_export(tmp_path / "export")
    before, after = (Extractor([each]).extract(TEXT, entities=ENTITIES) for each in (model, exported))
    assert before.relations
    assert after == before
    config = json.loads((tmp_path / "export" / CONFIG).read_text(encoding="utf-8"))
    assert config["text_encoder"] == {"markers": "levitated"}
    (tmp_path / "export" / CONFIG).write_text(json.dumps(config | {"text_encoder": {"markers": "flying"}}))
    with pytest.raises(ExportError, match=r"text_encoder\.markers is 'flying', expected inserted or levitated"):
        read_export(tmp_path / "export")


def test_models_with_levitated_markers_cannot_be_exported_to_onnx(model: TrainedModel, tmp_path: Path) -> None:
    try:
        require_packages()
    except ExportError as error:
        pytest.skip(str(error))
    with pytest.raises(ExportError, match=r"levitated markers, which model\.onnx has no input for: leave --onnx out"):
        write_export([model], tmp_path / "export", onnx=True)


def test_a_model_trained_on_the_command_line_extracts_its_predictions(
    workspace: Any, start: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(
        "fit", "--config", str(workspace.experiment), "--config", "model/levitated.yaml", "--trainer.max_epochs", "1"
    )
    assert run.summary["test"]["f1"] >= 0
    assert main(["export", str(run.folder), "-o", str(tmp_path / "export")]) == 0
    extractor = Extractor.from_pretrained(tmp_path / "export")
    reader = extractor.relations
    assert reader
    assert reader.network.backbone.text_encoder.levitated
    record = next(record for record in run.predictions("test") if not record["boxes"])
    text = " ".join(record["words"])
    starts = [sum(len(word) + 1 for word in record["words"][:number]) for number in range(len(record["words"]) + 1)]
    spans = [(starts[record[name][0]], starts[record[name][1]] - 1) for name in ("head", "tail")]
    prepared = extractor.prepare(Post(text, entities=spans))
    assert prepared.given
    pairs, examples = reader._examples([prepared], [prepared.given])
    with torch.inference_mode():
        ((numbers, _, scored),) = reader.batches(examples, reader.look([prepared]) * len(pairs), Wanted())
    asked = {
        (prepared.given[pairs[n].head].start, prepared.given[pairs[n].tail].start): row for row, n in enumerate(numbers)
    }
    found = scored.scores[asked[spans[0][0], spans[1][0]]].tolist()
    assert found == pytest.approx(record["scores"], abs=0.02), "computed in bfloat16 there"
