"""The table, the summary and the prediction files match the predictions."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from sklearn.metrics import precision_recall_fscore_support

from mmib.base.revision import revision
from mmib.datamodules.released import MNRE, TWITTER
from mmib.labels import LabelSet
from mmib.schema import Task, task_named
from mmib.training import summary as summary_module
from mmib.training.summary import (
    describe_results,
    print_summary,
    readable_predictions,
    score,
    versions,
    write_predictions,
    write_summary,
)

MRE, MNER = task_named("mre"), task_named("mner")
LABELS = {MRE: MNRE, MNER: TWITTER}
PARENT, PEER, NONE = "/per/per/parent", "/per/per/peer", "None"


def records(*pairs: tuple[str, str]) -> dict[int, dict[str, Any]]:
    """Prediction records by row, of (gold, predicted) names."""
    return {
        row: {"id": row, "gold": MNRE.id_of(gold), "predicted": MNRE.id_of(predicted), "scores": [0.1234567] * 23}
        for row, (gold, predicted) in enumerate(pairs)
    }


MIXED = records((PARENT, PARENT), (PARENT, PEER), (PEER, NONE), (NONE, NONE), (NONE, PEER), (PEER, PEER))


def test_scores_count_every_relation_except_none() -> None:
    gold, predicted = zip(*((record["gold"], record["predicted"]) for record in MIXED.values()), strict=True)
    labels = [number for number, name in enumerate(MNRE.names) if name != NONE]
    precision, recall, f1, _ = precision_recall_fscore_support(gold, predicted, labels=labels, average="micro")
    expected = {"precision": precision, "recall": recall, "f1": f1, "accuracy": 3 / 6}
    found = score(MRE, MNRE, list(MIXED.values()))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (precision, recall) == (0.5, 0.5)


def described(words: str, boxes: int, **more: Any) -> dict[str, Any]:
    """A post as described by its data module."""
    image = "img/a.jpg" if boxes else None
    return {"words": words.split(), **more, "image": image, "boxes": [(0.0, 0.123456, 1.0, 1.0)] * boxes}


def written(
    folder: Path, task: Task, records: dict[int, dict[str, Any]], posts: dict[int, Any]
) -> list[dict[str, Any]]:
    """The records of a prediction file; missing evidence is filled in."""
    module: Any = SimpleNamespace(describe=lambda split, row: posts[row])
    complete = {row: {"kl": [], "kl_image": [], **record} for row, record in records.items()}
    write_predictions(folder, LABELS[task], readable_predictions(task, LABELS[task], module, {"test": complete}))
    lines = (folder / "predictions" / "test.jsonl").read_text().splitlines()
    parsed = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]
    assert {line.pop("code") for line in parsed} == {str(revision())}
    return parsed


def test_predictions_are_written_by_row_with_names(tmp_path: Path) -> None:
    shuffled = {row: MIXED[row] for row in (3, 0, 5, 1, 4, 2)}
    lines = written(tmp_path, MRE, shuffled, {row: described(f"word{row}", 0) for row in shuffled})
    assert [line["id"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [line["words"] for line in lines] == [[f"word{row}"] for row in range(6)]
    assert (lines[1]["gold"], lines[1]["predicted"]) == (PARENT, PEER)
    assert lines[0]["scores"] == [0.123457] * 23


def test_the_label_set_is_written_with_the_predictions(tmp_path: Path) -> None:
    """Relations other than MNRE's, with the negative one in the middle."""
    labels = LabelSet(("likes", "no_relation", "owns"), "no_relation", {"owns": ("PER", "PRODUCT")})
    module: Any = SimpleNamespace(describe=lambda split, row: described("ada", 0))
    record = {"id": 0, "gold": 2, "predicted": 1, "scores": [0.0, 1.0, 0.5], "kl": [], "kl_image": []}
    write_predictions(tmp_path, labels, readable_predictions(MRE, labels, module, {"val": {0: record}}))
    (line,) = (tmp_path / "predictions" / "val.jsonl").read_text().splitlines()
    assert (json.loads(line)["gold"], json.loads(line)["predicted"]) == ("owns", "no_relation")
    assert LabelSet.from_dict(json.loads((tmp_path / "predictions" / "labels.json").read_text())) == labels


def test_the_negative_class_comes_from_the_label_set() -> None:
    labels = LabelSet(("likes", "no_relation", "owns"), "no_relation")
    rows = [{"gold": gold, "predicted": predicted} for gold, predicted in ((0, 0), (1, 1), (1, 2), (2, 1))]
    found = score(MRE, labels, rows)
    assert (found["precision"], found["recall"], found["accuracy"]) == (1 / 2, 1 / 2, 2 / 4)
    assert list(found["classes"]) == list(labels.names)
    everything = score(MRE, LabelSet(labels.names), rows)
    assert everything["precision"] == everything["recall"] == everything["accuracy"]


