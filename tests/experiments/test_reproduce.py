"""The reproduction: checks, runs, omissions, and labelling of scores that are not from the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experiments import reproduce
from mmib.runs.reader import FinishedRun
from mmib.search.trials import TrialError, finished_run

ROOT = Path(__file__).parents[2]
RELATION = "/per/per/peer"
F1 = {"1": 0.5, "2": 0.6, "3": 0.7}


def mnre_row(relation: str) -> str:
    row = {"token": ["a", "b"], "h": {"name": "a", "pos": [0, 1]}, "t": {"name": "b", "pos": [1, 2]}}
    return repr({**row, "img_id": "one.jpg", "relation": relation}) + "\n"


def post(*tags: str) -> str:
    return "IMGID:1\n" + "".join(f"word\t{tag}\n" for tag in tags) + "\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with MNRE, test split included, and Twitter-2017 without one."""
    root = tmp_path / "data"
    (root / "mnre/txt").mkdir(parents=True)
    for split in ("train", "val", "test"):
        (root / f"mnre/txt/ours_{split}.txt").write_text(mnre_row("None") + mnre_row(RELATION))
    (root / "twitter2017").mkdir()
    for name in ("train", "valid"):
        (root / f"twitter2017/{name}.txt").write_text(post("B-PER", "I-PER", "O") + post("I-OTHER", "O", "O"))
    return root


class TrialRecorder:
    """Replaces `run_trial`: writes the files of a run, and records its options."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.options: list[Sequence[str]] = []
        self.failing: set[str] = set()

    def __call__(self, options: Sequence[str], folder: Path) -> FinishedRun:
        done = finished_run(folder)
        if done is not None:
            return done
        experiment, seed = options[options.index("--config") + 1], options[options.index("--seed_everything") + 1]
        self.asked.append((experiment, seed))
        self.options.append(options)
        if experiment in self.failing:
            raise TrialError("status 2: mmib: no encoder")
        task, split = ("mre", "test") if experiment.startswith("mre") else ("mner", "val")
        scores = dict.fromkeys(("precision", "recall", "f1", "accuracy"), F1[seed])
        scores |= {} if task == "mre" else {"strict_f1": F1[seed] - 0.1}
        summary = {"task": task, "experiment": experiment, "seed": int(seed), "val": scores, "test": None}
        summary |= {split: scores, "images": {"train": "1 of 2 images"}}
        label = [RELATION, "None"] if task == "mre" else [["B-PER", "O"], ["O", "O"]]
        records = [{"id": number, "gold": gold, "predicted": gold} for number, gold in enumerate(label)]
        run = folder / experiment / "run"
        (run / "predictions").mkdir(parents=True)
        (run / "predictions" / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (run / "summary.json").write_text(json.dumps(summary))
        return FinishedRun(run, summary)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> TrialRecorder:
    stub = TrialRecorder()
    monkeypatch.setattr(reproduce, "run_trial", stub)
    return stub


@pytest.fixture
def run(data: Path, tmp_path: Path, recorder: TrialRecorder) -> Callable[..., tuple[int, str]]:
    """Runs the command on MNRE and Twitter-2017; returns its status and the table."""

    def call(*options: str) -> tuple[int, str]:
        where = ["--data-root", str(data), "--runs", str(tmp_path / "runs"), "--sets", "mnre", "twitter2017"]
        status = reproduce.main([*where, *options])
        table = tmp_path / "runs/reproduce/table.md"
        return status, table.read_text() if table.is_file() else ""

    return call


def cells(table: str, start: str) -> list[str]:
    """The cells of the row with this start."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_all_runs_have_their_settings_and_every_set_is_run_with_the_first_seed_first(
    run: Callable[..., tuple[int, str]], recorder: TrialRecorder, data: Path
) -> None:
    status, _ = run("--seeds", "1", "2", "--", "--wandb", "off")
    assert status == 0
    sets = ["mre-mnre-published", "mner-twitter2017-published"]
    assert recorder.asked == [(experiment, seed) for seed in "12" for experiment in sets]
    assert [options[options.index("--data.root") + 1] for options in recorder.options[:2]] == [
        str(data / "mnre"),
        str(data),
    ]
    assert all(list(options[-2:]) == ["--wandb", "off"] for options in recorder.options)


def test_the_table_compares_mean_and_standard_deviation_with_published_figures(
    run: Callable[..., tuple[int, str]],
) -> None:
    _, table = run()
    # 50, 60 and 70 have a standard deviation of 10.
    ours = cells(table, "**mmib, published settings, seeds 1 2 3**")
    assert ours[1:] == ["", "60.0 ± 10.0 (validation)", "60.0 ± 10.0", "this run"]
    assert cells(table, "MEGA")[3] == "66.41"
    mnre, twitter = cells(table, "MNRE | test | 1 2 3"), cells(table, "Twitter-2017 | val | 1 2 3")
    assert mnre[3:8] == ["60.0 ± 10.0"] * 3 + ["", "60.0 ± 10.0"]
    assert twitter[5:7] == ["60.0 ± 10.0", "50.0 ± 10.0"]
    assert cells(table, "MNRE | 2 | ")[2] == "60.0"


