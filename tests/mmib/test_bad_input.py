"""Bad input on the command line: one message that names the location and the remedy, and no traceback.

Other tests of this kind are next to the code they concern: configurations in test_cli.py, checkpoints in
test_training.py, sweeps, reports and extraction in their own folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from mmib import crop_objects
from mmib.cli import main
from mmib.crop_objects.detector import Detection
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel

Refused = Callable[..., str]
ROW = {
    "token": ["ada", "met", "bob"],
    "h": {"name": "ada", "pos": [0, 1]},
    "t": {"name": "bob", "pos": [2, 3]},
    "img_id": "a.jpg",
    "relation": "/per/per/peer",
}
CHECK = "mmib check-data lists all that cannot be read, and of a released set's layout --fix writes a copy without them"
LAYOUT = "expected below the root:\n  txt/ours_train.txt, txt/ours_val.txt"
RELEASE = "put the file of the release in its place"


def line(**changes: Any) -> str:
    """A row of MNRE; keys given as None are left out."""
    return repr({key: value for key, value in {**ROW, **changes}.items() if value is not None})


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).convert("RGB").save(path)
    return path


def assert_names(message: str, *parts: str) -> None:
    """The last message of a command is the program's own."""
    last = f"\n{message}".rpartition("\nmmib: ")[2]
    for part in parts:
        assert part in last


# Texts


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{'token': [", "not a Python literal"),
        ('{"token": true}', "not a Python literal"),
        ("[1, 2]", "expected a dict, got list"),
        (line(relation=None), "the key 'relation' is missing"),
        (line(h=None), "the key 'h' is missing"),
        (line(h={"pos": [1, 4]}), "the span [1, 4) of 'h' lies outside the sentence of 3 words"),
        (line(t={"pos": [-1, 2]}), "the span [-1, 2) of 't' lies outside the sentence of 3 words"),
        (line(h={"pos": [1, 1]}), "the span [1, 1) of 'h' is empty"),
        (line(t={"pos": [2, 1]}), "the span [2, 1) of 't' is reversed"),
        (line(relation=3), "'relation' must be the name of a relation, got 3"),
        (line(token=[]), "the sentence is empty"),
    ],
)
def test_a_malformed_row_of_mnre_is_refused(refused: Refused, tmp_path: Path, bad: str, message: str) -> None:
    text = write(tmp_path / "txt" / "ours_train.txt", f"{line()}\n{bad}\n{line()}\n")
    assert_names(refused("crop-objects", str(tmp_path), "--task", "mnre"), f"{text}:2: {message}", CHECK)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("IMGID:1\nada B-PER\n", ":2: expected a word, one tab and its tag, got 'ada B-PER'; " + CHECK),
        ("IMGID:1\nada\tmet\tO\n", ":2: expected a word, one tab and its tag, got 'ada\\tmet\\tO'; " + CHECK),
        ("IMGID:1\nada\tS-PER\n", ":2: the tag 'S-PER' is neither O nor B- or I- with an entity type; " + CHECK),
        ("ada\tO\n\nIMGID:1\nbob\tO\n", ":1: a word before the first IMGID: line; " + CHECK),
        ("IMGID:1\n\nIMGID:2\nbob\tO\n", ":1: the post of the image 1.jpg has no words; " + CHECK),
        ("IMGID:\nada\tO\n", ":1: IMGID without a name; " + CHECK),
        ("", f" holds no posts: {RELEASE}"),
        (b"IMGID:1\ncaf\xe9\tO\n", ":2 is not UTF-8: byte 11 of the file cannot be read; convert it"),
        (f"{line()}\n", ":1: expected a word, one tab and its tag, got "),
    ],
    ids=["no tab", "two tabs", "tag", "before", "wordless", "nameless", "empty", "encoding", "text of another task"],
)
def test_a_malformed_text_of_twitter_is_refused(
    refused: Refused, tmp_path: Path, content: str | bytes, message: str
) -> None:
    text = write(tmp_path / "twitter2017" / "valid.txt", content)
    assert_names(refused("crop-objects", str(tmp_path), "--task", "twitter"), f"{text}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f" holds no rows: {RELEASE}"),
        (b"{'token': ['caf\xe9']}\n", ":1 is not UTF-8: byte 15 of the file cannot be read; convert"),
    ],
)
def test_an_unreadable_text_of_mnre_is_refused(refused: Refused, tmp_path: Path, content: bytes, message: str) -> None:
    text = write(tmp_path / "txt" / "ours_train.txt", content)
    assert_names(refused("crop-objects", str(tmp_path), "--task", "mnre"), f"{text}{message}")