def test_a_prediction_without_gold_has_none_in_the_file(tmp_path: Path) -> None:
    record = {"id": 0, "predicted": 0, "scores": [1.0]}
    (line,) = written(tmp_path, MRE, {0: record}, {0: described("ada", 0, head=(0, 1), tail=(0, 1))})
    expected = {"words": ["ada"], "head": [0, 1], "tail": [0, 1], "image": None, "boxes": []}
    assert line == {**record, "predicted": NONE, **expected, "kl": [None], "kl_image": []}


def test_evidence_is_limited_to_the_posts_own_words_and_regions(tmp_path: Path) -> None:
    """Rows have the padding of their batches, and as many words as encoded for any post of the batch."""
    none = math.nan
    record = {"id": 0, "predicted": 0, "scores": [1.0], "kl": [none, 2.00004, 3.0], "kl_image": [5.0, 6.12345, none]}
    record |= {"attention": [[0.25, 0.75, none], [0.99999, 0.00001, none]], "similarity": 0.123456}
    longer = {
        **record,
        "id": 1,
        "similarity": none,
        "kl": [1.0, none, none],
        "kl_image": [none] * 3,
        "attention": [[none] * 3] * 2,
    }
    posts = {0: described("ada met bob today", 2), 1: described("ada", 0)}
    first, second = written(tmp_path, MRE, {0: record, 1: longer}, posts)
    assert first["kl"] == [None, 2.0, 3.0, None]
    assert first["kl_image"] == [5.0, 6.1235]
    assert first["attention"] == [[0.25, 0.75], [1.0, 0.0]]
    assert (first["similarity"], second["similarity"]) == (0.1235, None)
    assert first["boxes"] == [[0.0, 0.1235, 1.0, 1.0]] * 2
    assert (second["kl"], second["kl_image"], second["boxes"]) == ([1.0], [], [])
    assert "attention" not in second


def test_words_that_are_not_encoded_have_no_evidence(tmp_path: Path) -> None:
    none = math.nan
    weights = [[1.0, none], [1.0, none], [none, none], [none, none]]
    record = {"id": 0, "predicted": [1, 0, 0], "confidence": [0.9, 0.5, 0.0], "kl": [1.0, 2.0], "kl_image": [3.0, none]}
    (line,) = written(tmp_path, MNER, {0: {**record, "attention": weights}}, {0: described("ada met bob", 1)})
    assert line["kl"] == [1.0, 2.0, None]
    assert line["attention"] == [[1.0], [1.0], None]


def test_non_finite_numbers_are_null(tmp_path: Path) -> None:
    """For example of a diverged model."""
    record = {"id": 0, "predicted": 0, "scores": [math.nan, math.inf], "kl": [math.inf], "kl_image": [math.nan]}
    record["attention"] = [[math.nan]] * 2
    (line,) = written(tmp_path, MRE, {0: record}, {0: described("ada", 1)})
    assert (line["scores"], line["kl"], line["kl_image"]) == ([None, None], [None], [None])
    assert line["attention"] == [None, None]


ENTITIES = {
    0: {"id": 0, "gold": [1, 2, 0], "predicted": [1, 2, 0], "confidence": [0.9999999, 0.5, 1.0]},
    1: {"id": 1, "gold": [4], "predicted": [3], "confidence": [0.4]},
    2: {"id": 2, "gold": [0, 7], "predicted": [0, 5], "confidence": [0.9, 0.3]},
}


