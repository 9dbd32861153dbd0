"""Extraction from raw posts: agreement with the trained modules, custom labels, spans, bad input."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmib.analysis.calibration import Temperature, tempered
from mmib.backbone import MultimodalIB
from mmib.datamodules.posts import LabelledPost
from mmib.datamodules.released import MNRE, TWITTER
from mmib.encoders.image import ImageEncoder
from mmib.export.model import TrainedModel
from mmib.extract.extractor import MOST_CHARACTERS, Extractor, Post
from mmib.extract.pictures import WHOLE_IMAGE
from mmib.extract.readers import Wanted, candidate_pairs
from mmib.extract.results import Entity
from mmib.labels import LabelSet
from mmib.modules import ExtractionModule
from mmib.nn.fusion import LateFusion
from mmib.plugins import import_plugins
from mmib.schema import ConfigError, ExportError, InputError, task_named

TEXT = "anna and bob meets @carl in the paris head, sep!"
LONG = " ".join(["anna meets bob"] * 40)
MakeTrained = Callable[..., TrainedModel]
PRODUCTS = LabelSet(("PRODUCT", "TEAM", "work-of-art"))
TRADES = LabelSet(("made by", "plays for", "no_relation", "sponsors"), "no_relation")


def module_of(model: TrainedModel) -> ExtractionModule:
    """A LightningModule with the network of a model."""
    return ExtractionModule(model.network).eval()


def test_entities_match_the_trained_module(make_trained: MakeTrained, picture: Image.Image) -> None:
    model = make_trained("mner")
    extractor = Extractor([model])
    reader = extractor.entities
    assert reader
    prepared = extractor.prepare(Post(TEXT, picture))
    ((_, batch, _),) = reader.batches(reader._examples([prepared]), reader.look([prepared]), Wanted())
    with torch.inference_mode():
        expected = module_of(model).predict_step(batch, 0)
    found = extractor.extract(TEXT, picture)
    assert found.entities
    tags = [0] * len(prepared.tokens)
    for entity in found.entities:
        start, end = prepared.span(entity)
        least = float(expected["confidence"][0, start:end].min())
        assert entity.confidence == pytest.approx(least, abs=1e-5)
        assert TEXT[entity.start : entity.end] == entity.text
        tags[start:end] = [1] * (end - start)
    assert [int(tag > 0) for tag in expected["predicted"][0].tolist()] == tags


def test_relations_match_the_trained_module(make_trained: MakeTrained, picture: Image.Image) -> None:
    model = make_trained("mre")
    extractor = Extractor([model])
    reader = extractor.relations
    assert reader
    given = [(0, 4, "PER"), (32, 37, "LOC")]
    prepared = extractor.prepare(Post(TEXT, picture, entities=given))
    pairs, examples = reader._examples([prepared], [prepared.given])
    assert [(pair.head, pair.tail) for pair in pairs] == [(0, 1)], "no relation goes from a place to a person"
    assert (examples[0].head, examples[0].tail) == ((0, 1), (7, 8))
    ((_, batch, _),) = reader.batches(examples, reader.look([prepared]), Wanted())
    with torch.inference_mode():
        expected = module_of(model).predict_step(batch, 0)
    label = int(expected["predicted"][0])
    found = extractor.extract(TEXT, picture, entities=given)
    assert [entity.text for entity in found.entities] == ["anna", "paris"]
    if MNRE.names[label] == MNRE.negative:
        assert found.relations == []
    else:
        (relation,) = found.relations
        assert relation.label == MNRE.names[label]
        assert relation.confidence == pytest.approx(float(expected["scores"][0].softmax(0)[label]), abs=1e-5)


def test_batched_and_individual_results_are_the_same(extractor: Extractor, picture: Image.Image) -> None:
    posts = [Post(TEXT, picture), Post("bob"), Post("anna meets the bob", picture, crops=[(0, 0, 0.5, 1)]), Post(LONG)]
    together = extractor.extract_batch(posts * 10, evidence=True)
    alone = [extractor.extract(p.text, p.image, p.crops, evidence=True) for p in posts]
    assert together[4:8] == together[:4]
    for one, other in zip(alone, together[:4], strict=True):
        assert one.notes == other.notes
        assert [(e.text, e.type) for e in one.entities] == [(e.text, e.type) for e in other.entities]
        for first, second in zip(one.relations, other.relations, strict=True):
            assert (first.label, first.head, first.tail) == (second.label, second.head, second.tail)
            assert first.confidence == pytest.approx(second.confidence, abs=1e-4)


def test_results_of_a_batch_are_in_the_order_of_its_posts(make_trained: MakeTrained) -> None:
    extractor = Extractor([make_trained("mner")])
    posts = [Post(f"anna meets {'bob ' * (number * 7 % 50)}".strip()) for number in range(50)]
    assert [found.text for found in extractor.extract_batch(posts)] == [post.text for post in posts]


def test_the_first_bad_post_of_a_batch_is_reported_in_posts_of_any_length(extractor: Extractor) -> None:
    posts = [Post(LONG), Post(LONG, "nowhere.jpg"), *[Post("bob")] * 40, Post("")]
    with pytest.raises(InputError, match=r"nowhere\.jpg cannot be read"):
        extractor.extract_batch(posts)
    with pytest.raises(InputError, match="a string, not int"):
        extractor.extract_batch([Post(LONG), Post(5), Post("")])  # type: ignore[arg-type]


def test_posts_may_share_an_image_that_is_not_decoded_yet(
    extractor: Extractor, picture: Image.Image, tmp_path: Path
) -> None:
    picture.resize((400, 300)).save(tmp_path / "shared.jpg")
    with Image.open(tmp_path / "shared.jpg") as shared:
        found = extractor.extract_batch([Post(TEXT, shared)] * 16)
    alone = extractor.extract(TEXT, tmp_path / "shared.jpg")
    assert alone.entities
    for one in found:
        assert [(entity.text, entity.type) for entity in one.entities] == [
            (entity.text, entity.type) for entity in alone.entities
        ]


def test_images_affect_results_and_are_optional(extractor: Extractor, picture: Image.Image) -> None:
    with_image, without = (extractor.extract(TEXT, image, evidence=True) for image in (picture, None))
    assert with_image.evidence
    assert without.evidence
    assert len(with_image.evidence.regions) == 5, "the whole image and a grid of four"
    assert with_image.evidence.regions[0] == WHOLE_IMAGE
    assert without.evidence.regions == without.evidence.kl_image == without.evidence.attention == []
    assert without.evidence.similarity is None
    assert [e.confidence for e in with_image.entities] != [e.confidence for e in without.entities]


def test_evidence_has_a_value_per_word_and_region(extractor: Extractor, picture: Image.Image) -> None:
    found = extractor.extract(TEXT, picture, evidence=True)
    evidence = found.evidence
    assert evidence
    words = len(evidence.tokens)
    assert [TEXT[start:end] for start, end in evidence.tokens][:3] == ["anna", "and", "bob"]
    assert len(evidence.kl) == len(evidence.attention) == words
    assert all(value is not None and value > 0 for value in evidence.kl)
    assert [sum(weights or []) for weights in evidence.attention] == pytest.approx([1.0] * words, abs=1e-4)
    assert evidence.similarity is not None
    assert -1 <= evidence.similarity <= 1
    for relation in found.relations:
        assert relation.evidence
        assert len(relation.evidence.attention) == 2
        assert len(relation.evidence.regions) == 4, "this model takes three crops"


def test_words_that_are_not_encoded_have_no_evidence_and_are_noted(extractor: Extractor) -> None:
    found = extractor.extract(LONG, evidence=True)
    assert found.evidence
    assert found.evidence.kl[-1] is None
    assert len(found.evidence.kl) == 120
    assert "of 120 words" in found.notes[0]


def test_a_fusion_without_attention_reports_none(make_trained: MakeTrained, picture: Image.Image) -> None:
    model = make_trained("mner", parts={"fusion": f"{LateFusion.__module__}.{LateFusion.__name__}"})
    evidence = Extractor([model]).extract(TEXT, picture, evidence=True).evidence
    assert evidence
    assert evidence.attention == []
    assert len(evidence.kl_image) == 5


def test_samples_add_a_standard_deviation_and_do_not_change_the_result(
    extractor: Extractor, picture: Image.Image
) -> None:
    plain, sampled, again = (extractor.extract(TEXT, picture, samples=n) for n in (0, 6, 6))
    assert sampled == again, "what is drawn does not depend on what was drawn before"
    assert [replace(e, spread=None) for e in sampled.entities] == plain.entities
    assert all(e.spread is not None and e.spread > 0 for e in sampled.entities)
    assert all(r.spread is not None for r in sampled.relations)
    assert torch.rand(1) != torch.rand(1)


def test_latents_without_noise_have_no_spread(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    assert {entity.spread for entity in extractor.extract(TEXT, samples=3).entities} == {0.0}


def test_confidence_uses_the_fitted_temperature(make_trained: MakeTrained) -> None:
    model = make_trained("mner")
    plain = Extractor([model]).extract(TEXT).entities
    cooled = Extractor([replace(model, temperature=Temperature(2.0, 99))]).extract(TEXT).entities
    expected = tempered(np.array([entity.confidence for entity in plain]), 2.0)
    assert [entity.confidence for entity in cooled] == pytest.approx(expected.tolist(), abs=1e-4)


def test_given_entities_are_used_and_split_words(extractor: Extractor) -> None:
    found = extractor.extract("anna-marie meets bob", entities=[{"start": 17, "end": 20, "type": "PER"}, (0, 4)])
    assert found.entities == [Entity("anna", 0, 4), Entity("bob", 17, 20, "PER")]


def test_a_model_of_relations_alone_requires_entities(relations_alone: Extractor) -> None:
    with pytest.raises(InputError, match="none were"):
        relations_alone.extract(TEXT)
    assert relations_alone.extract(TEXT, entities=[]).relations == []


def test_a_model_of_entities_alone_finds_no_relations(make_trained: MakeTrained) -> None:
    assert Extractor([make_trained("mner")]).extract(TEXT).relations == []


def test_two_models_of_a_task_are_refused(make_trained: MakeTrained) -> None:
    for models in ([], [make_trained("mre")] * 2):
        with pytest.raises(ExportError, match="one of each task"):
            Extractor(models)


def test_relations_report_type_compatibility_and_compatible_ones_come_first(relations_alone: Extractor) -> None:
    entities = [(0, 4, "PER"), (9, 12, "LOC"), (19, 24, "ORG"), (32, 37, "LOC")]
    found = relations_alone.extract(TEXT, entities=entities)
    assert found.relations
    kinds = [relation.compatible for relation in found.relations]
    assert kinds == sorted(kinds, reverse=True)
    for relation in found.relations:
        types = found.entities[relation.head].type, found.entities[relation.tail].type
        assert relation.compatible == (MNRE.arguments[relation.label] == types)
    pairs = [frozenset((relation.head, relation.tail)) for relation in found.relations]
    assert len(set(pairs)) == len(pairs)


def test_pairs_are_scored_in_the_orders_allowed_by_some_relation() -> None:
    people = [Entity("a", 0, 1, "PER"), Entity("b", 2, 3, "LOC"), Entity("c", 4, 5, "MISC"), Entity("d", 6, 7, "PER")]
    assert candidate_pairs(people[:2], MNRE) == [(0, 1)]
    assert candidate_pairs(people[::-1][2:], MNRE) == [(1, 0)]
    assert candidate_pairs([people[0], people[3]], MNRE) == [(0, 1), (1, 0)]
    org, misc = Entity("o", 0, 1, "ORG"), people[2]
    assert not any(MNRE.may_relate(*pair) for pair in itertools.permutations(("ORG", "MISC")))
    assert candidate_pairs([org, misc, people[0]], MNRE)[-1] == (0, 1), "what fits no relation comes last"
    assert candidate_pairs([org, misc], TRADES) == [(0, 1), (1, 0)], "without argument types all may be related"


def test_pairs_that_are_too_far_apart_are_noted(relations_alone: Extractor) -> None:
    found = relations_alone.extract(LONG, entities=[(0, 4), (len(LONG) - 3, len(LONG))])
    assert found.relations == []
    assert "are too far apart" in found.notes[0]


def test_bf16_gives_similar_results_and_is_refused_where_it_is_emulated(
    make_trained: MakeTrained, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities = [(0, 4), (9, 12)]
    model = make_trained("mre")
    half = copy.deepcopy(model)
    expected = Extractor([model]).extract(TEXT, picture, entities=entities).relations
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    extractor = Extractor([half], precision="bf16")
    seen: list[torch.dtype] = []
    linear = next(m for m in half.network.backbone.text_encoder.modules() if isinstance(m, torch.nn.Linear))
    linear.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    found = extractor.extract(TEXT, picture, entities=entities).relations
    assert set(seen) == {torch.bfloat16}
    assert expected
    assert [relation.label for relation in found] == [relation.label for relation in expected]
    confidences = [relation.confidence for relation in expected]
    assert [relation.confidence for relation in found] == pytest.approx(confidences, abs=0.05)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(ConfigError, match="--precision bf16: this processor does not compute in bf16; choose float32"):
        Extractor([model], precision="bf16")
    with pytest.raises(ConfigError, match="the precision 'int4' is unknown"):
        Extractor([model], precision="int4")


def test_models_with_the_same_image_encoder_encode_an_image_once(
    make_trained: MakeTrained, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_trained("mner"), make_trained("mre")
    second.network.backbone.image_encoder.load_state_dict(first.network.backbone.image_encoder.state_dict())
    encoded: list[int] = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(
        ImageEncoder, "forward", lambda encoder, pixels: encoded.append(len(pixels)) or forward(encoder, pixels)
    )
    Extractor([first, second]).extract(TEXT, picture)
    assert sum(encoded) == 5
    Extractor([first, make_trained("mre", max_crops=2)]).extract(TEXT, picture)
    assert sum(encoded) == 5 + 5 + 3


def test_a_grid_model_has_the_cells_of_its_encoder(make_trained: MakeTrained, picture: Image.Image) -> None:
    model = make_trained("mner", image={"regions": "grid"}, max_crops=0)
    evidence = Extractor([model]).extract(TEXT, picture, evidence=True).evidence
    assert evidence
    assert len(evidence.regions) == len(model.network.backbone.image_encoder.region_boxes()) > 1


def test_a_model_trained_without_images_opens_none(make_trained: MakeTrained, picture: Image.Image) -> None:
    blind = Extractor([make_trained("mner", reads_images=False)])
    for image in (picture, "gone.jpg"):
        found = blind.extract(TEXT, image)
        assert found.entities == blind.extract(TEXT).entities
        assert "trained without images" in found.notes[0]
    with pytest.raises(InputError, match=r"gone.jpg cannot be read"):
        Extractor([make_trained("mner"), make_trained("mre", reads_images=False)]).extract(TEXT, "gone.jpg")


@pytest.mark.parametrize(
    "text",
    ["\U0001f525\U0001f469\u200d\U0001f469", "שלום עולם", "مرحبا بالعالم", "東京タワー", "[SEP] <mmib:head>", "\x00 a"],
)
def test_unusual_texts_are_accepted(extractor: Extractor, text: str) -> None:
    found = extractor.extract(text)
    assert all(text[entity.start : entity.end] == entity.text for entity in found.entities)


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ({"text": ""}, "empty"),
        ({"text": " \n"}, "empty"),
        ({"text": "a" * (MOST_CHARACTERS + 1)}, "100,001 characters"),
        ({"text": "\ud83d"}, "surrogate"),
        ({"text": 5}, "a string, not int"),
        ({"text": "bob", "image": b"no image"}, "cannot be read"),
        ({"text": "bob", "image": "nowhere.jpg"}, "nowhere.jpg cannot be read"),
        ({"text": "bob", "crops": [(0, 0, 1, 1)]}, "without their image"),
        ({"text": "bob", "entities": [(0, 9)]}, "is outside the text"),
        ({"text": "bob", "entities": [(2, 1)]}, "is outside the text"),
        ({"text": "bob", "entities": [(0.0, 1)]}, "whole numbers of characters, got 0.0 and 1"),
        ({"text": "bob", "entities": [(False, True)]}, "whole numbers of characters, got False and True"),
        ({"text": "bob", "entities": [("PER", 0, 3)]}, "whole numbers of characters, got 'PER' and 0"),
        ({"text": "bob", "entities": [{"begin": 0, "end": 3}]}, "whole numbers of characters, got None and 3"),
        ({"text": "b b", "entities": [(1, 2)]}, "nothing but space"),
        ({"text": "bob", "entities": [(0, 1, "DOG")]}, "'DOG' is none of PER, LOC, ORG, MISC, those of the model"),
        ({"text": "bob", "entities": [(0, 1, "")]}, "'' is no text"),
        ({"text": "bob", "entities": [(0, 1, 5)]}, "5 is no text"),
        ({"text": "bob", "entities": ["bob"]}, "is not an entity"),
        ({"text": "bob", "entities": "bob"}, "entities are a list"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(extractor: Extractor, post: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extractor.extract(**post)


@pytest.mark.parametrize(
    ("posts", "message"),
    [
        ("bob", "posts are a list of texts or Post objects, not str"),
        (None, "not NoneType"),
        ({"text": "bob"}, "not dict"),
        (["bob", {"text": "bob"}], "a post is a text or a Post object, and number 1 is dict"),
        ([b"bob"], "number 0 is bytes"),
    ],
)
def test_a_batch_of_anything_but_posts_is_refused(extractor: Extractor, posts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        extractor.extract_batch(posts)


def test_numpy_offsets_of_entities_are_written_as_json(extractor: Extractor) -> None:
    found = extractor.extract(TEXT, entities=[tuple(np.array([0, 4]))])
    assert json.loads(json.dumps(found.to_dict()))["entities"][0]["end"] == 4


@pytest.mark.parametrize("samples", [-1, 1, 2.5, "3", None, True])
def test_a_number_of_samples_without_spread_is_refused(extractor: Extractor, samples: Any) -> None:
    with pytest.raises(InputError, match=f"samples is {samples!r}: a spread takes two samples or more"):
        extractor.extract(TEXT, samples=samples)


def test_results_can_be_written_as_json(extractor: Extractor, picture: Image.Image) -> None:
    found = extractor.extract(TEXT, picture, evidence=True, samples=2)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["entities"][0].keys() == {"text", "start", "end", "type", "confidence", "spread"}
    assert "evidence" in written
    plain = extractor.extract(TEXT).to_dict()
    assert plain.keys() == {"text", "entities", "relations", "notes"}
    assert "spread" not in plain["entities"][0]


def test_extracting_entities_does_not_compute_the_alignment(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MultimodalIB, "forward", lambda *_: pytest.fail("the training pass"))
    assert extractor.extract(TEXT).entities


def test_importing_the_package_is_cheap_and_the_extractor_needs_no_training_code() -> None:
    script = (
        "import sys, mmib; early = 'torch' in sys.modules; mmib.Extractor; "
        "heavy = {'pytorch_lightning', 'torchmetrics', 'jsonargparse', 'lightning_fabric'} & set(sys.modules); "
        "sys.exit(f'{early} {heavy}' if early or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no model"):
        Extractor.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="no exported model"):
        Extractor.from_pretrained(tmp_path)
    with pytest.raises(ExportError, match="there is no model x"):
        Extractor.from_pretrained("x" * 5000)  # more than a file name may have


@pytest.mark.parametrize("source", [None, ["a", "b"], b"exports", 3])
def test_anything_but_the_name_of_a_model_is_refused(source: Any) -> None:
    with pytest.raises(ExportError, match=f"path or name, not {type(source).__name__}: give several one after another"):
        Extractor.from_pretrained(source)


def test_a_checkpoint_outside_of_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "best.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"best\.ckpt is in no run folder: .* RUN/checkpoints"):
        Extractor.from_pretrained("best.ckpt")


# Custom label sets


def test_entities_have_the_types_of_the_models_label_set(make_trained: MakeTrained) -> None:
    extractor = Extractor([make_trained("mner", PRODUCTS)])
    assert extractor.entity_types == list(PRODUCTS.names)
    found = [entity for post in (TEXT, LONG) for entity in extractor.extract(post).entities]
    assert found
    assert {entity.type for entity in found} <= set(PRODUCTS.names)
    given = extractor.extract(TEXT, entities=[(0, 4, "work-of-art")])
    assert [entity.type for entity in given.entities] == ["work-of-art"]
    with pytest.raises(InputError, match="'PER' is none of PRODUCT, TEAM, work-of-art, those of the model"):
        extractor.extract(TEXT, entities=[(0, 4, "PER")])


def predicting(model: TrainedModel, label: str) -> TrainedModel:
    """The model, modified to always predict one label."""
    bias = [*model.network.head.parameters()][-1]
    bias.zero_()
    bias[model.labels.id_of(label)] = 100.0
    return model


def test_relations_without_argument_types_may_connect_any_entities(make_trained: MakeTrained) -> None:
    model = predicting(make_trained("mre", TRADES), "sponsors")
    found = Extractor([model]).extract(TEXT, entities=[(0, 4, "Star"), (9, 12), (32, 37, "City")])
    assert {relation.label for relation in found.relations} == {"sponsors"}
    assert {frozenset((relation.head, relation.tail)) for relation in found.relations} == {
        *map(frozenset, itertools.combinations(range(3), 2))
    }
    assert all(relation.compatible for relation in found.relations)


def test_the_negative_class_comes_from_the_label_set_and_without_one_every_pair_is_related(
    make_trained: MakeTrained,
) -> None:
    given = [(0, 4), (9, 12)]
    assert (
        Extractor([predicting(make_trained("mre", TRADES), "no_relation")]).extract(TEXT, entities=given).relations
        == []
    )
    positive = LabelSet(TRADES.names)
    found = Extractor([predicting(make_trained("mre", positive), "no_relation")]).extract(TEXT, entities=given)
    assert [relation.label for relation in found.relations] == ["no_relation"]


def test_argument_types_determine_compatibility(make_trained: MakeTrained) -> None:
    labels = LabelSet(("plays for", "none"), "none", {"plays for": ("PERSON", "TEAM")})
    model = predicting(make_trained("mre", labels), "plays for")
    extractor = Extractor([model])
    assert extractor.entity_types == ["PERSON", "TEAM"]
    found = extractor.extract(TEXT, entities=[(0, 4, "TEAM"), (9, 12, "PERSON"), (32, 37, "CITY")])
    fitting = [(relation.head, relation.tail) for relation in found.relations if relation.compatible]
    assert fitting == [(1, 0)]
    assert len(found.relations) == 3


def test_relations_between_types_that_are_never_predicted_are_noted(make_trained: MakeTrained) -> None:
    arguments = {"made by": ("PRODUCT", "COMPANY"), "plays for": ("TEAM", "TEAM")}
    labels = LabelSet(("none", "made by", "plays for"), "none", arguments)
    found = Extractor([make_trained("mner", PRODUCTS), make_trained("mre", labels)]).extract(TEXT)
    assert found.notes == ["relations of COMPANY fit no entity: the model of entities has no such type"]


def test_models_with_disjoint_entity_types_are_refused(make_trained: MakeTrained) -> None:
    with pytest.raises(
        ExportError, match=r"finds 3 labels, PRODUCT, TEAM, work-of-art, .* relates PER, ORG, LOC, MISC"
    ):
        Extractor([make_trained("mner", PRODUCTS), make_trained("mre")])
    assert Extractor([make_trained("mner", TWITTER), make_trained("mre")]).extract(TEXT).notes == []
    assert Extractor([make_trained("mner", PRODUCTS), make_trained("mre", TRADES)]).extract(TEXT).notes == []


# A custom task that labels whole posts

RELATED = LabelSet(("related", "unrelated"), "unrelated")


@pytest.fixture
def label_model(make_trained: MakeTrained, relevance: str) -> TrainedModel:
    import_plugins([relevance])
    return make_trained("relevance", RELATED)


def test_a_custom_task_labels_posts(label_model: TrainedModel, make_trained: MakeTrained, picture: Image.Image) -> None:
    alone = Extractor([label_model])
    reader = alone.labels[0]
    found = alone.extract(TEXT, picture)
    assert found.entities == found.relations == []
    prepared = alone.prepare(Post(TEXT, picture))
    annotated = LabelledPost(words=prepared.words(), image="", place="", label="unrelated")
    example = reader.encode(0, annotated, reader.tokenizer.pieces([prepared.words()])[0])
    ((_, batch, _),) = reader.batches([example], reader.look([prepared]), Wanted())
    with torch.inference_mode():
        expected = module_of(label_model).predict_step(batch, 0)
    (label,) = expected["predicted"].tolist()
    assert found.labels["relevance"].label == RELATED.names[label]
    share = expected["scores"][0].softmax(dim=0)[label]
    assert found.labels["relevance"].confidence == pytest.approx(float(share), abs=1e-5)
    together = Extractor([make_trained("mner"), label_model]).extract(TEXT, picture)
    assert together.entities
    assert together.labels == found.labels


def test_post_labels_are_in_the_json_of_models_that_predict_them(
    label_model: TrainedModel, extractor: Extractor, picture: Image.Image
) -> None:
    found = Extractor([label_model]).extract(TEXT, picture, evidence=True, samples=3).to_dict()
    (task,) = found["labels"]
    assert task == "relevance"
    assert found["labels"][task].keys() == {"label", "confidence", "spread", "evidence"}
    assert len(found["labels"][task]["evidence"]["attention"]) == 1
    assert json.loads(json.dumps(found, allow_nan=False))["labels"][task]["spread"] > 0
    assert "labels" not in extractor.extract(TEXT).to_dict()


def test_post_labels_of_a_batch_are_in_order(label_model: TrainedModel) -> None:
    extractor = Extractor([label_model])
    posts = ["bob", LONG, "anna meets the bob", TEXT] * 9
    together = [found.labels["relevance"] for found in extractor.extract_batch(posts)]
    for post, found in zip(posts[:4], together[:4], strict=True):
        alone = extractor.extract(post).labels["relevance"]
        assert (found.label, found.confidence) == (alone.label, pytest.approx(alone.confidence, abs=1e-4))
    assert "judged by the first" in extractor.extract(LONG).notes[0]


def test_two_models_with_the_same_output_are_refused(
    make_trained: MakeTrained, relevance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_plugins([relevance])
    model = make_trained("relevance", RELATED)
    with monkeypatch.context() as patch:
        patch.setattr(type(task_named("relevance")), "finds", "entities")
        with pytest.raises(ExportError, match="mner and relevance both find entities: give one of these models"):
            Extractor([make_trained("mner"), model])
    monkeypatch.setattr(type(task_named("relevance")), "finds", "poems")
    with pytest.raises(ExportError, match="'relevance' finds 'poems': extraction knows entities, relations, labels"):
        Extractor([model])
