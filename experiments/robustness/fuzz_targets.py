"""Fuzz targets: data sets, images, configurations and runs, and those of `extraction_targets`."""

from __future__ import annotations

import base64
import io
import itertools
import json
import pickle
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import torch
import yaml
from optuna.trial import TrialState
from PIL import Image
from safetensors.numpy import save

from experiments.robustness.extraction_targets import extraction_targets
from experiments.robustness.mutations import bomb
from experiments.robustness.target import Target, check, plain, structured
from mmib.analysis.comparison import compare
from mmib.analysis.report.evidence import read_latents
from mmib.configs import expand_configs, shipped_experiments
from mmib.crop_objects.store import CropStore, Settings
from mmib.datamodules.crops import CropFiles, Crops, image_name, read_boxes, row_number
from mmib.datamodules.files import Malformed, inside
from mmib.datamodules.images import MAX_PIXELS, read_image
from mmib.datamodules.labels import label_set
from mmib.datamodules.mnre_files import MNREReader, check_relation_ids
from mmib.datamodules.posts import RelationPost, TaggedPost
from mmib.datamodules.released import MNRE
from mmib.datamodules.twitter_files import TwitterReader
from mmib.datamodules.words import tokenize
from mmib.labels import LabelSet
from mmib.runs.reader import FinishedRun, read_run
from mmib.schema import InputError, Post
from mmib.search.study_file import read_study_file
from mmib.search.sweep.file import read_sweep
from mmib.search.sweep.journal import open_study, reading
from mmib.serve.limits import Limits
from mmib.serve.messages import PostRequest, question, wanted_of
from mmib.serve.receive import RefusedError, read_form, read_json
from mmib.tagging import count_mentions, repair, split_tag

ROOT = Path(__file__).parents[2]
optuna.logging.set_verbosity(optuna.logging.ERROR)
# Folder that a pickle creates if it is executed.
EXECUTED = "executed"


# MNRE


def _row(**changes: Any) -> dict[str, Any]:
    return {
        "token": ["RT", "@x", ":", "Anna", "met", "Bob", "\ufe0f", "\u2028", "'s"],
        "h": {"name": "Anna", "pos": [3, 4]},
        "t": {"name": "Bob", "pos": (5, 6)},
        "img_id": "a.jpg",
        "relation": MNRE.names[5],
        **changes,
    }


def _write_rows(rows: list[Any]) -> bytes:
    return "\n".join(map(repr, _items(rows))).encode("utf-8", "surrogatepass")


def _read_rows(folder: Path) -> None:
    for post in _well_formed(MNREReader(folder).scan("train"), RelationPost):
        for start, end in (post.head, post.tail):
            check(0 <= start < end <= len(post.words), f"the span {start}, {end} of {post.words}")
        check(bool(post.relation.strip()), f"the relation {post.relation!r}")
        "".join((*post.words, post.image, post.relation)).encode()
        _check_inside(folder, post)


def _well_formed(rows: Any, kind: type) -> Any:
    """Return the rows that can be read; each of the others must be a typed error with its location."""
    for row in rows:
        if isinstance(row, Malformed):
            check(re.search(r"\.txt:\d", str(row.error)) is not None, f"no place in {row.error}")
        else:
            check(isinstance(row, kind), f"a {type(row).__name__}")
            yield row


def _check_inside(folder: Path, post: Post) -> None:
    if post.image:
        file = inside(folder, post.image, post.place)
        check(folder in file.resolve().parents, f"{post.image!r} leads out of the folder")


# Twitter


_TWEETS = (
    "IMGID:17_06_1\nRT\tO\n@x\tO\nAnna\tB-PER\nSmith\tI-PER\nin\tO\nParis\tB-LOC\n\ufe0f\tO\n\nIMGID:2\nbob\tI-OTHER\n",
    "IMGID:a b\r\n\u00a0\tO\r\n\u2028\tB-ORG\r\nIMGID:\tO\r\n\r\n",
)