def test_duplicate_imgids_are_allowed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid"):
        write(tmp_path / "twitter2017" / f"{split}.txt", f"IMGID:{split}\n{split}\tO\n\nIMGID:{split}\nada\tO\n")
        picture(tmp_path / "twitter2017_images" / f"{split}.jpg")
    main(["check-data", str(tmp_path), "--tokenizer", "none"])
    assert "1 image of more than one post: train.jpg" in capsys.readouterr().out


# Files that belong to texts: each error stops a training before it has a run folder


class Data:
    """A complete data set of both tasks, to be damaged, and the training that reads it."""

    def __init__(self, root: Path, options: list[str]) -> None:
        self.root = root
        self.options = options
        for split in ("train", "val"):
            write(root / "txt" / f"ours_{split}.txt", f"{line(img_id=f'{split}.jpg')}\n")
            picture(root / "img_org" / split / f"{split}.jpg")
        for split in ("train", "valid"):
            write(root / "twitter2017" / f"{split}.txt", f"IMGID:{split}\nada\tB-PER\n")
            picture(root / "twitter2017_images" / f"{split}.jpg")

    def fit(self, experiment: str, *more: str) -> list[str]:
        return ["fit", "--config", experiment, *self.options, "--data.root", str(self.root), *more]


@pytest.fixture
def data(tmp_path: Path, encoder_files: Any) -> Data:
    places = ["--runs", str(tmp_path / "runs"), "--data.cache_dir", str(tmp_path / "cache"), "--wandb", "off"]
    return Data(tmp_path / "data", [*encoder_files.options(), *places, "--trainer.accelerator", "cpu"])


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def misname(root: Path) -> None:
    (root / "txt" / "ours_val.txt").rename(root / "txt" / "ours_valid.txt")


def climb(root: Path) -> None:
    write(root / "txt" / "ours_train.txt", f"{line(img_id='../../../secret.jpg')}\n")


def list_ids(root: Path) -> None:
    write(root / "ours_rel2id.json", json.dumps({"None": 0, "/per/per/enemy": 1}))


def enemies(root: Path) -> None:
    write(root / "txt" / "ours_train.txt", f"{line()}\n{line(relation='/per/per/enemy')}\n")


def crops(content: Any) -> Callable[[Path], None]:
    return lambda root: torch.save(content(root), root / "txt" / "mre_train_dict.pth")


def plain_pickle(root: Path) -> None:
    with (root / "txt" / "mre_train_dict.pth").open("wb") as file:
        pickle.dump({0: Trap(root / "hacked")}, file)


