"""Exported folders: models round-trip; damaged, edited, untrusted and newer ones are refused."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from mmib import schema
from mmib.cli import main
from mmib.datamodules.released import MNRE, TWITTER
from mmib.export.folder import CONFIG, DIGEST, FORMAT, WEIGHTS, digest_of, files_of, read_export, write_export
from mmib.export.model import TrainedModel, model_of_run, part
from mmib.extract.extractor import Extractor
from mmib.labels import LabelSet
from mmib.nn.fusion import CrossModalFusion, Fusion
from mmib.nn.priors import LearntPrior, Prior, StandardPrior, TextConditionalPrior
from mmib.plugins import import_plugins
from mmib.schema import CheckpointError, ExportError, RunError, TaskError
from mmib.tagging import bio_tags

MakeTrained = Callable[..., TrainedModel]
TEXT = "anna and bob meets carl in the paris head"
both_tasks = pytest.mark.parametrize("task", ["mre", "mner"])
PRODUCTS = LabelSet(("PRODUCT", "TEAM", "work-of-art"))
TRADES = LabelSet(("made by", "no_relation", "plays for"), "no_relation", {"plays for": ("PERSON", "TEAM")})
RELATED = LabelSet(("related", "unrelated"), "unrelated")


@pytest.fixture
def exported(make_trained: MakeTrained, tmp_path: Path) -> Path:
    write_export([make_trained("mner")], tmp_path / "export")
    return tmp_path / "export"


def change(folder: Path, signed: bool = True, **changes: Any) -> Path:
    """Change the description of an export; `signed` also updates its digest, as a program that writes exports would."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    if signed:
        config[DIGEST] = digest_of(config)
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def offline(*_: Any, **__: Any) -> Any:
    pytest.fail("something was asked of a network")


