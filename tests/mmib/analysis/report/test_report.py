"""`mmib report`: pages about a run, several runs and a study, and errors where no page can be made."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mmib.analysis.report import newest_run
from mmib.cli import main
from mmib.labels import LabelSet

MakeRun = Callable[..., Path]
EditRecords = Callable[[Path, Callable[[dict[str, Any]], None]], None]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'<b>"
FIVE_MEGABYTES = 5_000_000


class Reader(HTMLParser):
    """Tags and text of a page; fails on an element that is not closed correctly."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Makes a report; returns the page, whose path is the last printed line."""

    def make(*arguments: str | Path) -> str:
        assert main(["report", *map(str, arguments)]) == 0
        return Path(capsys.readouterr().out.splitlines()[-1]).read_text(encoding="utf-8")

    return make


@pytest.mark.smoke
@pytest.mark.parametrize("task", ["mre", "mner"])
def test_a_page_has_all_parts_of_a_run(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path, task: str
) -> None:
    text = report(make_run(tmp_path / "run", task, rows=30))
    read = Reader(text)
    sections = [attributes["id"] for tag, attributes in read.tags if tag == "section"]
    assert sections == ["scores", "training", "information", "errors", "slices", "posts", "settings"]
    assert len(read.with_class("post")) == 30
    assert len(read.with_class("frame")) == 30
    assert not read.with_class("missing")
    assert "Expected calibration error" in text
    assert "61.0 ± 2.0" in text
    assert "Test: only 14 gold items, 7.1 points each" in text
    assert "Measures of the latent space" in text
    assert f"Latent space by {'relation' if task == 'mre' else 'type'}, selected checkpoint" in text
    assert '<th scope="row">released model</th>' in text
    assert (tmp_path / "run" / "report.html").stat().st_size < FIVE_MEGABYTES