@pytest.mark.parametrize(
    ("damage", "place", "remedy"),
    [
        (
            misname,
            "txt/ours_val.txt does not exist",
            LAYOUT,
        ),
        (climb, "ours_train.txt:1: the file name '../../../secret.jpg' is not inside", "name a file in there"),
        (
            list_ids,
            "ours_rel2id.json names other labels than data.labels: 2 labels, None, /per/per/enemy against 23 labels",
            "put the release's own in its place, name it in data.labels, or remove it",
        ),
        (enemies, "ours_train.txt:2: the label '/per/per/enemy' is not one of the 23 of data.labels", "add it there"),
        (crops(lambda _: [1]), "mre_train_dict.pth holds a list", "expected {row number: [crop file names]}"),
        (crops(lambda _: {0: "a.jpg"}), "mre_train_dict.pth, 0: 'a.jpg'", "expected {row number: [crop file names]}"),
        (crops(lambda _: {0: ["../../a"]}), "mre_train_dict.pth, 0: the file name '../../a'", "name a file in there"),
        (
            crops(lambda root: {0: Trap(root / "hacked")}),
            "mre_train_dict.pth is not a plain crop dict",
            "without the file",
        ),
        (plain_pickle, "mre_train_dict.pth is not a plain crop dictionary and was not loaded", "without the file"),
    ],
)
def test_invalid_data_stops_relation_training(
    refused: Refused, data: Data, damage: Callable[[Path], None], place: str, remedy: str
) -> None:
    damage(data.root)
    message = refused(*data.fit("mre-mnre-offline", "--data.max_missing_images", "0"))
    assert_names(message, str(data.root), place, remedy)
    assert not (data.root / "hacked").exists()


def test_an_unreadable_image_is_counted_as_missing_with_its_name(refused: Refused, data: Data) -> None:
    write(data.root / "twitter2017_images" / "train.jpg", b"<html>404</html>")
    message = refused(*data.fit("mner-twitter2017-offline", "--data.max_missing_images", "0"))
    assert_names(message, f"{data.root}, split train: 1 of 1 images are missing or unreadable", "train.jpg")
    assert_names(message, "continue without them with --data.max_missing_images 1.0")


@pytest.mark.parametrize("place", ["nowhere", "img_org"])
def test_a_wrong_data_path_leaves_no_run_folder(refused: Refused, data: Data, place: str) -> None:
    root = data.root / place
    assert_names(refused(*data.fit("mre-mnre-offline", "--data.root", str(root))), str(root), "expected below the root")
    assert not (data.root.parent / "runs").exists()


@pytest.mark.parametrize(("ranks", "rows"), [(4, 2), (3, 16)])
def test_a_batch_that_ranks_cannot_share_is_refused(refused: Refused, data: Data, ranks: int, rows: int) -> None:
    """It is refused before any other rank is started."""
    more = ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp", "--data.batch_size", str(rows)]
    message = refused(*data.fit("mre-mnre-offline", *more))
    assert_names(message, f"batch_size is {rows} rows over all ranks, and {ranks} ranks cannot share them evenly")
    assert_names(message, f"choose a multiple of {ranks}")


# Unusual images