@both_tasks
def test_a_model_round_trips_without_a_network(
    make_trained: MakeTrained, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_trained(task, max_crops=2, max_length=40)
    write_export([model], tmp_path / "export")
    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    (read,) = read_export(tmp_path / "export")
    written, found = model.network.state_dict(), read.network.state_dict()
    assert written.keys() == found.keys()
    assert all(torch.equal(written[name], found[name]) for name in written)
    assert (read.task, read.max_length, read.max_crops) == (task, 40, 2)
    assert not read.network.training
    assert not any(parameter.requires_grad for parameter in read.network.parameters())
    given = [(0, 4, "PER"), (9, 12, "PER")] if task == "mre" else None
    found, expected = (Extractor([one]).extract(TEXT, entities=given, evidence=True) for one in (read, model))
    assert found == expected


def test_images_are_preprocessed_as_in_training(make_trained: MakeTrained, tmp_path: Path) -> None:
    model = make_trained("mner")
    encoder = model.network.backbone.image_encoder
    encoder.preprocess_as(encoder.preprocessing | {"input_size": (3, 48, 48), "crop_pct": 0.5, "mean": (0.1, 0.2, 0.3)})
    write_export([model], tmp_path / "export")
    (read,) = read_export(tmp_path / "export")
    assert read.network.backbone.image_encoder.preprocessing == encoder.preprocessing
    assert read.network.backbone.image_encoder.fingerprint() == encoder.fingerprint()


def test_one_folder_can_contain_a_model_of_each_task(make_trained: MakeTrained, tmp_path: Path) -> None:
    write_export([make_trained("mre"), make_trained("mner")], tmp_path / "both")
    assert [model.task for model in read_export(tmp_path / "both")] == ["mner", "mre"]
    assert [model.task for model in read_export(tmp_path / "both" / "mre")] == ["mre"]
    written = [path.relative_to(tmp_path / "both").as_posix() for path in (tmp_path / "both").rglob("*.*")]
    assert files_of(tmp_path / "both") == sorted(written)
    assert Extractor.from_pretrained(tmp_path / "both").extract(TEXT).entities
    assert Extractor.from_pretrained(tmp_path / "both" / "mre", tmp_path / "both" / "mner").relations


def test_two_models_of_a_task_are_refused(make_trained: MakeTrained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="one model of each task"):
        write_export([make_trained("mre"), make_trained("mre")], tmp_path / "both")
    assert not list(tmp_path.iterdir())


def test_only_exports_are_replaced(exported: Path, make_trained: MakeTrained, tmp_path: Path) -> None:
    write_export([make_trained("mre")], exported)
    assert read_export(exported)[0].task == "mre"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is not an export"):
        write_export([make_trained("mre")], tmp_path / "thesis")
    assert {path.name for path in tmp_path.iterdir()} >= {"export", "thesis"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_export_that_cannot_be_read_again_is_not_created(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmib.export.folder.save", lambda *_, **__: b"no weights")
    with pytest.raises(ExportError):
        write_export([make_trained("mre")], tmp_path / "export")
    assert not list(tmp_path.glob("*export*"))


@pytest.mark.parametrize("name", [WEIGHTS, "text_encoder/config.json"])
def test_a_damaged_file_is_refused(exported: Path, name: str) -> None:
    content = bytearray((exported / name).read_bytes())
    content[len(content) // 2] ^= 1
    (exported / name).write_bytes(content)
    with pytest.raises(ExportError, match="is damaged"):
        read_export(exported)
    (exported / name).unlink()
    with pytest.raises(ExportError, match="is missing"):
        read_export(exported)


def test_a_newer_format_is_refused(exported: Path) -> None:
    with pytest.raises(ExportError, match=rf"format {FORMAT + 1} by mmib 9\.9.*update mmib"):
        read_export(change(exported, format=FORMAT + 1, mmib="9.9"))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"format": "1"},
        {"task": "poetry"},
        {"labels": ["O"]},
        {"labels": {"names": []}},
        {"labels": {"names": ["PER", "LOC", "ORG", "MISC"], "negative": "DOG"}},
        {"labels": "twitter"},
        {"task": ["mner"]},
        {"files": {}},
        {"files": {"../../secret": {}}},
        {"image_encoder": {}},
        {"head": {"threshold": 0.5}},
        {"calibration": {"value": 1, "colour": "red"}},
        {"parts_of_network": {"fusion": "mmib.nn.fusion.Nothing"}},
        {"parts_of_network": {"fusion": "subprocess.Popen"}},
        {"parts": []},
        {"parts": ["../elsewhere"]},
        {"parts": ["nowhere"]},
        {"parts": [5]},
    ],
)
def test_an_invalid_description_is_refused(exported: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((ExportError, TaskError)):
        read_export(change(exported, **changes))


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_broken_description_is_refused(exported: Path, content: str) -> None:
    (exported / CONFIG).write_text(content)
    with pytest.raises(ExportError):
        read_export(exported)


def _swapped(names: list[str]) -> list[str]:
    return [names[1], names[0], *names[2:]]


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: config["labels"].update(names=_swapped(config["labels"]["names"])),
        lambda config: config["labels"]["names"].__setitem__(0, "HUMAN"),
        lambda config: config["labels"].update(negative="MISC"),
        lambda config: config.update(labels=["PER", "LOC", "ORG", "MISC"]),
        lambda config: config["head"].update(constrained=False),
        lambda config: config["calibration"].update(value=0.01),
        lambda config: config.pop(DIGEST),
    ],
    ids=["swapped", "renamed", "negative", "list", "head", "calibration", "unsigned"],
)
def test_an_edited_description_is_refused(exported: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    edit(config)
    (exported / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ExportError, match="was edited after the export: its labels, task or settings have changed"
    ) as error:
        read_export(exported)
    assert str(exported / CONFIG) in str(error.value)


def test_reformatting_a_description_is_not_an_edit(exported: Path) -> None:
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    (exported / CONFIG).write_text(json.dumps(dict(reversed(config.items())), indent=8), encoding="utf-8")
    assert read_export(exported)[0].labels == TWITTER


def test_labels_that_do_not_match_the_weights_are_refused(exported: Path) -> None:
    with pytest.raises(ExportError, match="do not fit its description"):
        read_export(change(exported, labels={"names": ["PER", "LOC"]}))


@pytest.mark.parametrize(("task", "labels"), [("mner", PRODUCTS), ("mre", TRADES), ("mre", LabelSet(TRADES.names))])
def test_a_custom_label_set_is_exported_completely(
    make_trained: MakeTrained, tmp_path: Path, task: str, labels: LabelSet
) -> None:
    write_export([make_trained(task, labels)], tmp_path / "export")
    (read,) = read_export(tmp_path / "export")
    assert read.labels == labels
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert f"| labels | {', '.join(labels.scored)} |" in card
    assert f"| negative class | {labels.negative or 'none: every label counts'} |" in card


def test_relations_incompatible_with_the_entities_are_not_exported_with_them(
    make_trained: MakeTrained, tmp_path: Path
) -> None:
    relations = LabelSet(("None", "lives_in"), "None", {"lives_in": ("PER", "LOC")})
    with pytest.raises(ExportError, match=r"no relation fits the entities: .* hold between PER, LOC: export the runs"):
        write_export([make_trained("mner", PRODUCTS), make_trained("mre", relations)], tmp_path / "export")
    assert not (tmp_path / "export").exists()


# Exports of version 0.1


def before_0_2(folder: Path, names: list[str]) -> Path:
    """The export as written by version 0.1: format 1, the outputs of the head as a list, and no digest."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in (DIGEST, "task_module"):
        del config[key]
    path.write_text(json.dumps(config | {"format": 1, "mmib": "0.1.0", "labels": names}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("task", "labels", "names"), [("mner", TWITTER, list(bio_tags(TWITTER.names))), ("mre", MNRE, list(MNRE.names))]
)
def test_an_export_of_version_0_1_has_the_released_labels(
    make_trained: MakeTrained, tmp_path: Path, task: str, labels: LabelSet, names: list[str]
) -> None:
    model = make_trained(task)
    write_export([model], tmp_path / "export")
    (read,) = read_export(before_0_2(tmp_path / "export", names))
    assert read.labels == labels
    given = [(0, 4, "PER"), (9, 12, "PER")]
    assert Extractor([read]).extract(TEXT, entities=given) == Extractor([model]).extract(TEXT, entities=given)


@pytest.mark.parametrize("names", [["O", "B-DOG", "I-DOG"], _swapped(list(bio_tags(TWITTER.names))), [], None])
def test_an_export_of_version_0_1_with_other_labels_is_refused(exported: Path, names: Any) -> None:
    with pytest.raises(ExportError, match=r"was exported by mmib 0\.1\.0 with other labels .* export its run"):
        read_export(before_0_2(exported, names))


def test_an_edited_export_cannot_be_declared_as_version_0_1(exported: Path) -> None:
    with pytest.raises(ExportError, match="other labels"):
        read_export(change(exported, signed=False, format=1))


# Custom tasks


def test_a_custom_task_is_exported_and_read_if_its_module_was_imported(
    make_trained: MakeTrained, relevance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_plugins([relevance])
    model = make_trained("relevance", RELATED)
    write_export([model, make_trained("mner", PRODUCTS)], tmp_path / "both")
    assert [read.labels for read in read_export(tmp_path / "both")] == [PRODUCTS, RELATED]
    expected = Extractor([model]).extract(TEXT).labels
    assert Extractor.from_pretrained(tmp_path / "both").extract(TEXT).labels == expected
    card = (tmp_path / "both" / "README.md").read_text(encoding="utf-8")
    assert "- image-text-relevance\n" in card
    assert "add `--plugin relevance_plugin`" in card
    monkeypatch.delitem(schema._TASKS, "relevance")
    with pytest.raises(
        TaskError, match=r"both/relevance was made by the task 'relevance', .* --plugin relevance_plugin"
    ):
        read_export(tmp_path / "both")


def test_the_module_named_in_an_export_is_not_imported(
    make_trained: MakeTrained, relevance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_plugins([relevance])
    write_export([make_trained("relevance", RELATED)], tmp_path / "export")
    monkeypatch.delitem(schema._TASKS, "relevance")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("raise SystemExit('code of an export was run')", encoding="utf-8")
    for name in ("trap", "mmib.__main__", "antigravity"):
        with pytest.raises(TaskError, match=f"--plugin {name}"):
            read_export(change(tmp_path / "export", task_module=name))
        assert "trap" not in sys.modules
    with pytest.raises(ExportError, match="parts_of_network is 5, expected an object"):
        read_export(change(tmp_path / "export", task_module=["trap"], parts_of_network=5, task="mner"))


def test_a_description_cannot_import_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('code of an export was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ExportError, match=r"trap\.Fusion, a custom class: add --plugin trap, or in Python import it first"
    ):
        part("trap.Fusion", Fusion, "fusion")
    with pytest.raises(ExportError, match="import it first"):
        part("mmib.__main__.Fusion", Fusion, "fusion")
    with pytest.raises(ExportError, match="is no Fusion"):
        part({"class_path": "mmib.export.folder.Path"}, Fusion, "fusion")
    built = part({"class_path": "mmib.nn.fusion.CrossModalFusion", "init_args": {"heads": 2}}, Fusion, "fusion")(8)
    assert isinstance(built, CrossModalFusion)


# Runs


@both_tasks
def test_a_run_is_exported_with_the_weights_of_its_selected_checkpoint(
    make_run: Callable[..., Path], tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = make_run(task), tmp_path / "exported"
    assert main(["export", str(run), "-o", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    (read,) = read_export(folder)
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in read.network.state_dict().items())
    assert read.network.settings() == ({"threshold": 0.2} if task == "mre" else {"constrained": True})
    assert (read.max_length, read.max_crops, read.temperature.value) == (60, 4, 1.0)
    given = [(0, 4), (9, 12)] if task == "mre" else None
    expected = Extractor.from_pretrained(folder).extract(TEXT, entities=given)
    for source in (run, run / "checkpoints" / "best.ckpt"):
        assert Extractor.from_pretrained(source).extract(TEXT, entities=given) == expected


def test_a_run_with_custom_labels_is_exported_with_them(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run, folder = make_run("mner", labels=PRODUCTS), tmp_path / "exported"
    assert main(["export", str(run), "-o", str(folder)]) == 0
    assert read_export(folder)[0].labels == PRODUCTS
    assert Extractor.from_pretrained(run).extract(TEXT) == Extractor.from_pretrained(folder).extract(TEXT)


@pytest.mark.parametrize("prior", [StandardPrior, LearntPrior, TextConditionalPrior])
def test_a_run_is_exported_with_the_priors_that_rates_refer_to(
    make_run: Callable[..., Path], tmp_path: Path, prior: type[Prior]
) -> None:
    named = {"class_path": f"{prior.__module__}.{prior.__name__}"}
    run = make_run("mner", parts={"image_prior": named} | ({} if prior.needs_text else {"text_prior": named}))
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    learnt = [name for name in content["state_dict"] if "_prior." in name]
    for name in learnt:
        content["state_dict"][name] += 0.5
    torch.save(content, path)
    write_export([model_of_run(run)], tmp_path / "exported")
    (read,) = read_export(tmp_path / "exported")
    assert all(torch.equal(content["state_dict"][name], read.network.state_dict()[name]) for name in learnt)
    found, expected = (
        Extractor.from_pretrained(source).extract(TEXT, evidence=True) for source in (tmp_path / "exported", run)
    )
    assert found == expected


def test_an_encoder_may_be_given_as_in_python_and_a_custom_one_is_refused(make_run: Callable[..., Path]) -> None:
    run = make_run("mner")
    config = (run / "config.yaml").read_text(encoding="utf-8")
    for name in ("text.TextEncoder", "image.ImageEncoder"):
        config = config.replace(f"mmib.encoders.{name}", f"mmib.{name.partition('.')[2]}")
    (run / "config.yaml").write_text(config, encoding="utf-8")
    assert model_of_run(run).task == "mner"
    (run / "config.yaml").write_text(config.replace("mmib.TextEncoder", "custom.TextEncoder"), encoding="utf-8")
    with pytest.raises(ExportError, match=r"custom\.TextEncoder is a custom class"):
        model_of_run(run)


def test_weights_of_additional_loss_terms_are_not_exported(make_run: Callable[..., Path]) -> None:
    path = make_run("mner") / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"]["regularizers.0.weight"] = torch.ones(3)
    torch.save(content, path)
    assert "regularizers.0.weight" not in model_of_run(path.parent.parent).network.state_dict()


def test_an_image_encoder_is_built_with_the_arguments_of_its_run(make_run: Callable[..., Path]) -> None:
    run = make_run("mner")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    encoder = config["model"]["init_args"]["backbone"]["init_args"]["image_encoder"]["init_args"]
    encoder["model_args"] = {"drop_rate": 0.5}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert model_of_run(run).network.backbone.image_encoder.model_args == {"drop_rate": 0.5}


def test_a_checkpoint_with_labels_other_than_its_runs_is_refused(make_run: Callable[..., Path]) -> None:
    run = make_run("mner", labels=PRODUCTS)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    other = LabelSet(("TEAM", "PRODUCT", "work-of-art"))
    (run / "summary.json").write_text(json.dumps(summary | {"labels": other.to_dict()}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"was trained on other labels .* in another order"):
        model_of_run(run)


def test_a_run_of_a_custom_task_is_exported_with_its_plugin(
    make_run: Callable[..., Path], relevance: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    import_plugins([relevance])
    run, folder = make_run("relevance", labels=RELATED), tmp_path / "exported"
    assert main(["export", str(run), "-o", str(folder), "--plugin", relevance]) == 0
    assert [model.task for model in read_export(folder)] == ["relevance"]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    (run / "summary.json").write_text(json.dumps(summary | {"plugins": [relevance]}), encoding="utf-8")
    del schema._TASKS["relevance"]
    assert f"--plugin {relevance}" in refused("export", str(run), "-o", str(folder))
    assert "'nowhere_plugin' was not found" in refused("export", str(run), "--plugin", "nowhere_plugin")


def test_damaged_predictions_are_refused(make_run: Callable[..., Path]) -> None:
    run = make_run(
        "mre", predictions=[{"id": 0, "gold": "None", "predicted": "/dog/dog/barks_at", "scores": [0.0] * 23}]
    )
    with pytest.raises(RunError, match=r"val\.jsonl has an invalid prediction \(ValueError: '/dog/dog/barks_at'"):
        model_of_run(run)


def test_an_export_contains_no_paths_of_this_machine(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("mre"), make_run("mner", "other")]
    summary = json.loads((runs[0] / "summary.json").read_text(encoding="utf-8"))
    summary["data"]["train"]["lexicon"] = str(runs[0] / "words.txt")  # a setting of a custom reader
    (runs[0] / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    write_export(list(map(model_of_run, runs)), tmp_path / "exported")
    for path in (tmp_path / "exported").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"somebody" not in content, path
            assert str(tmp_path.parent).encode() not in content, path


def test_the_card_lists_scores_data_settings_and_limits(make_run: Callable[..., Path], tmp_path: Path) -> None:
    write_export([model_of_run(make_run("mre"))], tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(front)["library_name"] == "mmib"
    read = ModelCard.load(tmp_path / "exported" / "README.md").data  # as read by the Hub
    assert read.pipeline_tag == "text-classification"
    assert [(found.metric_type, found.metric_value) for found in read.eval_results] == [
        ("precision", 0.5),
        ("recall", 0.25),
        ("f1", 0.3333),
    ]
    one = read.eval_results[0]
    assert (one.task_type, one.task_name) == ("text-classification", "relation extraction")
    assert (one.dataset_type, one.dataset_name, one.dataset_split) == ("drawn", "drawn", "validation")
    assert one.metric_args == {"seeds": 1, "seed": 7}
    for line in (
        "| val | 0.5000 | 0.2500 | 0.3333 |  |",
        "Validation: only 40 gold items, 2.5 points each: too few to compare models.",
        "| train | 3 | 0123456789abcdef |",
        "| gamma | 1.0 |",
        "| optimizer.lr | 0.001 |",
        "| experiment, seed | tiny, 7 |",
        "## Limits",
        "## Licence",
    ):
        assert line in body


def test_the_temperature_is_fitted_on_validation(make_run: Callable[..., Path]) -> None:
    """Half of the confident predictions are wrong: the temperature must reduce their confidence accordingly."""
    logits = [8.0 if number == 1 else 0.0 for number in range(len(MNRE))]
    records = [
        {"id": row, "gold": MNRE.names[1 + row % 2], "predicted": MNRE.names[1], "scores": logits} for row in range(40)
    ]
    temperature = model_of_run(make_run("mre", predictions=records)).temperature
    assert temperature.count == 40
    assert temperature.value > 1.5
    assert temperature.error_after is not None
    assert temperature.error_before is not None
    assert temperature.error_after < temperature.error_before


def test_unfinished_runs_are_refused(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no finished run below runs/" in refused("export")
    run = make_run("mre")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="is damaged"):
        model_of_run(run)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        model_of_run(run, run / "checkpoints" / "other.ckpt")
    (run / "config.yaml").write_text("model: 5")
    with pytest.raises(ExportError, match="describes no model"):
        model_of_run(run)
    (run / "summary.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        model_of_run(run)
