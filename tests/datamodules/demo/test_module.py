"""The data modules of both tasks agree with the corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from mmib.datamodules.demo import SPLITS, DemoSettings, read_levels
from mmib.datamodules.demo.module import DemoDataModule, DemoMNERDataModule, DemoMREDataModule
from mmib.schema import NO_IMAGE, WHOLE_IMAGE, DataError

Load = Callable[..., Any]
both_tasks = pytest.mark.parametrize("task", ["mre", "mner"])


@pytest.fixture
def load(corpus: Any, text_encoder: Any, image_encoder: Any, tmp_path: Path, task: str) -> Load:
    """The task's data module over the corpus, after reading a split."""

    def make(split: str, root: Any = corpus, **options: Any) -> Any:
        kind: type[DemoDataModule] = {"mre": DemoMREDataModule, "mner": DemoMNERDataModule}[task]
        encoders = {"text_encoder": text_encoder, "image_encoder": image_encoder, "cache_dir": str(tmp_path / "cache")}
        settings = {"demo": root.settings, "max_length": 200, "max_missing_images": 1.0, **encoders}
        module = kind(str(root.root), **settings | options)
        module.prepare_data()
        module.examples[split] = module.read_split(split)
        return module

    return make


def posts_of_rows(corpus: Any, split: str, task: str) -> list[dict[str, Any]]:
    """The records of the corpus about the post of each row, in file order."""
    posts = corpus.records(f"{split}.jsonl")
    return [post for post in posts for _ in post["rows"]] if task == "mre" else posts


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", ["mner"])
def test_entities_match_the_corpus(corpus: Any, load: Load, split: str) -> None:
    module = load(split, images="none")
    posts = corpus.records(f"{split}.jsonl")
    tags = module.task.outputs(module.labels)
    for example, post in zip(module.examples[split], posts, strict=True):
        spans = get_entities([tags[tag] for tag in example.gold])
        assert [[start, last + 1, kind] for kind, start, last in spans] == sorted(post["entities"])
        assert len(example.gold) == len(post["tokens"])
        assert example.tags == example.gold, "no stray tags are drawn"
    entities = sum(len(post["entities"]) for post in posts)
    fingerprint = module.fingerprint(split)
    assert (fingerprint["rows"], fingerprint["entities"], fingerprint["entities_strict"]) == (
        len(posts),
        entities,
        entities,
    )


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", ["mre"])
def test_relations_match_the_corpus(corpus: Any, load: Load, split: str) -> None:
    module = load(split, images="none")
    expected = [relation for post in corpus.records(f"{split}.jsonl") for _, _, relation in post["relations"]]
    assert [module.labels.names[example.label] for example in module.examples[split]] == expected


@both_tasks
def test_rows_are_ordered_by_level(corpus: Any, load: Load, task: str) -> None:
    module = load("val", images="none")
    levels = [post["level"] for post in posts_of_rows(corpus, "val", task)]
    assert read_levels(module.root, "val", task) == levels
    assert [example.row for example in module.examples["val"]] == list(range(len(levels)))


@both_tasks
def test_images_belong_to_their_posts_and_have_their_boxes(corpus: Any, load: Load, task: str) -> None:
    module = load("val", max_crops=2)
    crops = corpus.crops_by_image("val")
    boxes = json.loads((corpus.root / "twitter2017_aux_images" / "val" / "boxes.json").read_text())
    posts = posts_of_rows(corpus, "val", task)
    assert any(post["image"] is None for post in posts), "some images are missing"
    assert max(len(crops[post["image"]]) for post in posts if post["image"]) > 2
    for example, post in zip(module.examples["val"], posts, strict=True):
        names = [post["image"], *crops[post["image"]][:2]] if post["image"] else []
        assert [picture.file.name for picture in example.pictures] == names
        assert [picture.box for picture in example.pictures] == [
            WHOLE_IMAGE,
            *(tuple(boxes[name]) for name in names[1:]),
        ][: len(names)]
        assert (example.image_id == NO_IMAGE) == (not names)


@both_tasks
@pytest.mark.parametrize("images", ["own", "shuffled", "none"])
def test_relevance_is_described_for_the_image_that_the_model_saw(
    noisy_corpus: Any, load: Load, task: str, images: str
) -> None:
    module = load("val", root=noisy_corpus, images=images)
    posts = posts_of_rows(noisy_corpus, "val", task)
    described = [module.describe("val", row) for row in range(len(posts))]
    known = [row for row, shown in enumerate(described) if "noise" in shown]
    if images == "own":
        assert known == [row for row, post in enumerate(posts) if post["image"]]
        assert {described[row]["noise"] for row in known} == {None, "scene", "meme", "food"}
    else:
        assert len(known) < len(posts) / 4, "an image of another post is not what is known of this one"
    for row in known:
        for name in ("noise", "relevance_posterior"):
            assert described[row][name] == posts[row][name]


@both_tasks
def test_relevance_in_a_subset_is_that_of_its_own_posts(load: Load) -> None:
    module = load("train", train_share=0.5)
    described = [module.describe("train", row) for row in range(len(module.examples["train"]))]
    known = [shown for shown in described if "relevance_posterior" in shown]
    assert known == [shown for shown in described if shown["image"] is not None]


@both_tasks
def test_an_epoch_contains_every_row_once(load: Load) -> None:
    module = load("val", max_crops=1)
    batches = list(module.val_dataloader())
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(module.examples["val"])))
    regions = [int(count) for batch in batches for count in batch.region_mask.sum(dim=1)]
    assert sorted(regions) == sorted(len(example.pictures) for example in module.examples["val"])


@both_tasks
def test_an_existing_corpus_is_not_modified(corpus: Any, load: Load, task: str) -> None:
    before = (corpus.root / "demo.json").stat().st_mtime_ns
    module = load("val", images="none")
    assert (corpus.root / "demo.json").stat().st_mtime_ns == before
    assert module.corpus == "demo-tiny"
    with pytest.raises(DataError, match="holds another demo corpus"):
        load("val", demo=DemoSettings(size="tiny", missing=0.2))