def truncated(path: Path) -> None:
    content = picture(path).read_bytes()
    write(path, content[: len(content) // 2])


def bomb(path: Path) -> None:
    """A header of 60,000 x 60,000 pixels without data."""
    path.write_bytes(b"P6 60000 60000 255\n")


def wild(folder: Path, name: str, save: Callable[[Path], Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / name)


BROKEN: dict[str, Callable[[Path], Any]] = {
    "truncated.jpg": truncated,
    "empty.jpg": lambda path: write(path, b""),
    "page.jpg": lambda path: write(path, b"<html>404</html>"),
    "bomb.jpg": bomb,
    "line.jpg": lambda path: picture(path, (3, 1200)),
    "loop.jpg": lambda path: path.symlink_to(path),
}
ODD: dict[str, Callable[[Path], Any]] = {
    "cmyk.jpg": lambda path: Image.new("CMYK", (20, 20), (1, 2, 3, 4)).save(path),
    "palette.png": lambda path: Image.new("P", (20, 20), 3).save(path),
    "deep.png": lambda path: Image.new("I;16", (20, 20), 999).save(path),
    "alpha.png": lambda path: Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(path),
    "moving.gif": lambda path: Image.new("L", (9, 9)).save(
        path, save_all=True, append_images=[Image.new("L", (9, 9), 7)]
    ),
    "dot.png": lambda path: Image.new("RGB", (1, 1)).save(path),
    "really-a-png.jpg": lambda path: Image.new("RGB", (20, 20), "navy").save(path, "PNG"),
}


def test_unusual_images_are_read_or_named_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, save in {**BROKEN, **ODD}.items():
        wild(tmp_path / "img_org" / "train", name, save)
    rows = [line(img_id=name, token=["ada", name, "bob"]) for name in (*BROKEN, *ODD)]
    write(tmp_path / "txt" / "ours_train.txt", "\n".join(rows))
    write(tmp_path / "txt" / "ours_val.txt", line(img_id="x.jpg", token=["ada", "x", "bob"]))
    picture(tmp_path / "img_org" / "val" / "x.jpg")
    file = tmp_path / "found.json"
    assert main(["check-data", str(tmp_path), "--tokenizer", "none", "--json", str(file)]) == 1
    output, errors = capsys.readouterr()
    assert "Traceback" not in output + errors
    train = json.loads(file.read_text())["sets"][0]["splits"][0]
    assert train["images"]["found"] == len(ODD)
    named = {item for finding in train["findings"] for item in finding["items"] if "images" in finding["code"]}
    for name in BROKEN:
        assert any(name in item for item in named), name
    assert not any(name in item for name in ODD for item in named)


# Runs


def run_folder(folder: Path, **changes: Any) -> Path:
    """A finished run of relation extraction with two predictions."""
    summary = {"task": "mre", "experiment": folder.name, "seed": 1, "corpus": "toy", "val": None, "test": {"f1": 0.5}}
    summary |= {"data": {"test": {"rows": 2, "sha256": "ab"}}, "versions": {}, "selected": {"epoch": 1}, **changes}
    write(folder / "summary.json", json.dumps(summary))
    write(folder / "config.yaml", yaml.safe_dump({"name": folder.name}))
    records = [{"id": row, "gold": "None", "predicted": "None"} for row in range(2)]
    write(folder / "predictions" / "test.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return folder


def cut_off(name: str, kept: int) -> Callable[[Path], None]:
    return lambda run: write(run / name, (run / name).read_bytes()[:kept]) and None


@pytest.mark.parametrize(
    ("damage", "place", "remedy"),
    [
        (
            lambda run: (run / "summary.json").unlink(),
            "b has not finished",
            "start again, as there is no checkpoint to resume from",
        ),
        (
            cut_off("summary.json", 20),
            "summary.json cannot be read",
            "start again, as there is no checkpoint to resume from",
        ),
        (
            cut_off("summary.json", 0),
            "summary.json cannot be read",
            "start again, as there is no checkpoint to resume from",
        ),
        (
            lambda run: write(run / "summary.json", "[]"),
            "summary.json is no summary of a run",
            "start again, as there is no checkpoint to resume from",
        ),
        (cut_off("predictions/test.jsonl", 20), "test.jsonl, line 1 is no JSON", "make them with mmib test --config"),
        (
            lambda run: (run / "predictions/test.jsonl").unlink(),
            "b has no predictions of test",
            "make them with mmib test",
        ),
        (lambda run: run_folder(run, task="mner"), "is of mre", "name runs of one task"),
        (
            lambda run: run_folder(run, data={"test": {"rows": 2, "sha256": "cd"}}),
            "were scored on different test rows",
            "compare them apart",
        ),
    ],
)
def test_runs_that_cannot_be_aggregated_are_refused(
    refused: Refused, tmp_path: Path, damage: Callable[[Path], Any], place: str, remedy: str
) -> None:
    runs = [run_folder(tmp_path / name) for name in ("a", "b")]
    damage(runs[1])
    assert_names(refused("aggregate", *map(str, runs)), str(runs[1]), place, remedy)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"metod": "grid"}, "unknown key 'metod': choose from program, command, method"),
        ({"method": "custom"}, "the method 'custom': choose from grid, random, bayes"),
        ({"metric": None}, "'metric' must be a mapping with the name of a scalar, such as"),
        ({"parameters": {"model.beta": {"values": [1], "distributon": "normal"}}}, "unknown key 'distributon'"),
    ],
)
def test_an_empty_sweep_file_is_refused(refused: Refused, tmp_path: Path, changes: dict[str, Any], remedy: str) -> None:
    content = {"method": "grid", "metric": {"name": "val/f1"}, "parameters": {"model.beta": {"values": [1]}}, **changes}
    path = write(tmp_path / "sweep.yaml", yaml.safe_dump({**content, "program": "train.py"}))
    assert_names(refused("sweep", str(path), "--local"), str(path), remedy)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [("nmae: x\n", "unknown key 'nmae': choose from name"), ("name: x\n", "is missing: "), ("- x", "it must hold")],
)
def test_an_empty_study_file_is_refused(refused: Refused, tmp_path: Path, content: str, remedy: str) -> None:
    path = write(tmp_path / "study.yaml", content)
    assert_names(refused("study", str(path)), str(path), remedy)