def test_entities_are_scored_over_posts_of_unequal_length() -> None:
    """Right: a person; a location that starts with a stray I- in gold, not counted by strict IOB2. Wrong: a type."""
    found = score(MNER, TWITTER, list(ENTITIES.values()))
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["strict_f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert found["f1_macro"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert found["classes"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "gold": 1}
    assert found["f1_se"] > 0


def test_tags_are_written_by_name_one_per_word(tmp_path: Path) -> None:
    posts = {row: described("w " * len(record["gold"]), 0) for row, record in ENTITIES.items()}
    lines = written(tmp_path, MNER, ENTITIES, posts)
    assert {key: lines[0][key] for key in ENTITIES[0]} == {
        "id": 0,
        "gold": ["B-PER", "I-PER", "O"],
        "predicted": ["B-PER", "I-PER", "O"],
        "confidence": [1.0, 0.5, 1.0],
    }
    assert (lines[1]["gold"], lines[1]["predicted"]) == (["I-LOC"], ["B-LOC"])


def test_a_data_set_without_ceilings_has_none_in_its_summary(tmp_path: Path) -> None:
    module: Any = SimpleNamespace(root=tmp_path)
    described = describe_results(MRE, MNRE, module, {"val": MIXED})
    assert described == {"val": score(MRE, MNRE, list(MIXED.values())), "test": None}


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A data module of a corpus with two levels and known ceilings."""
    levels = {"val": ["easy"] * 6, "test": ["easy", "easy", "hard", "hard", "hard", "hard"]}

    def ceilings(_: Path, split: str, task: str) -> dict[str, Any]:
        shift = 0.0 if split == "test" else 0.1
        parts = {
            level: {"rows": levels[split].count(level), "ceiling": {"text": text + shift, "multimodal": 0.9}}
            for level, text in (("easy", 0.3), ("hard", 0.2))
        }
        return {"text": 0.25 + shift, "multimodal": 0.95, "levels": parts}

    monkeypatch.setattr(summary_module, "read_ceilings", ceilings)
    monkeypatch.setattr(summary_module, "read_levels", lambda _, split, task: levels[split])
    return SimpleNamespace(root=Path("demo"))


def test_each_level_is_scored_on_its_own_rows(demo: Any) -> None:
    described = describe_results(MRE, MNRE, demo, {"val": MIXED, "test": MIXED})
    assert described["ceiling"] == {"split": "test", "text": 0.25, "multimodal": 0.95}
    easy, hard = described["levels"]["easy"], described["levels"]["hard"]
    assert easy["test"] == score(MRE, MNRE, [MIXED[0], MIXED[1]])
    assert hard["test"] == score(MRE, MNRE, [MIXED[row] for row in (2, 3, 4, 5)])
    assert easy["val"] == described["val"]
    assert hard["val"] is None
    assert (easy["rows"], hard["rows"]) == (2, 4)
    assert hard["ceiling"] == {"text": 0.2, "multimodal": 0.9}


def test_ceilings_are_for_the_scored_rows(demo: Any) -> None:
    described = describe_results(MRE, MNRE, demo, {"val": MIXED})
    assert described["ceiling"] == {"split": "val", "text": 0.35, "multimodal": 0.95}
    assert described["test"] is None
    assert described["levels"]["easy"]["test"] is None


def printed(described: dict[str, Any]) -> str:
    summary = {
        "task": "mre",
        "labels": MNRE.to_dict(),
        "corpus": "x",
        "seed": 1,
        "images": {"val": "1 of 2 images, 3 of 6 rows"},
        "selected": None,
        **described,
    }
    text = io.StringIO()
    print_summary(summary, Path("runs/x/1"), Console(file=text, width=160))
    return text.getvalue()


def test_the_table_has_a_row_per_level_with_ceilings(demo: Any) -> None:
    text = printed(describe_results(MRE, MNRE, demo, {"val": MIXED, "test": MIXED}))
    rows = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines())
        if line_of_scores(cells)
    }
    error = f"{100 * score(MRE, MNRE, list(MIXED.values()))['f1_se']:.1f}"
    assert rows["test"] == ["50.0", "50.0", "50.0", error, "50.0", "25.0", "95.0"]
    assert rows["test, easy"][5:] == ["30.0", "90.0"]
    assert rows["test, hard"][5:] == ["20.0", "90.0"]
    assert rows["val"][5:] == ["", ""]
    assert "val, hard" not in rows


@pytest.mark.parametrize(("pairs", "caution"), [(7, "test: only 14 gold items, 7.1 points each"), (50, None)])
def test_scores_on_few_items_have_a_caution(pairs: int, caution: str | None) -> None:
    """If all 14 are right, the bootstrap error of the score is zero."""
    right = records(*(2 * pairs * [(PEER, PEER)]), *(200 * [(NONE, NONE)]))
    text = printed({"val": None, "test": score(MRE, MNRE, list(right.values()))})
    lines = [line for line in text.splitlines() if "too few to compare models" in line]
    assert [line.partition(":")[0] for line in lines] == ([] if caution is None else ["test"])
    assert caution is None or lines[0].startswith(caution)


@pytest.mark.parametrize("groups", [0, 1])
def test_slices_that_separate_no_rows_have_a_reason_and_no_table(groups: int) -> None:
    scores = score(MRE, MNRE, list(MIXED.values()))
    seen = {"slice": "surface form", "group": "seen in training", **scores, "gold": 1234}
    reason = "all belong to one part, 'up to 12 words'"
    text = printed(
        {
            "val": None,
            "test": scores,
            "slices": {"test": {"groups": groups * [seen], "unavailable": {"length": reason}}},
        }
    )
    assert ("by slice, test" in text) == ("surface form: seen in training" in text) == bool(groups)
    assert f"\nno slices by length: {reason}\n" in text


def test_the_table_fits_into_80_columns(demo: Any) -> None:
    everything_right = records(*(2 * [(PARENT, PARENT)] + 4 * [(PEER, PEER)]))
    text = io.StringIO()
    summary = {"task": "mre", "labels": MNRE.to_dict(), "corpus": "x", "seed": 1, "images": {}, "selected": None}
    described = describe_results(MRE, MNRE, demo, {"val": everything_right, "test": everything_right})
    print_summary({**summary, **described}, Path("x"), Console(file=text, width=80, soft_wrap=True))
    rows = [line for line in text.getvalue().splitlines() if line.startswith("│")]
    assert [row.strip("│").split("│")[0].strip() for row in rows] == [
        *("val", "val, easy", "test", "test, easy", "test, hard"),
        *(PARENT, PEER),
    ]
    assert all("100.0" in row and len(row) <= 80 for row in rows)
    assert "…" not in text.getvalue()


def line_of_scores(cells: list[str]) -> bool:
    return cells[0].startswith(("val", "test")) and len(cells) > 4


def test_the_table_notes_a_missing_test_split(tmp_path: Path) -> None:
    module: Any = SimpleNamespace(root=tmp_path)
    text = printed(describe_results(MRE, MNRE, module, {"val": MIXED}))
    assert "test: no test split was scored" in text
    assert "val: 1 of 2 images, 3 of 6 rows" in text
    assert "best with" not in text
    assert text.splitlines()[-1] == "summary: runs/x/1/summary.json"


def bottleneck(**changes: Any) -> dict[str, Any]:
    described = {
        "rate": {"start": 585.2, "end": 45.6},
        "rate_post": {"start": 14045.0, "end": 1094.4},
        **{"std": 0.93, "beta": 1e-3, "beta_vib": 4.2e-5, "share": 0.116},
        "gradient_ratios": [{"step": 10, "ratio": 0.02}, {"step": 20, "ratio": 0.051}],
        **{"inert": False, "collapsed_at": None},
    }
    return {"val": None, "test": None, "bottleneck": {"text": described | changes}}


def test_the_rates_are_shown_in_a_table() -> None:
    text = printed(bottleneck())
    row = next(line for line in text.splitlines() if line.startswith("│ text") or line.startswith("│text"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["text", "585 to 46", "14,045 to 1,094", "0.93", "0.001", "11.6 %", "0.051"]
    assert "inert" not in text
    assert "lower beta" not in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"inert": True}, "text: the bottleneck is inert"),
        ({"collapsed_at": 70}, "text: the rate collapsed at step 70; lower beta_text"),
        ({"beta": 0.0}, "text: beta is 0: without a penalty on the rate there is no bottleneck"),
    ],
)
def test_an_ineffective_bottleneck_is_reported(changes: dict[str, Any], line: str) -> None:
    assert line in printed(bottleneck(**changes))


def test_notes_on_tables_fit_into_80_columns() -> None:
    seconds = {"set-up": 16, "demo corpus": 16, "image features": 93, "training": 415, "evaluation": 30}
    lines = printed(bottleneck(inert=True) | {"seconds": seconds}).splitlines()
    assert max(map(len, lines)) <= 80
    (start,) = (number for number, line in enumerate(lines) if line.startswith("time: set-up 16 s, demo corpus 16 s"))
    assert lines[start + 1] == "      training 6 min 55 s, evaluation 30 s"


def test_a_long_path_is_not_wrapped(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    text = io.StringIO()
    summary: dict[str, Any] = {
        "task": "mre",
        "labels": {},
        "corpus": "[bold]x",
        "seed": 1,
        "images": {},
        "selected": None,
    }
    print_summary({**summary, "val": None, "test": None}, folder, Console(file=text, width=80, soft_wrap=True))
    assert text.getvalue().splitlines()[-1] == f"summary: {folder / 'summary.json'}"


def test_brackets_in_labels_and_paths_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    labels = LabelSet(("[none]", "[/per/org/member]"), "[none]")
    summary = {"task": "mre", "labels": labels.to_dict(), "corpus": "[x]", "seed": 1, "images": {}, "val": None}
    scores = score(MRE, labels, [{"predicted": 1, "gold": 1}])
    selected = {"epoch": 1, "split": "val", "metric": "f1", "checkpoint": "thesis [final]/best.ckpt"}
    print_summary({**summary, "test": scores, "selected": selected}, Path("thesis [final]"))
    lines = capsys.readouterr().out.splitlines()
    assert "checkpoint: thesis [final]/best.ckpt" in lines
    assert lines[-1] == f"summary: {Path('thesis [final]', 'summary.json')}"
    assert any(line.startswith("│[/per/org/member]") for line in lines)


def test_the_summary_file_is_complete_json(tmp_path: Path) -> None:
    write_summary(tmp_path, {"val": {"f1": 0.5}, "test": None})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"val": {"f1": 0.5}, "test": None}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_versions_include_the_packages_that_affect_results() -> None:
    assert versions().get("git") == revision().git
    assert versions()["code"] == revision().digest
    assert set(versions()) >= {"python", "mmib", "torch", "pytorch-lightning", "transformers", "timm"}
