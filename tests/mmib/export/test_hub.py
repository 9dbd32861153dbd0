"""Exports on a local hub stub: push, pull, use, refusals, and untrusted content."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.utils._http as transport
import pytest
from huggingface_hub import constants

from experiments.robustness.tiny_export import write_tiny_export
from mmib import Extractor
from mmib.cli import main
from mmib.export.folder import CARD, CONFIG, DIGEST, digest_of
from mmib.export.hub import is_hub_name
from mmib.schema import ExportError
from tests.mmib.export.hub_server import TOKEN, Hub, serving

NAME = "ada/found"
TEXT = "anna and bob meets carl in the paris head"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.address)
        # Set permanently in a process that found no network when loading an encoder.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = started.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield started


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("exports") / "export")


@pytest.mark.smoke
def test_a_pushed_export_can_be_loaded_by_name(hub: Hub, export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(export), NAME]) == 0
    assert capsys.readouterr().out == f"{hub.address}/{NAME}\n"
    assert hub.private == {NAME}
    written = {path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()}
    assert hub.models[NAME].keys() == written
    here = Extractor.from_pretrained(export).extract(TEXT).to_dict()
    assert Extractor.from_pretrained(NAME).extract(TEXT).to_dict() == here
    assert Extractor.from_pretrained(f"{NAME}@main").extract(TEXT).to_dict() == here


def test_the_command_downloads_and_caches_a_model(hub: Hub, export: Path, tmp_path: Path) -> None:
    main(["push", str(export), NAME, "--public"])
    assert hub.private == set()
    (tmp_path / "posts.jsonl").write_text(json.dumps({"text": TEXT}) + "\n", encoding="utf-8")
    command = ["extract", "--model", NAME, str(tmp_path / "posts.jsonl"), "-o"]
    assert main([*command, str(tmp_path / "one.jsonl")]) == 0
    hub.answer = 503
    assert main([*command, str(tmp_path / "two.jsonl")]) == 0, "the cache has it"
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_an_incomplete_export_is_not_pushed(
    hub: Hub, export: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "no exported model" in refused("push", str(tmp_path / "empty"), NAME)
    assert "write USER/NAME" in refused("push", str(export), "found")
    assert hub.asked == []


def test_a_push_replaces_only_the_files_of_an_export(hub: Hub, export: Path, tmp_path: Path) -> None:
    main(["push", str(export), NAME])
    pushed = dict(hub.models[NAME])
    stale = ("model.onnx", "model.int8.onnx", "crf.json", "mre/config.json", "mre/text_encoder/bpe.codes")
    kept = {".gitattributes": b"", "notes.json": b"", "study/mre/config.json": b"", "mre/plot.onnx": b""}
    hub.models[NAME] |= dict.fromkeys(stale, b"") | kept
    folder = Path(shutil.copytree(export, tmp_path / "copy"))
    for name in ("graph.json", "posts.txt", "text_encoder/notes.txt"):
        (folder / name).write_text("private", encoding="utf-8")
    (folder / CARD).write_text("edited", encoding="utf-8")
    assert main(["push", str(folder), NAME]) == 0
    assert hub.models[NAME] == {**pushed, CARD: b"edited", **kept}


@pytest.mark.parametrize("public", [True, False])
def test_an_existing_model_gets_the_requested_visibility(
    hub: Hub, export: Path, refused: Callable[..., str], public: bool
) -> None:
    hub.models[NAME] = {}
    hub.private = {NAME} if public else set()
    message = refused("push", str(export), NAME, *(["--public"] if public else []))
    assert f"{NAME} exists and is {'private' if public else 'public'}: " in message
    assert hub.models[NAME] == {}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "authentication failed (401)"),
        (403, "access denied (403)"),
        (404, "the model or revision does not exist (404)"),
        (429, "too many requests (429)"),
        (500, "the hub answers 500"),
    ],
)
def test_refusals_of_the_hub_are_one_sentence_errors(
    hub: Hub, export: Path, refused: Callable[..., str], status: int, reason: str
) -> None:
    hub.answer = status
    for command in (["extract", "--model", NAME, "--text", TEXT], ["push", str(export), NAME]):
        message = refused(*command)
        assert reason in message
        assert len(message.strip().splitlines()) == 1


def test_missing_and_private_models_are_refused(
    hub: Hub, export: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(404)" in refused("extract", "--model", "ada/nothing", "--text", TEXT)
    main(["push", str(export), NAME])
    assert "(404)" in refused("extract", "--model", f"{NAME}@v9", "--text", TEXT)
    monkeypatch.delenv("HF_TOKEN")
    assert "(401)" in refused("extract", "--model", NAME, "--text", TEXT)


def test_missing_networks_and_offline_mode_are_reported(
    hub: Hub, export: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # a port where no server listens
    for command in (["extract", "--model", NAME, "--text", TEXT], ["push", str(export), NAME]):
        message = refused(*command)
        assert "the hub cannot be reached" in message
        assert len(message.strip().splitlines()) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for command in (["extract", "--model", NAME, "--text", TEXT], ["push", str(export), NAME]):
        assert "HF_HUB_OFFLINE is set" in refused(*command)


def test_a_mistyped_path_makes_no_request(hub: Hub, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "runs").mkdir()
    for wrong in ("runs/typo", "nowhere", "a/b/c", "../up", "a/b@", "/a/b"):
        assert "there is no model" in refused("extract", "--model", wrong, "--text", TEXT)
    assert hub.asked == []
    assert is_hub_name("user/name")
    assert is_hub_name("user/name@v1.0")


def test_neither_pickles_nor_runs_are_loaded_from_the_hub(hub: Hub, export: Path, tmp_path: Path) -> None:
    main(["push", str(export), NAME])
    hostile = pickle.dumps("hostile")
    names = ("pytorch_model.bin", "checkpoints/best.ckpt", "text_encoder/tokenizer.pkl", "config.yaml", "code.py")
    hub.models[NAME] |= dict.fromkeys(names, hostile)
    Extractor.from_pretrained(NAME)
    held = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert held.isdisjoint(Path(name).name for name in names)
    (snapshot,) = (path.parent for path in (tmp_path / "cache").rglob("snapshots/*/config.json"))
    (snapshot / "config.yaml").write_text("model: {}", encoding="utf-8")  # written by another program
    with pytest.raises(ExportError, match="a run and no export"):
        Extractor.from_pretrained(NAME)


@pytest.mark.parametrize("where", ["weights", "code"])
def test_untrusted_exports_are_checked(hub: Hub, export: Path, where: str) -> None:
    main(["push", str(export), NAME])
    files = hub.models[NAME]
    if where == "weights":
        files["model.safetensors"] = files["model.safetensors"][:-4] + b"\xff\xff\xff\xff"
        match = "damaged"
    else:
        name = "text_encoder/config.json"
        files[name] = json.dumps(json.loads(files[name]) | {"auto_map": {"AutoModel": "evil.Model"}}).encode()
        config: dict[str, Any] = json.loads(files[CONFIG])
        config["files"][name] = {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        config[DIGEST] = digest_of(config)
        files[CONFIG] = json.dumps(config).encode()
        match = "names code to run"
    with pytest.raises(ExportError, match=match):
        Extractor.from_pretrained(NAME)
