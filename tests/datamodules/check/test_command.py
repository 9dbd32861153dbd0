"""The command: its output, the files it writes, and its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmib.cli import main


def write_posts(root: Path, split: str, text: str) -> None:
    path = root / "twitter2017" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for name in re.findall(r"IMGID:(\d)", text):
        picture = root / "twitter2017_images" / f"{name}.jpg"
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (int(name), 0, 0)).save(picture)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set whose only findings are notes."""
    write_posts(tmp_path / "data", "train", "IMGID:1\n[bold]ada\tI-PER\n\n")
    write_posts(tmp_path / "data", "valid", "IMGID:2\nbob\tB-PER\n\n")
    return tmp_path / "data"


def check(*arguments: Any) -> int:
    return main(["check-data", *map(str, arguments), "--tokenizer", "none"])


def test_a_valid_set_is_printed_with_its_notes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(root) == 0
    shown = capsys.readouterr().out
    for part in (
        "Twitter-2017",
        "4 labels, as released with Twitter-2017",
        "PER   │ 1 (100.0%) │ 1 (100.0%)",
        "1 stray I- tag in 1",
        "the test split is missing",
        "fine",
    ):
        assert part in shown
    assert "1 of 1" in shown


def test_json_goes_to_a_file_or_is_the_only_standard_output(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(root, "--json", tmp_path / "found.json") == 0
    capsys.readouterr()
    assert check(root, "--json", "-") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "found.json").read_text())
    (report,) = printed["sets"]
    assert (printed["status"], report["name"], report["splits"][0]["counts"]["posts"]) == (0, "twitter2017", 1)
    assert report["splits"][0]["findings"][0]["code"] == "stray_tags"


def test_problems_and_unreadable_data_have_separate_exit_statuses(root: Path) -> None:
    write_posts(root, "train", "IMGID:1\nada\tX\n\nIMGID:3\nada\tO\n")
    assert check(root) == 1
    (root / "twitter2017" / "train.txt").write_bytes(b"\xff")
    assert check(root) == 2


def test_labels_are_checked_against_the_given_label_set(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("LOC\nPER\n")
    assert check(root, "--labels", tmp_path / "labels.txt") == 0
    assert "2 labels, as given with --labels" in capsys.readouterr().out
    (tmp_path / "labels.txt").write_text("LOC\n")
    assert check(root, "--labels", tmp_path / "labels.txt") == 1
    assert "[train] 1 label in 1 place missing from the label set" in capsys.readouterr().out
    assert check(root, "--labels", "mnr") == 2
    assert "the label set 'mnr' is neither a known one" in capsys.readouterr().err


def test_lines_are_wrapped(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(root)
    assert check(Path()) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert "\n    " in output


def test_custom_data_is_checked_but_not_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    entities = [{"start": 0, "end": 3, "type": "PER"}]
    train = [{"text": f"Ada was {number}", "entities": entities, "image": "1.jpg"} for number in range(3)]
    broken = {"text": "Ada", "entities": [{"start": 0, "end": 9, "type": "PER"}]}
    val = [{"text": "Acme", "entities": [{"start": 0, "end": 4, "type": "TEAM"}]}]
    for split, posts in (("train", [*train, broken]), ("val", val)):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    assert check(tmp_path, "--max-missing-images", "1.0", "--fix", tmp_path.with_name("copy")) == 2
    printed = capsys.readouterr()
    for part in (
        "posts as JSON lines",
        "2 labels, those that occur in the data",
        "TEAM  │          0 │ 1 (100.0%)",
        "1 label without a training row, which cannot be learnt: TEAM (val 1, first at val.jsonl:1)",
        "1 post cannot be read, and training stops at the first: train.jsonl:4",
    ):
        assert part in printed.out
    assert "--fix writes copies of MNRE's and the Twitter sets' layouts only" in printed.err
    assert not tmp_path.with_name("copy").exists()


def test_a_repaired_copy_determines_the_exit_status(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_posts(root, "train", "IMGID:1\nada\tX\n\nIMGID:3\nada\tI-PER\n")
    assert check(root, "--fix", tmp_path / "copy", "--json", tmp_path / "found.json") == 0
    shown = capsys.readouterr().out
    assert "a repaired copy, 2 changes" in shown
    assert "left out: " in shown
    assert "the stray tag I-PER became B-PER" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["status"], found["fixed"]["status"], len(found["fixed"]["changes"])) == (0, 0, 2)
    assert check(root, "--fix", tmp_path / "copy") == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["."], "holds no data that mmib can train on"),
    ],
)
def test_a_missing_path_is_a_one_sentence_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(*arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_an_unknown_tokenizer_is_a_one_sentence_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(root), "--tokenizer", str(root)]) == 2
    assert "could not be loaded from that folder" in capsys.readouterr().err


def test_post_lengths_are_measured_with_the_tokenizer_of_the_text_encoder(
    root: Path, encoder_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check-data", str(root), "--tokenizer", encoder_files.text, "--max-length", "4"]
    assert main(arguments) == 1
    assert "1 post longer than 4 word pieces" in capsys.readouterr().out


def test_no_training_code_is_imported(root: Path) -> None:
    script = (
        "import sys; from mmib.cli import main; main(sys.argv[1:]); "
        "heavy = {'pytorch_lightning', 'timm', 'wandb', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", script, "check-data", str(root), "--tokenizer", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