def _read_posts(folder: Path) -> None:
    for post in _well_formed(TwitterReader(folder, 2017).scan("train"), TaggedPost):
        check(len(post.words) == len(post.tags) > 0, f"{len(post.words)} words, {len(post.tags)} tags")
        parts = [split_tag(tag) for tag in post.tags]
        check(all(prefix == "O" or (prefix in "BI" and name) for prefix, name in parts), f"{post.tags}")
        check(all(post.words), f"{post.words}")
        mended = repair(post.tags)
        before = ["O", *mended[:-1]]
        stray = any(tag[:2] == "I-" and last[2:] != tag[2:] for last, tag in zip(before, mended, strict=True))
        check(not stray, f"{post.tags} are mended to {mended}")
        check(max(count_mentions(mended)) == sum(tag.startswith("B-") for tag in mended), f"mentions of {mended}")
        _check_inside(folder, post)


# Crops


class Exploit:
    """A pickle that creates a folder if it is executed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return exec, (f"import os; os.mkdir({self.folder!r})",)


def _crop_trees(keys: tuple[Any, Any]) -> list[Any]:
    return [{keys[0]: ["a.jpg", "b.jpg"], keys[1]: []}, {key: [f"{key}.jpg"] for key in keys}]


def _write_dictionary(tree: Any) -> bytes:
    """Write a dictionary in one of the formats that such files have in practice."""
    rng = random.Random(repr(tree))
    buffer = io.BytesIO()
    kind = rng.randrange(6)
    if kind == 5:
        tree = {0: ["a.jpg"], "x": Exploit(EXECUTED)}
    if kind in (0, 5):
        torch.save(tree, buffer, _use_new_zipfile_serialization=False)
    elif kind == 1:
        return pickle.dumps(tree, protocol=rng.choice((0, 1, 2, 4)))
    else:
        torch.save(tree, buffer)
    return buffer.getvalue()


def _dictionary_target(keys: tuple[Any, Any], parse_key: Callable[[object], Any]) -> Target:
    def read(folder: Path) -> None:
        files = CropFiles(folder / "crops.pth", folder)
        crops = Crops.listed(files, parse_key)
        check(not Path(EXECUTED).exists(), "the pickle was executed")
        for key in crops.names:
            check(parse_key(key) == key, f"the key {key!r}")
            for picture in crops.pictures(key, 4):
                check(files.crops in picture.file.parents, f"{picture.file} is outside")

    def sound(rng: random.Random) -> bytes:
        buffer = io.BytesIO()
        torch.save(rng.choice(_crop_trees(keys)), buffer)
        return buffer.getvalue()

    hostile = structured("crops.pth", _crop_trees(keys), _write_dictionary, read)
    return Target("crops.pth", sound, hostile.mutated, read)


def _read_boxes(folder: Path) -> None:
    for name, (x0, y0, x1, y1) in read_boxes(folder / "boxes.json").items():
        check(0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1, f"the box of {name!r}")


def _read_relation_ids(folder: Path) -> None:
    check_relation_ids(folder / "ours_rel2id.json", MNRE)


# Label sets


_LABELS = LabelSet(("no relation", "a-b", "/per/per/c"), "no relation", {"a-b": ("PER", "ORG")})


def _ids(labels: LabelSet) -> dict[str, int]:
    return {name: number for number, name in enumerate(labels.names)}


def _read_labels(folder: Path) -> None:
    (file,) = folder.iterdir()
    labels = label_set(str(file))
    check(len(set(labels.names)) == len(labels) > 0, f"{labels}")
    check(all(isinstance(name, str) and name.strip() for name in labels.names), f"{labels}")
    check(label_set(labels.to_dict()) == labels, f"{labels}")


_SETTINGS = Settings("a/detector", None, "nouns", 3, "png")
_OBJECT = {"crop": "a-0.png", "box": [0, 0, 0.5, 1], "score": 0.5, "phrase": "dog"}
_RECORD = {
    "settings": {"detector": "a/detector", "threshold": None, "phrases": "nouns", "objects": 3, "format": "png"},
    "images": {"a-1": {"image": "a.jpg", "phrases": ["dog"], "objects": [_OBJECT], "failure": None}},
}


def _read_record(folder: Path) -> None:
    store = CropStore(CropFiles(folder / "crops.pth", folder), _SETTINGS)
    for result in store.results.values():
        check(all(Path(one["crop"]).name == one["crop"] for one in result["objects"]), f"{result}")


# Images


_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "SGI", "DDS", "MPO")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr")


def _image(rng: random.Random) -> bytes:
    """Generate a small image with a random format and a mode that the format supports."""
    while True:
        mode, size = rng.choice(_MODES), (rng.randint(1, 40), rng.randint(1, 40))
        buffer = io.BytesIO()
        options: dict[str, Any] = {}
        if rng.random() < 0.2:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = rng.randint(1, 9)
        image = Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).convert("L" if mode == "I;16" else mode)
        try:
            (image.convert("I;16") if mode == "I;16" else image).save(buffer, rng.choice(_FORMATS), **options)
        except (OSError, ValueError, TypeError, KeyError, SystemError):
            continue
        return buffer.getvalue()


def _read_image(folder: Path) -> None:
    image = read_image(folder / "image.jpg")
    check(image.mode == "RGB" and 0 < image.width * image.height <= MAX_PIXELS, f"{image.mode} {image.size}")
    check(len(image.tobytes()) == 3 * image.width * image.height, "too few pixels")


# Configurations


def _yaml(tree: Any) -> bytes:
    return yaml.dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def _yaml_files(pattern: str) -> list[Any]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob(pattern))]


def _with_bombs(target: Target, trees: list[Any]) -> Target:
    """Occasionally replace a value by one that no message may write out in full."""

    def mutated(rng: random.Random) -> bytes:
        if rng.random() > 0.05:
            return target.mutated(rng)
        tree = json.loads(json.dumps(rng.choice(trees), default=str))
        tree[rng.choice(list(tree))] = bomb()
        return yaml.dump(tree).encode()

    return Target(target.file, target.sound, mutated, target.read)


def _yaml_target(file: str, trees: list[Any], read: Callable[[Path], object]) -> Target:
    return _with_bombs(structured(file, trees, _yaml, read), trees)


def _read_config(folder: Path) -> None:
    expanded = expand_configs(["fit", "--config", str(folder / "config.yaml")])
    check(expanded[0] == "fit" and expanded[-1].endswith("config.yaml"), f"{expanded}")
    named = [path for option, path in itertools.pairwise(expanded) if option == "--config"]
    check(all(Path(path).is_file() for path in named), f"{expanded}")


def _read_study_file(folder: Path) -> None:
    study = read_study_file(folder / "study.yaml")
    for trial in itertools.islice(study.trials(), 20):
        check(trial.levels.keys() == study.factors.keys(), f"{trial}")
        command = trial.command(study.experiments[0], study.seeds[0])
        check(all(isinstance(option, str) for option in command), f"{command}")


class Suggestions:
    """Stand-in for an Optuna trial that suggests values at a fixed position between both ends.

    Args:
        place: position, from 0 for the lower end to 1 for the upper end.
    """

    def __init__(self, place: float) -> None:
        self.place = place

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return the number at the position."""
        return (1 - self.place) * low + self.place * high

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return the integer nearest to the position."""
        return round(self.suggest_float(name, low, high))

    def suggest_categorical(self, name: str, choices: Sequence[int]) -> int:
        """Return the choice nearest to the position."""
        return choices[self.suggest_int(name, 0, len(choices) - 1)]


def _read_sweep(folder: Path) -> None:
    sweep = read_sweep(folder / "sweep.yaml")
    check(len(sweep.digest) == 16 and bool(sweep.parameters), f"{sweep}")
    check(sweep.trials(None) > 0, f"{sweep} has no trials")
    for place in (0.0, 0.5, 1.0):
        values = sweep.sample(cast(Any, Suggestions(place)))
        check(len(values) == len(sweep.parameters), f"{values}")


# Runs


_SUMMARY = {
    "task": "mre",
    "experiment": "mre-demo",
    "seed": 1,
    "val": {"f1": 0.5},
    "test": None,
    "selected": {"value": 0.5},
    "data": {"val": {"rows": 2}},
    "versions": {"torch": "2"},
}
_PAIR = {"words": ["Ada", "met", "Bo"], "head": [0, 1], "tail": [2, 3]}
_PREDICTIONS = [
    {"id": 0, "gold": MNRE.names[5], "predicted": MNRE.names[5], "scores": [0.5] * len(MNRE), **_PAIR},
    {"id": 1, "gold": MNRE.names[0], "predicted": MNRE.names[2], "scores": [0.0] * len(MNRE), **_PAIR},
]


def _json(tree: Any) -> bytes:
    return json.dumps(tree, default=str, skipkeys=True).encode()


def _json_lines(rows: Any) -> bytes:
    return b"\n".join(map(_json, _items(rows)))


def _read_predictions(folder: Path) -> None:
    run = FinishedRun(folder, _SUMMARY)
    records = run.predictions("val")
    check(all({"id", "predicted"} <= record.keys() for record in records), f"{records}")
    score = compare({"a": [run]}, "val", "f1", resamples=20).rows[0].mean
    check(0 <= score <= 1, f"the score {score}")


_METRICS = (b"epoch,step,train/loss,val/f1\r\n0,1,2.5,\r\n0,2,,0.5\r\n", b'epoch,step\n0,1\n"a\nb",2\n')


def _read_metrics(folder: Path) -> None:
    for row in FinishedRun(folder, _SUMMARY).metrics():
        check(all(isinstance(name, str) and isinstance(value, str) and value for name, value in row.items()), f"{row}")


def _latents(rng: random.Random) -> bytes:
    drawn = np.frombuffer(rng.randbytes(2 * 5 * 4), dtype=np.uint8).reshape(2, 5, 4).astype(np.float16)
    known = {"rows": np.arange(5), "image_ids": np.arange(5) // 2, "labels": np.eye(5, 2, dtype=bool)}
    return save({"text": drawn[0], "image": drawn[1], **known})


def _read_latents(folder: Path) -> None:
    space = read_latents(folder / "start.safetensors", ("PER", "LOC"))
    check(space is None or len(space.text) == len(space.image), f"{space}")


def _read_summary(folder: Path) -> None:
    run = read_run(folder)
    check(isinstance(run.name, str) and run.trained in (True, False), f"{run}")


def _journal() -> list[Any]:
    """Journal that Optuna wrote for a sweep with a finished, a failed and a running trial."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.log"
        study = open_study(journal, "sweep", "maximize")
        for value in (0.5, None):
            trial = study.ask()
            trial.suggest_float("beta", 0, 1)
            trial.set_user_attr("record", {"values": {"beta": 0.5}})
            study.tell(trial, value, state=None if value else TrialState.FAIL)
        study.ask()
        return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def _journal_lines(rows: Any) -> bytes:
    return _json_lines(rows) + b"\n"


