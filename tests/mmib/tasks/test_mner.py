"""Entity recognition: tags of words, scores compared with seqeval, and prediction records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

from mmib.datamodules.labels import label_set
from mmib.datamodules.posts import TaggedPost
from mmib.labels import LabelSet
from mmib.modules import MNERModule
from mmib.records import Chip, Entity
from mmib.schema import NO_LABEL, PostBatch, task_named
from mmib.tagging import bio_tags, repair
from mmib.tasks.mner import EntityCensus, EntityExample, EntityNetwork, EntityScores, entity_confidence

Build = Callable[..., MNERModule]
MakeBatch = Callable[..., Any]
TASK = task_named("mner")
TWITTER = label_set("twitter")
TAGS = bio_tags(TWITTER.names)
TAG_IDS = {tag: number for number, tag in enumerate(TAGS)}


@pytest.fixture
def task() -> str:
    """The task of `make_module` and `make_batch`."""
    return "mner"


def last_layer(module: MNERModule) -> torch.nn.Linear:
    """The layer that maps states to emissions."""
    *_, last = (part for part in module.network.head.modules() if isinstance(part, torch.nn.Linear))
    return last


def tag_names(ids: torch.Tensor) -> list[str]:
    return [TAGS[number] for number in ids.tolist()]


# Tags of words


@pytest.mark.parametrize("constrained", [True, False])
def test_predictions_are_valid_bio_unless_constraints_are_disabled(
    make_module: Build, make_batch: MakeBatch, constrained: bool
) -> None:
    module = make_module(constrained=constrained).eval()
    torch.nn.init.normal_(last_layer(module).weight, std=5.0)
    batch = make_batch(lengths=(60, 9, 40, 25), unseen=(0, 2, 9, 1))
    predicted = [tag_names(post[post != NO_LABEL]) for post in module.predict_step(batch, 0)["predicted"]]
    inner = sum(tag.startswith("I-") for tags in predicted for tag in tags)
    assert inner > 0
    assert (predicted == [repair(tags) for tags in predicted]) is constrained


def test_words_that_are_not_encoded_are_predicted_o_and_padding_is_no_word(
    make_module: Build, make_batch: MakeBatch
) -> None:
    """Defect 22: words that were not encoded were missing from gold and predictions."""
    module, batch = make_module().eval(), make_batch(unseen=(0, 3, 1, 0))
    last_layer(module).bias.data = 50.0 * F.one_hot(torch.tensor(TAG_IDS["B-PER"]), len(TAGS))
    step = module.test_step(batch, 0)
    unseen, padding = (batch.gold != NO_LABEL) & ~batch.word_mask, batch.gold == NO_LABEL
    assert int(unseen.sum()) == 4
    assert set(tag_names(step["predicted"][batch.word_mask])) == {"B-PER"}
    assert set(tag_names(step["predicted"][unseen])) == {"O"}
    assert set(step["predicted"][padding].tolist()) == {NO_LABEL}
    assert not step["confidence"][~batch.word_mask].any()
    assert torch.equal(step["gold"], batch.gold)
    assert int(module.test_metric.labelled) == int((~padding).sum())


def test_confidence_is_the_marginal_of_the_predicted_tag(make_module: Build, make_batch: MakeBatch) -> None:
    posts = 50
    network: Any = make_module().eval().network
    batch = make_batch(lengths=(8,) * posts, regions=(0,) * posts, labels=[["O", "O"]] * posts)
    torch.nn.init.normal_(network.crf.transition)
    scores = torch.randn(posts, 2, len(TAGS))
    decoded = network.decode(scores, batch)
    forbidden = torch.tensor([[repair([first, second]) != [first, second] for second in TAGS] for first in TAGS])
    paths = scores[:, 0, :, None] + scores[:, 1, None, :] + network.crf.transition
    joint = paths.masked_fill(forbidden, -torch.inf).flatten(1).softmax(dim=1).view_as(paths)
    best = joint.flatten(1).argmax(dim=1)
    predicted = torch.stack([best // len(TAGS), best % len(TAGS)], dim=1)
    assert torch.equal(decoded["predicted"], predicted)
    marginals = torch.stack([joint.sum(dim=2), joint.sum(dim=1)], dim=1)
    assert not torch.equal(marginals.argmax(dim=2), predicted), "the best path is not that of the best words"
    torch.testing.assert_close(decoded["confidence"], marginals.gather(2, predicted[:, :, None]).squeeze(2))


def test_training_uses_repaired_tags_and_scoring_the_original_ones(make_module: Build, make_batch: MakeBatch) -> None:
    module, batch = make_module().eval(), make_batch()
    words = batch.gold != NO_LABEL
    assert not torch.equal(batch.tags[words], batch.gold[words]), "gold holds strays"
    other_gold = dataclasses.replace(batch, gold=torch.zeros_like(batch.gold).masked_fill(~words, NO_LABEL))
    other_tags = dataclasses.replace(batch, tags=torch.zeros_like(batch.tags))
    loss = module.objective(batch).loss
    assert loss < 1000, "a stray in training would cost 1e30"
    assert torch.equal(module.objective(other_gold).loss, loss)
    assert not torch.equal(module.objective(other_tags).loss, loss)
    assert torch.equal(module.network.gold(other_gold), other_gold.gold)
    assert torch.equal(module.network.gold(other_tags), batch.gold)


def test_training_does_not_decode(make_module: Build, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 26: Viterbi ran in every training step."""
    module = make_module()
    for decoder in ("viterbi", "marginals"):
        monkeypatch.setattr(module.network.crf, decoder, lambda *_: pytest.fail("decoded in training"))
    assert module.training_step(make_batch(), 0)["loss"].isfinite()