# Trust


@pytest.mark.parametrize("command", ["export", "extract"])
def test_a_checkpoint_that_executes_code_is_refused(
    refused: Refused, make_run: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    run = make_run("mre")
    torch.save({"mmib_task": "mre", "state_dict": Trap(tmp_path / "hacked")}, run / "checkpoints" / "best.ckpt")
    arguments = {"export": [str(run), "-o", str(tmp_path / "out")], "extract": ["--model", str(run), "--text", "bob"]}
    message = refused(command, *arguments[command])
    assert_names(message, str(run / "checkpoints" / "best.ckpt"), "is no checkpoint, or is damaged", "copy it again")
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"model_type": "bert"}, "is no exported model of mmib: make one with mmib export"),
        (
            {"model_type": "mmib", "format": 99, "mmib": "9.9"},
            "was exported in format 99 by mmib 9.9, and this version",
        ),
        ({"model_type": "mmib", "format": 1, "files": {"../../x": {}}}, "is not inside"),
        ({"model_type": "mmib", "format": 1, "files": {"model.safetensors": {}}}, "is not complete: model.safetensors"),
    ],
)
def test_a_folder_without_an_export_is_refused(
    refused: Refused, tmp_path: Path, config: dict[str, Any], remedy: str
) -> None:
    write(tmp_path / "config.json", json.dumps(config))
    assert_names(refused("extract", "--model", str(tmp_path), "--text", "bob"), str(tmp_path), remedy)


# Disks


@pytest.fixture(params=["full", "read-only"])
def close_disk(request: pytest.FixtureRequest, small_disk: Path) -> Callable[[], str]:
    """Prevents further writes to `small_disk`; returns the system's error message."""

    def fill() -> str:
        with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        return "No space left on device"

    def protect() -> str:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        return "Read-only file system"

    return fill if request.param == "full" else protect


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["export", "{run}", "-o", "{disk}/out"], "choose another place with -o"),
        (["extract", "--model", "{model}", "{posts}", "-o", "{disk}/out.jsonl"], "{disk}/out.jsonl cannot be written"),
        (["report", "{run}", "--output", "{disk}/page.html"], "choose another place with --output"),
        (["check-data", "{data}", "--tokenizer", "none", "--fix", "{disk}/copy"], "name a folder elsewhere"),
        (["check-data", "{data}", "--tokenizer", "none", "--json", "{disk}/x.json"], "choose another place"),
        (["demo-data", "{disk}/demo", "--size", "tiny"], "name another folder"),
        (
            [
                "fit",
                "--config",
                "mre-demo",
                "--runs",
                "{disk}/runs",
                "--data.root",
                "{disk}/demo",
                "--data.demo.size",
                "tiny",
            ],
            "",
        ),
    ],
)
def test_a_full_or_read_only_disk_is_reported_with_the_reason(
    refused: Refused,
    small_disk: Path,
    close_disk: Callable[[], str],
    make_run: Callable[..., Path],
    make_trained: Callable[..., TrainedModel],
    encoder_files: Any,
    tmp_path: Path,
    command: list[str],
    remedy: str,
) -> None:
    places = {"disk": str(small_disk), "run": "", "model": "", "posts": "", "data": str(tmp_path / "data")}
    if "{run}" in command:
        places["run"] = str(make_run("mre"))
    if "{model}" in command:
        write_export([make_trained("mner")], tmp_path / "model")
        lines = "".join(json.dumps({"text": f"bob meets anna {number}"}) + "\n" for number in range(40))
        places |= {"model": str(tmp_path / "model"), "posts": str(write(tmp_path / "posts.jsonl", lines))}
    if "{data}" in command:
        Data(tmp_path / "data", [])
    options = [*encoder_files.options(), "--wandb", "off"] if command[0] == "fit" else []
    reason = close_disk()
    message = refused(*(part.format(**places) for part in command), *options)
    assert_names(message, reason, str(small_disk), remedy.format(**places))