def test_a_run_with_known_irrelevant_images_shows_how_well_they_are_detected(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    def know(record: dict[str, Any]) -> None:
        noise = (None, "meme", "scene")[record["id"] % 3]
        record |= {"noise": noise, "relevance_posterior": {None: 0.8, "scene": 0.8}.get(noise, 0.0)}
        record |= {"kl_image": [1.0 if noise else 2.0] * 3, "similarity": 0.1 * (noise == "meme")}

    run = make_run(tmp_path / "run", rows=30)
    edit_records(run, know)
    text = report(run)
    sections = [attributes["id"] for tag, attributes in Reader(text).tags if tag == "section"]
    assert sections[3:6] == ["errors", "slices", "relevance"]
    rows = re.findall(r'<th scope="row">(all|meme|scene)</th>((?:<td>[\d.]*</td>)+)', text)
    cells = {name: re.findall(r"<td>([\d.]*)</td>", row) for name, row in rows}
    assert {name: (row[0], row[1], row[2], row[4]) for name, row in cells.items()} == {
        "all": ("20", "1.000", "0.250", "0.750"),
        "meme": ("10", "1.000", "0.000", "1.000"),
        "scene": ("10", "1.000", "0.500", "0.500"),
    }
    assert 0.0 < float(cells["all"][3]) < 1.0


def test_slices_and_error_types_of_a_run(
    report: Callable[..., str], make_run: MakeRun, refused: Callable[..., str], tmp_path: Path
) -> None:
    """Every third of 30 posts misses Anna, every fifth has a wrong type for Paris."""
    run = make_run(tmp_path / "run", "mner", rows=30)
    (run / "training.json").write_text('{"labels": {"PER": 90, "LOC": 7}, "forms": ["anna", "paris"]}')
    (tmp_path / "relevance.jsonl").write_text("".join(f'{{"image": "{n}.jpg", "relevance": {n}}}\n' for n in range(3)))
    text = report(run, "--relevance", tmp_path / "relevance.jsonl")
    rows = dict(re.findall(r'<th scope="row">([^<]+: [^<]+)</th>((?:<td>[^<]*</td>)+)', text))
    cells = {name: re.findall(r"<td>([^<]*)</td>", row) for name, row in rows.items()}
    # 50 of 60 are found: 20 of 30 for Anna, and 24 of 30 for Paris, where 6 organisations are predicted.
    assert cells["surface form: seen in training"][:5] == ["30", "60", "50", "88.0", "73.3"]
    assert cells["surface form: never seen"][:5] == ["30", "30", "30", "100.0", "100.0"]
    # The last of the three images has the highest relevance; the second is that of half of the rows.
    assert (cells["image: more relevant half"][0], cells["image: less relevant half"][0]) == ("10", "20")
    assert re.search(r'<th scope="row">items</th><td>74</td><td>6</td><td>0</td><td>10</td><td>0</td>', text)
    assert "No slices by length: all belong to one part, &#x27;up to 12 words&#x27;." in text
    assert "How well the image fits is judged by the relevance file." in text
    assert "Risk against coverage" in text
    (tmp_path / "relevance.jsonl").write_text('{"image": "other.jpg", "relevance": 1}\n')
    assert "no relevance of any image of the run" in refused(
        "report", str(run), "--relevance", str(tmp_path / "relevance.jsonl")
    )
    (run / "training.json").write_text('{"labels": [], "forms": []}')
    assert "training.json is damaged" in refused("report", str(run))


@pytest.mark.usefixtures("relevance")
def test_the_page_of_a_plugins_task_uses_its_terms(
    report: Callable[..., str], make_run: MakeRun, relevance_labels: LabelSet, tmp_path: Path
) -> None:
    text = report(make_run(tmp_path / "run", "relevance", labels=relevance_labels, rows=30))
    read = Reader(text)
    assert "image-text relevance on demo-tiny" in text
    assert not read.with_class("missing")
    assert len(read.with_class("frame")) == 30
    assert "the confidence of each post with how often" in text
    assert "Confidence is the softmax probability of the predicted class;" in text
    assert "Gold class by predicted class" in text
    assert re.findall(r'<option value="\d">(\w+)</option>', text) == ["related", "unclear", "unrelated"]
    assert "Underlined" not in text
    assert not read.with_class("chip")
    assert len(read.with_class("label")) == 2 * 30
    assert '<th scope="row">labels</th><td><code>related, unclear, unrelated</code>' in text
    assert '<th scope="row">negative label</th><td><code>unrelated</code>' in text


def test_a_task_that_no_module_registers_names_the_plugin_to_add(
    refused: Callable[..., str], make_run: MakeRun, relevance_labels: LabelSet, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", "relevance", labels=relevance_labels, plugins=["my_relevance"])
    assert "was made by the task 'relevance'" in (message := refused("report", str(run)))
    assert "--plugin my_relevance" in message
    assert "the plugin 'no_such_module' was not found" in refused("report", str(run), "--plugin", "no_such_module")


def test_custom_labels_appear_in_all_parts(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    labels = LabelSet(("likes", "no relation", "owns"), "no relation")
    run = make_run(tmp_path / "run", "mre", labels=labels, rows=30)
    text = report(run)
    assert re.findall(r'<option value="\d">([\w ]+)</option>', text) == ["likes", "no relation", "owns"]
    assert "/per/" not in text
    (run / "predictions" / "labels.json").write_text(json.dumps(labels.to_dict()))
    assert report(run) == text


def test_a_run_of_version_0_1_has_an_equivalent_page(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path
) -> None:
    """Its summary has no labels, and its predictions have no label file."""
    run = make_run(tmp_path / "run")
    text = report(run)
    summary = json.loads((run / "summary.json").read_text())
    del summary["labels"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert report(run) == text


def test_the_size_of_a_training_subset_is_shown(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    subset = {"of": 12_247, "seed": 3, "without": ["/per/loc/place_of_birth"]}
    text = report(make_run(tmp_path / "run", data={"train": {"rows": 40, "sha256": "abc", "subset": subset}}))
    assert "40 of 12,247 rows (subset seed 3, none of /per/loc/place_of_birth), SHA-256 abc" in text


def test_the_run_time_is_shown(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    text = report(make_run(tmp_path / "run", seconds={"features": 30.4, "training": 160.0}))
    assert "3 min 10 s: features 30 s, training 2 min 40 s" in text


def log(run: Path, **scalars: float) -> None:
    """Add scalars of the last training step to a run's log."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *scalars])
        writer.writeheader()
        writer.writerows([*rows, {"step": 19, **scalars}])


CUSTOM = {"fusion/gate": 0.25, "val/fusion/gate": 0.5, "loss/small_means": 3.0, "train/orthogonality": 2.0}


def test_custom_scalars_are_plotted_by_their_prefix(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    assert "<h3>" not in report(run)
    log(run, **CUSTOM, **{"grad/small_means": 0.125, "test/f1": 0.5, "val/strict_f1": 0.5})
    training = re.findall('<section id="training".*?</section>', report(run), re.DOTALL)[0]
    assert re.findall("<h3>([^<]+)</h3>", training) == ["further loss terms", "fusion", "loss"]
    titles = re.findall("<figcaption><b>([^<]+)</b>", training)
    assert titles[-4:] == ["Gradient norms", "orthogonality", "gate", "small_means"]
    assert "small_means: 0.125 to 0.125" in training
    assert "validation: 0.5 to 0.5" in training
    assert "strict" not in training


def test_the_page_requests_nothing_and_contains_no_folder_names(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path
) -> None:
    text = report(make_run(tmp_path / "somebody" / "run"))
    assert not re.search(r"https?:|<link|<iframe|@import|url\(", text)
    assert {attributes.get("src", "data:")[:5] for _, attributes in Reader(text).tags} == {"data:"}
    assert "somebody" not in text
    assert str(tmp_path) not in text


def test_words_and_names_from_the_data_cannot_inject_markup(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    classes = {HOSTILE: {"precision": 0, "recall": 0, "f1": 0, "gold": 1}}
    scored = {"test": {"f1": 0.5, "classes": classes}, "val": None, "levels": {}}
    hostile: dict[str, Any] = {"versions": {HOSTILE: HOSTILE}, "images": {HOSTILE: HOSTILE}, **scored}
    run = make_run(
        tmp_path / "run", experiment=HOSTILE, corpus=HOSTILE, command=HOSTILE, config={HOSTILE: HOSTILE}, **hostile
    )
    edit_records(
        run, lambda record: record.update(words=[HOSTILE] * len(record["words"]), image=None, boxes=[], attention=[])
    )
    read = Reader(report(run))
    assert len([tag for tag, _ in read.tags if tag == "script"]) == 1
    assert not [tag for tag, _ in read.tags if tag == "img"]
    assert not [attributes for _, attributes in read.tags if any(name.startswith("on") for name in attributes)]
    assert read.text.count(HOSTILE) > 12 * 6


def test_images_are_found_in_a_moved_data_folder(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    text = report(run)
    assert "12 images were not found below …/data: set their folder with --data.root" in text
    assert "<img" not in text
    assert len(Reader(report(run, "--data.root", tmp_path / "elsewhere")).with_class("frame")) == 12


@pytest.mark.parametrize("images", ["data", "pictures"])
def test_images_are_found_next_to_a_data_file_or_in_a_separate_folder(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path, images: str
) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / images)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "posts.jsonl").touch()
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["init_args"] = {
        "root": str(tmp_path / "data" / "posts.jsonl"),
        "image_folder": str(tmp_path / images),
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert len(Reader(report(run)).with_class("frame")) == 12


def test_an_image_outside_the_data_is_not_shown(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "data" / "0.jpg").rename(tmp_path / "0.jpg")
    edit_records(run, lambda record: record.update(image="../0.jpg"))
    text = report(run)
    assert "12 images were not found below" in text
    assert "<img" not in text


def test_large_images_do_not_make_a_large_page(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=200)
    noise = Image.effect_noise((300, 300), 120).convert("RGB")
    for path in (tmp_path / "data").iterdir():
        noise.save(path)
    text = report(run, "--posts", 200)
    assert len(text.encode()) < FIVE_MEGABYTES
    shown = len(Reader(text).with_class("post"))
    assert 0 < shown < 200
    assert f"{200 - shown} more were left out to keep the page small" in text


def test_a_run_without_predictions_still_has_a_page(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "predictions")
    text = report(run)
    assert text.count("holds no predictions") == 2
    assert "mmib test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt" in text
    assert "61.0 ± 2.0" in text


def test_a_run_with_few_files_still_has_a_page(report: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", test=None, val=None, selected=None)
    for path in (run / "metrics.csv", run / "information_plane.json"):
        path.unlink()
    shutil.rmtree(run / "latents")
    text = report(run)
    for missing in ("No split was scored", "logged no curve", "kept no latents"):
        assert missing in text


def test_predictions_without_words_explain_why_no_post_is_shown(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    edit_records(run, lambda record: record.pop("words"))
    text = report(run)
    assert "holds no words" in text
    assert "Expected calibration error" in text


def damage(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", "summary.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("metrics.csv", "step,train/loss\n1,x\n", "metrics.csv cannot be read"),
        ("information_plane.json", "{", "is no information plane"),
        ("latents/start.safetensors", "", "holds no latents"),
        ("predictions/test.jsonl", '{"id": 0, "pred', "line 1 is no JSON"),
        ("predictions/test.jsonl", '{"id": 0, "predicted": "None"}', "test.jsonl is damaged"),
        (
            "predictions/test.jsonl",
            '{"id": 0, "gold": "x", "predicted": "None", "words": []}',
            "'x' is not one of the labels",
        ),
    ],
)
def test_an_incomplete_run_is_named_with_the_fault(
    refused: Callable[..., str], make_run: MakeRun, tmp_path: Path, name: str, content: str, message: str
) -> None:
    run = make_run(tmp_path / "run")
    damage(run, name, content)
    assert message in refused("report", str(run))
    assert not (run / "report.html").exists()


def test_missing_and_unfinished_runs_are_refused(
    refused: Callable[..., str], make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").unlink()
    assert "has not finished" in refused("report", str(run))
    assert "there is no run folder" in refused("report", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    assert "there is no finished run below runs/" in refused("report")
    assert "--posts" in refused("report", "--posts", "-1")


def test_an_unwritable_page_is_an_error(refused: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(
        "report", str(make_run(tmp_path / "run")), "--output", str(tmp_path / "file" / "a")
    )


def test_by_default_the_newest_run_is_used(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(tmp_path / "runs" / name / "1", experiment=name) for name in ("b", "a", "c")]
    for age, run in enumerate(runs):
        os.utime(run / "summary.json", (1000 + age % 2, 1000 + age % 2))
    assert newest_run(tmp_path / "runs") == runs[1]
    monkeypatch.chdir(tmp_path)
    assert "<h1>a, seed 1</h1>" in report()
    assert (runs[1] / "report.html").is_file()


# Several runs


def test_seeds_are_merged_and_different_configurations_of_one_name_kept_separate(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in (1, 2, 3):
        make_run(tmp_path / "runs" / f"full-{seed}", seed=seed, experiment="full")
    for seed, beta in ((4, 0.1), (5, 0.2)):
        make_run(tmp_path / "runs" / f"beta-{seed}", seed=seed, experiment="beta", config={"beta_text": beta})
    text = report(tmp_path / "runs")
    names = re.findall(r'<text class="name" y="[^"]+">([^<]+)</text>', text)
    assert names == ["beta, beta_text 0.1", "beta, beta_text 0.2", "full"]
    assert "62.0 ± 1.0" in text  # 61, 62, 63
    assert re.findall(r'<th scope="row">(model\.\w+)</th>', text) == ["model.beta_text"]
    assert text.count('<g class="series c2"><polyline') == 3 * 2  # three runs in two charts
    assert len(re.findall('<ul class="key">.*?</ul>', text)) == 1
    assert "seed_everything" not in text


def test_posts_on_which_two_runs_disagree(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    first, second = (make_run(tmp_path / name, "mner", experiment=name) for name in ("a", "b"))
    edit_records(
        second, lambda record: record.update(predicted=record["gold"] if record["id"] == 3 else record["predicted"])
    )
    text = report(first, second, "--output", tmp_path / "report.html")
    section = text[text.index('<section id="posts"') :]
    assert re.findall(r'<th scope="row">(\d+)</th>', section) == ["3"]
    assert "Bob Smith PER, Paris LOC</span>" in section  # a misses Anna
    assert '<span class="label right">Anna PER, Bob Smith PER, Paris LOC</span>' in section


def test_experiments_are_compared_with_the_first_one_within_slices(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    runs = []
    for name in ("full", "worse"):
        for seed in (1, 2):
            run = make_run(tmp_path / f"{name}-{seed}", "mner", rows=30, seed=seed, experiment=name)
            (run / "training.json").write_text('{"labels": {}, "forms": ["anna"]}')
            runs.append(run)
    for run in runs[2:]:
        edit_records(run, lambda record: record.update(predicted=["O", *record["predicted"][1:]]))
    text = report(*runs, "--output", tmp_path / "report.html")
    cells = r"<td>(\d+)</td><td>worse</td>(?:<td>[^<]*</td>)*<td>([^<]*)</td>"
    pattern = r'<th scope="row">surface form: ([a-z ]+)</th>' + cells
    found = {name: (gold, p) for name, gold, p in re.findall(pattern, text)}
    assert found["seen in training"][0] == "30"
    assert found["seen in training"][1] == "&lt; 0.001" or float(found["seen in training"][1]) < 0.05
    assert found["never seen"] == ("60", "1.000")
    assert "each experiment is tested against full within each part" in text


@pytest.mark.usefixtures("relevance")
def test_runs_of_a_plugins_task_are_compared_and_their_custom_scalars_plotted(
    report: Callable[..., str],
    make_run: MakeRun,
    edit_records: EditRecords,
    relevance_labels: LabelSet,
    tmp_path: Path,
) -> None:
    options = {"labels": relevance_labels, "experiment": "gated"}
    runs = [make_run(tmp_path / str(seed), "relevance", seed=seed, **options) for seed in (1, 2)]
    records = (runs[0] / "predictions" / "test.jsonl").read_text()
    (runs[1] / "predictions" / "test.jsonl").write_text(records)
    other = {"related": "unclear", "unclear": "unrelated", "unrelated": "related"}
    edit_records(
        runs[1],
        lambda record: record.update(predicted=other[record["gold"]] if record["id"] == 4 else record["predicted"]),
    )
    for run in runs:
        log(run, **CUSTOM)
    text = report(*runs, "--output", tmp_path / "report.html")
    assert "2 runs, image-text relevance on demo-tiny" in text
    assert "61.5 ± 0.7" in text
    assert "<b>fusion/gate, validation</b>" in text
    assert "small_means" not in text, "validation did not log it"
    section = text[text.index('<section id="posts"') :]
    assert re.findall(r'<th scope="row">(\d+)</th>', section) == ["4"]
    assert re.findall(r'class="label (\w+)"', section) == ["right", "wrong"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "mner"}, "different tasks"),
        ({"labels": LabelSet(("likes", "None"), "None")}, "different labels"),
        ({"data": {"test": {"rows": 12, "sha256": "another"}}}, "different test sets"),
        ({"data": {"test": {"rows": 12, "sha256": "test-mre", "holdout_seed": 1}}}, "different test sets"),
        ({"test": None, "val": None}, "share no split"),
    ],
)
def test_incomparable_runs_are_refused(
    refused: Callable[..., str], make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **changes)]
    assert message in refused("report", *map(str, runs))


@pytest.mark.parametrize("change", [{"gold": "/per/per/charges"}, {"id": 12}])
def test_runs_with_other_gold_labels_or_rows_are_refused(
    refused: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path, change: dict[str, Any]
) -> None:
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    edit_records(runs[1], lambda record: record.update(change if record["id"] == 11 else {}))
    assert "different test sets" in refused("report", *map(str, runs))


FIRST, SECOND = ({"versions": {"code": digit * 64}} for digit in "12")
AUGMENTED = {"train": {"rows": 99, "sha256": "augmented"}, "test": {"rows": 12, "sha256": "test-mner"}}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 2, **SECOND}, ["toy"]),
        ({"seed": 1, **SECOND}, ["toy, code 111111111111", "toy, code 222222222222"]),
        ({"seed": 1, **FIRST}, ["toy, run 1 (a)", "toy, run 2 (b)"]),
        ({"seed": 2, **FIRST, "data": AUGMENTED}, ["toy, training data augmented", "toy, training data train-mner"]),
    ],
    ids=["other seed", "other code", "the same", "other training data"],
)
def test_only_repeated_runs_are_averaged(
    report: Callable[..., str], make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], names: list[str]
) -> None:
    make_run(tmp_path / "runs" / "a", "mner", seed=1, **FIRST)
    make_run(tmp_path / "runs" / "b", "mner", **changes)
    text = report(tmp_path / "runs")
    assert sorted(re.findall(r'<text class="name" y="[^"]+">([^<]+)</text>', text)) == names
    assert "Slices cannot be compared" not in text


def test_incomparable_slices_name_no_folder(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / "somebody" / name, experiment=name) for name in ("a", "b")]
    edit_records(runs[1], lambda record: record.pop("gold"))
    text = report(*runs, "--output", tmp_path / "report.html")
    assert "Slices cannot be compared" in text
    assert "somebody" not in text


@pytest.mark.parametrize("option", [("--posts", "3"), ("--data.root", "data")])
def test_options_for_a_single_run_are_refused_for_several_runs_and_studies(
    refused: Callable[..., str], make_run: MakeRun, tmp_path: Path, option: tuple[str, str]
) -> None:
    runs = [str(make_run(tmp_path / name)) for name in ("a", "b")]
    several = write_study(tmp_path / "study", [study_row("full", 0, 0.9)], variant=["full"])
    for named in (runs, [str(several)]):
        message = f"only the report on one run shows a sample of posts: leave out {option[0]}, or name one run"
        assert message in refused("report", *named, *option)


def test_the_matrix_is_limited_to_the_most_frequent_classes(
    report: Callable[..., str], make_run: MakeRun, edit_records: EditRecords, tmp_path: Path
) -> None:
    labels = LabelSet(tuple(f"tag {number}" for number in range(200)))
    run = make_run(tmp_path / "run", labels=labels, rows=200)
    edit_records(run, lambda record: record.update(gold=f"tag {record['id']}", predicted="tag 199"))
    text = report(run, "--posts", "0")
    matrix = text[text.index('<table class="matrix"') :].partition("</table>")[0]
    assert matrix.count("<tr>") == 1 + 60 + 1
    assert re.findall(r'<th scope="row">all others</th>.*?class="sum">(\d+)<', matrix) == ["140"]
    assert "The 60 most frequent, by gold items; 140 more are in the row and column all others." in text


# Studies


def study_row(variant: str, noise: float, mean: float | None, **more: Any) -> dict[str, Any]:
    point = {"variant": variant, "noise": noise}
    if mean is None:
        return {"point": point, "seeds": [], "values": [], "mean": None, **more}
    interval = {"sd": 0.01, "low": mean - 0.02, "high": mean + 0.03}
    ceilings = {"text": 0.4, "multimodal": 0.95 - noise / 2}
    return {
        "point": point,
        "seeds": [1, 2, 3],
        "values": [mean] * 3,
        "mean": mean,
        **interval,
        "ceilings": ceilings,
        **more,
    }


def write_study(folder: Path, rows: list[dict[str, Any]], **factors: Any) -> Path:
    folder.mkdir()
    content = {"name": "noise", "task": "mre", "corpus": "study", "split": "test", "metric": "f1", "baseline": "full"}
    (folder / "study.json").write_text(json.dumps({**content, "factors": factors, "rows": rows}), encoding="utf-8")
    return folder


def test_a_study_has_a_table_and_one_line_per_variant(report: Callable[..., str], tmp_path: Path) -> None:
    levels = [0.0, 0.4, 0.8]
    rows = [study_row("full", noise, 0.9 - noise / 2) for noise in levels]
    compared = {"difference": -0.05, "difference_low": -0.08, "difference_high": -0.01, "p": 0.0004}
    rows += [study_row(HOSTILE, noise, 0.85 - noise / 2, **compared) for noise in levels]
    text = report(write_study(tmp_path / "study", rows, variant=["full", HOSTILE], noise=levels))
    read = Reader(text)
    assert [tag for tag, _ in read.tags].count("polyline") == 4  # and two ceilings
    assert len(read.with_class("dashed")) == 4  # lines and legend
    assert "\u22125.0 (\u22128.0, \u22121.0)" in text
    assert "&lt; 0.001" in text
    assert "90.0 ± 1.0" in text
    assert "88.0 to 93.0" in text
    assert not [tag for tag, _ in read.tags if tag == "img"]


def test_a_study_of_categories_is_a_dot_plot_and_failed_trials_show_their_reason(
    report: Callable[..., str], tmp_path: Path
) -> None:
    rows = [
        study_row("full", 0, 0.9),
        study_row("text only", 0, 0.5),
        study_row("broken", 0, None, reason="status 1: no"),
    ]
    text = report(write_study(tmp_path / "study", rows, variant=["full", "text only", "broken"], noise=[0]))
    assert len(Reader(text).with_class("dot")) == 2
    assert "status 1: no" in text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": "a", "rows": [{"mean": 1}], "factors": {"x": [1]}}'])
def test_a_damaged_study_is_named(refused: Callable[..., str], tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    assert "study.json is no study" in refused("report", str(tmp_path))


def test_a_study_has_a_separate_page(refused: Callable[..., str], make_run: MakeRun, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", [study_row("full", 0, 0.9)], variant=["full"], noise=[0])
    assert "one study or several runs, not both" in refused("report", str(study), str(make_run(tmp_path / "run")))