def test_validation_scores_are_not_presented_as_test_scores(
    run: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, table = run("--seeds", "1")
    assert "Twitter-2017: no test scores." in table
    assert "MNRE: no test scores" not in table
    assert "validation scores are reported, which are no test scores" in capsys.readouterr().out


def test_deviations_from_the_released_data_are_counted_and_named(
    run: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A stray I- tag starts an entity in the default reading only."""
    _, table = run("--seeds", "1")
    assert "MNRE: the data is not as released" in table
    assert cells(table, "Twitter-2017 | train |")[2] == "2 posts, 2 entities, 1 in strict IOB2"
    assert cells(table, "MNRE | test | 2 rows")[2:4] == ["2 rows, 1 None", "1,614 rows, 974 None"]
    assert (
        "NOT as released (3,373 posts, 6,049 entities, 6,049 in strict IOB2); 0 of 1 image" in capsys.readouterr().out
    )


def test_data_as_released_is_reported_as_such(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(reproduce.SETS["mnre"].released, "train", {"rows": 2, "negative": 1})
    _, table = run("--seeds", "1")
    assert "MNRE, train: 2 rows, 1 None, as released" in capsys.readouterr().out
    assert cells(table, "MNRE | train |")[3] == "yes"


def test_finished_runs_are_not_repeated_unless_options_differ(
    run: Callable[..., tuple[int, str]], recorder: TrialRecorder
) -> None:
    run("--seeds", "1")
    first = list(recorder.asked)
    run("--seeds", "1")
    assert recorder.asked == first
    run("--seeds", "1", "--", "--trainer.max_epochs", "2")
    assert recorder.asked == 2 * first


def test_a_failing_set_is_skipped_and_the_others_continue(
    run: Callable[..., tuple[int, str]], recorder: TrialRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.failing.add("mre-mnre-published")
    status, table = run("--seeds", "1", "2")
    assert status == 1
    assert recorder.asked.count(("mre-mnre-published", "1")) == 1
    assert ("mre-mnre-published", "2") not in recorder.asked
    assert ("mner-twitter2017-published", "2") in recorder.asked
    assert "**MNRE: without seed 1, 2**: seed 1: status 2: mmib: no encoder" in table
    error = capsys.readouterr().err
    assert "MNRE, seed 1: failed: status 2: mmib: no encoder" in error
    assert "--model.backbone.text_encoder.name /path/to/bert-base-uncased" in error


def test_offline_settings_are_distinguished_from_the_published_ones(
    run: Callable[..., tuple[int, str]], recorder: TrialRecorder
) -> None:
    _, table = run("--settings", "offline", "--seeds", "3")
    assert ("mre-mnre-offline", "3") in recorder.asked
    assert "These are **not** the published settings" in table
    assert cells(table, "**mmib, offline settings, seeds 3**")[3] == "70.0"


def test_missing_data_is_an_error_before_anything_runs(
    run: Callable[..., tuple[int, str]], recorder: TrialRecorder, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "twitter2017/valid.txt").unlink()
    assert run() == (2, "")
    error = capsys.readouterr().err
    assert error.startswith(f"reproduce: {data / 'twitter2017/valid.txt'} does not exist; expected below the root")
    assert "--data-root names the folder that holds mnre/" in error
    assert recorder.asked == []


def test_a_missing_data_root_is_named(
    tmp_path: Path, recorder: TrialRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(["--data-root", str(tmp_path / "nowhere")]) == 2
    assert f"the data folder {tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err


def test_an_interrupted_reproduction_keeps_the_partial_table(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, recorder: TrialRecorder
) -> None:
    def interrupted(options: Sequence[str], folder: Path) -> FinishedRun:
        if recorder.asked:
            raise KeyboardInterrupt
        return recorder(options, folder)

    monkeypatch.setattr(reproduce, "run_trial", interrupted)
    status, table = run("--seeds", "1")
    assert status == 130
    assert cells(table, "MNRE | test | 1 |")[5] == "50.0"
    assert "**Twitter-2017: without seed 1**: not run yet" in table


def test_documented_figures_match_the_table() -> None:
    page = (ROOT / "docs/how-to/reproduction.md").read_text()
    for figure in reproduce.PUBLISHED:
        assert f"| {' | '.join(figure)} |" in page
    assert page.count("DeepKE, example/re") == sum(
        "DeepKE, example/re" in figure.source for figure in reproduce.PUBLISHED
    )


@pytest.mark.parametrize(
    ("seconds", "formatted"), [(20, "20 s"), (61, "1 min"), (3590, "1 h 00 min"), (9000, "2 h 30 min")]
)
def test_durations_are_readable(seconds: float, formatted: str) -> None:
    assert reproduce._duration(seconds) == formatted