@pytest.mark.parametrize("types", [("PER", "LOC", "ORG", "MISC"), ("PRODUCT",), ("creative-work", "a-b", "c")])
def test_there_are_no_tags_for_special_tokens(make_module: Build, types: tuple[str, ...]) -> None:
    """Defect 23: X, [CLS], [SEP] and PAD were tags too, and predicting one counted as an entity."""
    module = make_module(labels=list(types))
    tags = TASK.outputs(module.labels)
    assert set(tags) == {"O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in types)}
    assert len(last_layer(module).bias) == len(module.network.crf.start) == len(tags)


@pytest.mark.parametrize("constrained", [True, False])
def test_a_network_can_be_rebuilt_from_its_settings(make_module: Build, constrained: bool) -> None:
    module = make_module(constrained=constrained)
    network = TASK.build_network(module.backbone, module.labels, **module.network.settings())
    assert isinstance(network, EntityNetwork)
    assert network.settings() == {"constrained": constrained}
    assert torch.equal(network.crf.allowed_transition, module.network.crf.allowed_transition)
    assert bool(network.crf.allowed_transition.all()) is not constrained


def test_posts_have_no_single_label(make_module: Build, make_batch: MakeBatch) -> None:
    assert make_module().network.label_counts(make_batch()) is None


# Scores. Posts of (predicted, gold) tags of each word; few tags, so that entities are found and stray I- are common.
few_tags = st.one_of(st.sampled_from(TAGS[:4]), st.sampled_from(TAGS))
tagged_posts = st.lists(st.lists(st.tuples(few_tags, few_tags), max_size=8), min_size=1, max_size=8)
TaggedWords = list[tuple[str, str]]


def entity_scores(
    *batches: list[TaggedWords], padding: int = 0, garbage: int = 0, labels: LabelSet = TWITTER
) -> EntityScores:
    """The metric after batches of posts, each padded beyond its longest post."""
    metric = EntityScores(labels)
    ids = {tag: number for number, tag in enumerate(bio_tags(labels.names))}
    for batch in batches:
        shape = len(batch), max(map(len, batch), default=0) + padding
        predicted, gold = torch.full(shape, garbage), torch.full(shape, NO_LABEL)
        for row, post in enumerate(batch):
            for word, (predicted_tag, true) in enumerate(post):
                predicted[row, word], gold[row, word] = ids[predicted_tag], ids[true]
        metric.update(predicted, gold)
    return metric


def columns(posts: list[TaggedWords]) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags in seqeval's form."""
    return [[gold for _, gold in post] for post in posts], [[predicted for predicted, _ in post] for post in posts]


def report(posts: list[TaggedWords], **options: Any) -> dict[str, dict[str, float]]:
    """seqeval's own report."""
    gold, predicted = columns(posts)
    return classification_report(gold, predicted, output_dict=True, zero_division=0, **options)


# If there is no entity, seqeval's macro average is NaN; ours is 0.
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@settings(deadline=None, max_examples=300)
@given(posts=tagged_posts)
def test_entity_scores_match_seqeval(posts: list[TaggedWords]) -> None:
    """Defect 29: the macro average of a printed report was reported as micro F1."""
    metric = entity_scores(posts)
    default, strict = report(posts), report(posts, mode="strict", scheme=IOB2)
    words = [pair for post in posts for pair in post]
    expected = {"f1_macro": float(np.nan_to_num(default["macro avg"]["f1-score"]))}
    for prefix, found in (("", default), ("strict_", strict)):
        for name in ("precision", "recall", "f1"):
            expected[prefix + name] = found["micro avg"]["f1-score" if name == "f1" else name]
    expected["accuracy"] = sum(predicted_tag == true for predicted_tag, true in words) / max(1, len(words))
    assert metric.compute() == pytest.approx(expected)
    assert metric.compute()["f1"] == pytest.approx(f1_score(*columns(posts), zero_division=0))
    table = {
        name: {"precision": row["precision"], "recall": row["recall"], "f1": row["f1-score"], "gold": row["support"]}
        for name, row in default.items()
        if name in TWITTER.names
    }
    assert set(metric.per_class()) == set(table)
    for name, row in metric.per_class().items():
        assert row == pytest.approx(table[name])


@settings(deadline=None, max_examples=60)
@given(posts=tagged_posts)
def test_scores_do_not_depend_on_the_names_of_types(posts: list[TaggedWords]) -> None:
    """seqeval reads `B-a-b` as type `b`, with or without an `a`."""
    odd = dict(zip(TWITTER.names, ("a-b", "b", "a-b-b", "-"), strict=True))
    renamed = [
        [tuple(tag if tag == "O" else f"{tag[:2]}{odd[tag[2:]]}" for tag in pair) for pair in post] for post in posts
    ]
    metric, other = entity_scores(posts), entity_scores(renamed, labels=LabelSet(tuple(odd.values())))
    assert other.compute() == metric.compute()
    assert other.per_class() == {odd[name]: row for name, row in metric.per_class().items()}


@settings(deadline=None, max_examples=60)
@given(
    batches=st.lists(tagged_posts, min_size=1, max_size=4),
    padding=st.integers(0, 3),
    garbage=st.sampled_from([NO_LABEL, 0, 8]),
)
def test_entity_counts_add_up_over_unequal_batches_with_any_padding(
    batches: list[list[TaggedWords]], padding: int, garbage: int
) -> None:
    parts = entity_scores(*batches, padding=padding, garbage=garbage)
    together = entity_scores([post for batch in batches for post in batch])
    assert parts.compute() == together.compute()
    assert parts.per_class() == together.per_class()


@settings(deadline=None, max_examples=60)
@given(posts=tagged_posts)
def test_counts_of_posts_add_up_to_the_micro_scores(posts: list[TaggedWords]) -> None:
    metric = entity_scores(posts)
    batches = [[torch.tensor([[TAG_IDS[pair[side]] for pair in post]]).long() for side in (0, 1)] for post in posts]
    for score in EntityScores.micro_scores():
        above, below = (
            sum(values) for values in zip(*(metric.row_parts(*batch, score) for batch in batches), strict=True)
        )
        assert float(above / max(1, below)) == pytest.approx(metric.compute()[score])


def test_entities_with_stray_inside_tags_by_hand() -> None:
    # Gold by default PER (0-1), LOC (2); strict PER only. Predicted PER (0-1), LOC (2) in both readings.
    stray = [("B-PER", "B-PER"), ("I-PER", "I-PER"), ("B-LOC", "I-LOC")]
    # An entity ends with its post: by default the next post starts with a new entity.
    following = [("O", "I-LOC"), ("O", "O")]
    scores_by_hand = {
        **{"precision": 1.0, "recall": 2 / 3, "f1": 4 / 5, "f1_macro": (1 + 2 / 3) / 2},
        **{"strict_precision": 1 / 2, "strict_recall": 1.0, "strict_f1": 2 / 3, "accuracy": 3 / 5},
    }
    assert entity_scores([stray, following]).compute() == pytest.approx(scores_by_hand)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_scores_are_zero_without_entities_words_or_posts() -> None:
    nothing = (EntityScores(TWITTER), entity_scores([]), entity_scores([[], []]), entity_scores([[("O", "O")]]))
    for metric in nothing:
        result = metric.compute()
        assert result.pop("accuracy") == float(metric.labelled > 0)
        assert set(result.values()) == {0.0}
        assert metric.per_class() == {}


def test_predictions_without_gold_entities_reduce_precision() -> None:
    metric = entity_scores([[("B-PER", "O")], [("B-LOC", "B-LOC")]])
    assert metric.compute()["precision"] == 0.5
    assert metric.per_class()["PER"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "gold": 0}


# The census


def tagged(image: str, tags: str) -> TaggedPost:
    return TaggedPost(words=["w"] * len(tags.split()), image=image, place="x:1", tags=tags.split())


def test_stray_tags_and_repeated_images_are_counted() -> None:
    census = EntityCensus()
    seen: Any = type("Seen", (), {"word_positions": [1, 2, 3]})
    for post in (tagged("1.jpg", "I-PER O I-LOC"), tagged("1.jpg", "B-PER O O"), tagged("", "O O O")):
        census.add(post, seen)
    text = "3 posts, 3 entities (1 in strict IOB2: 2 stray I- tags in 1 post), 1 repeated image"
    assert str(census) == text


def test_posts_without_an_image_do_not_share_one() -> None:
    census = EntityCensus()
    for _ in range(3):
        census.add(tagged("", "O"), type("Seen", (), {"word_positions": [1]}))  # type: ignore[arg-type]
    assert str(census) == "3 posts, 0 entities"


def test_the_labels_of_a_post_are_the_types_of_its_entities() -> None:
    assert TASK.labels_of(tagged("", "B-a-b I-a-b O I-LOC B-a-b")) == ["a-b", "LOC", "a-b"]


def test_an_example_lists_the_types_of_its_entities_once() -> None:
    labels = LabelSet(("a-b", "LOC", "PER"))
    tags = [bio_tags(labels.names).index(tag) for tag in ("B-LOC", "I-LOC", "O", "B-a-b", "B-LOC")]
    for ids, types in ((tags, {"a-b", "LOC"}), ([0], set())):
        example = EntityExample(
            row=0,
            words=["w"] * len(ids),
            input_ids=[],
            word_ids=[],
            mentions=[],
            word_positions=[],
            gold=ids,
            tags=ids,
        )
        found = TASK.example_labels(example, labels)
        assert (set(found), len(found)) == (types, len(types))


# Prediction records


def record(gold: str, predicted: str, confidence: list[float | None]) -> dict[str, Any]:
    words = [f"w{number}" for number in range(len(confidence))]
    return {"gold": gold.split(), "predicted": predicted.split(), "confidence": confidence, "words": words}


RECORD = record("B-PER I-PER O B-LOC B-ORG", "B-PER O O B-ORG B-ORG", [0.9, 0.8, 0.7, 0.6, 0.5])


def test_the_confidence_of_an_entity_is_that_of_its_least_certain_word() -> None:
    assert entity_confidence(Entity("PER", 1, 3), [0.1, 0.9, 0.6, 0.2]) == 0.6
    assert entity_confidence(Entity("PER", 0, 2), [None, 0.9]) == 0.0


def test_an_entity_of_another_type_or_span_is_judged_wrong() -> None:
    judged = TASK.judge([RECORD], TWITTER)
    assert [judgement.right for judgement in judged] == [False, False, True]
    shares = [1 / (1 + np.exp(judgement.logits[0] - judgement.logits[1])) for judgement in judged]
    assert shares == pytest.approx([0.9, 0.6, 0.5])


def test_the_confusion_distinguishes_missed_spurious_and_misaligned_entities() -> None:
    more = record("O B-MISC O", "B-LOC O O", [0.5, 0.5, 0.5])
    found = TASK.confusion([RECORD, more], TWITTER)
    assert found.rows == ["PER", "LOC", "ORG", "MISC", "no entity"]
    assert found.columns == ["PER", "LOC", "ORG", "MISC", "other span", "missed"]
    assert found.counts.tolist() == [
        [0, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0],
    ]


def test_an_answer_lists_gold_and_predictions_and_marks_the_words() -> None:
    answer = TASK.answer(RECORD, TWITTER)
    assert not answer.right
    assert answer.confidence == pytest.approx(0.5), "that of the least sure entity"
    assert (answer.gold, answer.predicted) == ("w0 w1 PER, w3 LOC, w4 ORG", "w0 PER, w3 ORG, w4 ORG")
    assert answer.classes == ["LOC", "ORG", "PER"]
    gold, predicted = dict(answer.lines)["gold"], dict(answer.lines)["predicted"]
    assert gold[0] == Chip("w0 w1", "wrong", (0, 2), "PER", range(2))
    assert predicted[2] == Chip("w4", "right", (4, 5), "ORG 50 %", range(4, 5))
    assert answer.word_styles == {0: ["entity", "gold"], 1: ["gold"], 3: ["entity", "gold"], 4: ["entity", "gold"]}
    assert answer.word_positions == {word: [word] for word in range(5)}


def test_a_post_without_entities_is_right_if_none_is_predicted() -> None:
    answer = TASK.answer(record("O O", "O O", [0.7, 0.9]), TWITTER)
    assert (answer.right, answer.confidence, answer.gold, answer.predicted) == (True, 0.7, "none", "none")


@pytest.mark.parametrize(
    "damaged",
    [
        {**RECORD, "predicted": ["B-GONE", "O", "O", "O", "O"]},
        {**RECORD, "gold": ["O", "O", "O", "O", "PER"]},
        {**RECORD, "confidence": [0.5]},
        {key: value for key, value in RECORD.items() if key != "gold"},
        {**RECORD, "predicted": None},
    ],
)
def test_a_damaged_record_raises_an_expected_error(damaged: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        TASK.judge([damaged], TWITTER)


def test_a_prediction_keeps_the_attention_of_every_word() -> None:
    assert TASK.attention_rows(17) == 17


def test_metric_and_network_support_any_label_set(make_module: Build, make_batch: MakeBatch) -> None:
    types = [f"type-{number}" for number in range(50)]
    module = make_module(labels=types).eval()
    batch: PostBatch = make_batch()
    module.validation_step(batch, 0)
    assert module.val_metric.classes == tuple(types)
    assert len(TASK.outputs(module.labels)) == 101