def _read_journal(folder: Path) -> None:
    journal = folder / "journal.log"
    with reading(journal):
        study = open_study(journal, "sweep", "maximize")
        states = [trial.state for trial in study.trials]
    check(all(isinstance(state, TrialState) for state in states), f"{states}")


# Bodies of HTTP requests


_LIMITS = Limits()
_MEDIA = "multipart/form-data; boundary=x"
_FIELD = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
_POST = {"text": "Ada met Bob", "entities": [{"start": 0, "end": 3, "type": "PER"}], "samples": 2, "evidence": True}


def _picture() -> bytes:
    """Generate a PNG file."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((9, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _form(rng: random.Random) -> bytes:
    fields = [_FIELD % (name.encode(), b"", json.dumps(value).encode()) for name, value in _POST.items()]
    image = _FIELD % (b"image", b'; filename="a.png"', _picture())
    rng.shuffle(fields)
    return b"".join([*fields, image]) + b"--x--\r\n"


def _refused_or(read: Callable[[], object]) -> None:
    """Convert a refusal of the service, which has a status and a reason, to a typed error."""
    try:
        read()
    except RefusedError as error:
        check(400 <= error.status < 500, f"status {error.status}")
        raise InputError(str(error)) from error


def _read_body(folder: Path) -> None:
    body = (folder / "body").read_bytes()

    def read() -> None:
        message = read_json(PostRequest, body)
        asked = question(message, wanted_of(message, _LIMITS), _LIMITS)
        check(len(asked.post.text) <= _LIMITS.characters and asked.pixels <= _LIMITS.pixels, f"{asked}")
        tokens = tokenize(asked.post.text)
        check(all(asked.post.text[token.start : token.end] == token.text for token in tokens), f"{tokens}")

    _refused_or(read)


def _read_form(folder: Path) -> None:
    body = (folder / "body").read_bytes()

    def read() -> None:
        message = read_form(_MEDIA, body)
        asked = question(message, wanted_of(message, _LIMITS), _LIMITS)
        check(len(asked.post.text) <= _LIMITS.characters and asked.pixels <= _LIMITS.pixels, f"{asked}")

    _refused_or(read)


def targets() -> dict[str, Target]:
    """Return all targets, by name."""
    experiments = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in shipped_experiments()]
    studies = [file for file in _yaml_files("experiments/ablations/*.yaml") if "factors" in file]
    sweeps = _yaml_files("experiments/sweeps/*.yaml")
    rows = [[_row(), _row(relation="None")], [_row(h={"name": "", "pos": [0, 9]})]]
    return {
        "MNRE rows": structured("txt/ours_train.txt", rows, _write_rows, _read_rows),
        "MNRE relation ids": structured("ours_rel2id.json", [_ids(MNRE)], _json, _read_relation_ids),
        "labels in JSON": structured("labels.json", [_ids(_LABELS), _LABELS.to_dict()], _json, _read_labels),
        "labels in YAML": structured("labels.yaml", [list(_LABELS.names), _LABELS.to_dict()], _yaml, _read_labels),
        "labels by line": plain("labels.txt", lambda _: "\n".join(_LABELS.names).encode(), _read_labels),
        "Twitter posts": plain("twitter2017/train.txt", lambda rng: rng.choice(_TWEETS).encode(), _read_posts),
        "crops by row": _dictionary_target((0, "7"), row_number),
        "crops by image": _dictionary_target(("a.jpg", "b.jpg"), image_name),
        "crop boxes": structured(
            "boxes.json", [{"a.jpg": [0, 0, 1, 1], "b.jpg": [0.1, 0.2, 0.5, 0.6]}], _json, _read_boxes
        ),
        "crop record": structured("objects.json", [_RECORD], _json, _read_record),
        "images": plain("image.jpg", _image, _read_image),
        "configurations": _yaml_target("config.yaml", experiments, _read_config),
        "study files": _yaml_target("study.yaml", studies, _read_study_file),
        "sweep files": _yaml_target("sweep.yaml", sweeps, _read_sweep),
        "sweep journals": structured("journal.log", [_journal()], _journal_lines, _read_journal),
        "JSON bodies": structured(
            "body", [_POST, {**_POST, "image": base64.b64encode(_picture()).decode()}], _json, _read_body
        ),
        "form bodies": plain("body", _form, _read_form),
        "predictions": structured("predictions/val.jsonl", [_PREDICTIONS], _json_lines, _read_predictions),
        "run metrics": plain("metrics.csv", lambda rng: rng.choice(_METRICS), _read_metrics),
        "run latents": plain("start.safetensors", _latents, _read_latents),
        "run summaries": structured("summary.json", [_SUMMARY], _json, _read_summary),
        **extraction_targets(),
    }


def _items(tree: Any) -> list[Any]:
    """Items for the lines of a file; a mutation may have replaced the whole list."""
    return tree if isinstance(tree, list) else [tree]