class Finder:
    """Detects one object in each image."""

    def detect(self, images: Any, phrases: Any) -> list[list[Detection]]:
        return [[Detection((0, 0, 50, 30), 0.9, wanted[0])] for wanted in phrases]


def test_a_full_disk_stops_cropping(
    refused: Refused, small_disk: Path, close_disk: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_objects, "ZeroShotDetector", lambda *_: Finder())
    root = Data(small_disk / "data", []).root
    reason = close_disk()
    message = refused("crop-objects", str(root), "--task", "mnre")
    assert_names(message, reason, str(root), "free disk space and repeat the command")


# Text encoders


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no weights", "no file named model.safetensors"),
        ("another shape", "the weights of text encoder '{folder}' are of another shape than its config.json says"),
        ("large tokenizer", "word pieces, and its tokenizer has "),
        ("flash_attention_2", "cannot use attention 'flash_attention_2' here: "),
        ("perceptron", "'{folder}' is of no architecture that transformers"),
    ],
)
def test_an_unsupported_text_encoder_is_refused(
    refused: Refused, workspace: Any, unpack_bert: Path, damage: str, message: str
) -> None:
    options = ["--data.max_length", "40", "--model.backbone.text_encoder.name", str(unpack_bert)]
    config = json.loads((unpack_bert / "config.json").read_text(encoding="utf-8"))
    if damage == "no weights":
        (unpack_bert / "model.safetensors").unlink()
    elif damage == "another shape":
        config["intermediate_size"] = 7
    elif damage == "large tokenizer":
        tokenizer = json.loads((unpack_bert / "tokenizer.json").read_text(encoding="utf-8"))
        size = len(tokenizer["model"]["vocab"])
        tokenizer["model"]["vocab"] |= {"more": size, "most": size + 1}
        (unpack_bert / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    elif damage == "perceptron":
        config["model_type"] = damage
    else:
        options += ["--model.backbone.text_encoder.attention", damage]
    (unpack_bert / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shown = refused("fit", "--config", str(workspace.experiments["mre"]), *options)
    assert_names(shown, message.format(folder=unpack_bert))


# Outputs


@pytest.mark.parametrize("name", ["link", "hard"])
@pytest.mark.parametrize("command", ["aggregate", "report", "check-data", "init", "convert"])
def test_no_command_overwrites_its_input(
    refused: Refused, make_run: Callable[..., Path], tmp_path: Path, command: str, name: str
) -> None:
    if command in ("aggregate", "report"):
        source = make_run("mre") / "summary.json"
        arguments = [str(source.parent), "--output"]
    else:
        source = write(tmp_path / "data" / "train.jsonl", json.dumps({"text": "ada", "entities": []}) + "\n")
        options = {"check-data": ["--tokenizer", "none", "--json"], "init": ["--task", "mner", "--force", "-o"]}
        arguments = [str(source if command == "convert" else source.parent), *options.get(command, ["-o"])]
    before = source.read_bytes()
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "hard")
    assert_names(refused(command, *arguments, str(tmp_path / name)), f"{name} is the input", "name another file")
    assert source.read_bytes() == before


def test_an_export_follows_a_symbolic_link(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("mre")
    (tmp_path / "link").symlink_to("exported")
    for _ in range(2):
        assert main(["export", str(run), "-o", str(tmp_path / "link")]) == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "exported" / "config.json").is_file()
