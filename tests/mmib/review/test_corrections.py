"""Corrections on disk: complete after each edit, usable for training, and only of matching posts."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from starlette.testclient import TestClient

from mmib.cli import main
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.split_files import HoldOut
from mmib.review.app import create_app
from mmib.review.corrections import Corrections
from mmib.review.predictions import Annotation, Entity, read_predictions
from mmib.schema import ConfigError, DataError
from mmib.serve.guard import allowed_hosts
from tests.mmib.review.conftest import LABELS, TEXT, WORDS, MakePredictions


@contextmanager
def reviewing(path: Path, output: Path) -> Iterator[TestClient]:
    """A client of the page's service."""
    predictions = read_predictions(path)
    with Corrections.opened(output, predictions, [path]) as corrections:
        yield TestClient(create_app(corrections, predictions.root, None))


def confirm(client: TestClient, row: int, **changes: object) -> int:
    """Save a post unchanged except for `changes`."""
    post = client.get(f"/api/posts/{row}").json()
    entities = [{key: entity[key] for key in ("start", "end", "type")} for entity in post["entities"]]
    relations = [{key: link[key] for key in ("head", "tail", "type")} for link in post["relations"]]
    annotation = {"entities": entities, "relations": relations}
    content = {"version": post["version"], "text": post["text"], **annotation, **changes}
    return client.put(f"/api/posts/{row}", json=content).status_code


@pytest.mark.parametrize("task", ["mner", "mre"])
def test_corrections_can_be_read_by_training_and_other_tools(
    make_predictions: MakePredictions, tmp_path: Path, task: str
) -> None:
    output = tmp_path / "new" / "train.jsonl"
    with reviewing(make_predictions(task), output) as client:
        rows = [post["row"] for post in client.get("/api/review").json()["posts"]]
        for row in rows:
            assert confirm(client, row) == 200
    reader = JSONLinesReader(output, task, LABELS[task], images=tmp_path / "data", hold_out=HoldOut(0, 0, 0))
    posts = list(reader.scan("train"))
    assert posts[0].words == WORDS
    assert reader.image_folder("train") / posts[0].image == tmp_path / "data" / "0.png"
    if task == "mner":
        assert [post.tags for post in posts] == [["O", "B-PERSON", "I-PERSON", "O", "B-TEAM", "O"]] * 3
    else:
        found = [(post.head, post.tail, post.relation) for post in posts]
        assert found[:2] == [((1, 3), (4, 6), "plays_for"), ((4, 6), (1, 3), "none")]
    for tool in ("label-studio", "doccano"):
        again = tmp_path / f"{tool}.again.jsonl"
        assert main(["convert", str(output), "--to", tool, "-o", str(tmp_path / tool)]) == 0
        assert main(["convert", str(tmp_path / tool), "--from", tool, "-o", str(again)]) == 0 or tool == "label-studio"
    kept = [json.loads(line) for line in again.read_text(encoding="utf-8").splitlines()]
    assert [len(line["entities"]) for line in kept] == [2] * len(rows)


def test_each_correction_is_on_disk_at_once_and_can_be_undone(
    make_predictions: MakePredictions, tmp_path: Path
) -> None:
    path, output = make_predictions("mner"), tmp_path / "corrections.jsonl"
    team = [{"start": 21, "end": 31, "type": "TEAM"}]
    with reviewing(path, output) as client:
        assert confirm(client, 2) == 200
        assert confirm(client, 0, entities=team) == 200
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert [line["row"] for line in lines] == [0, 2]
        assert lines[0]["entities"] == [{"start": 4, "end": 6, "type": "TEAM"}]
    with reviewing(path, output) as client:
        assert [post["reviewed"] for post in client.get("/api/review").json()["posts"]] == [False, True, True]
        assert [entity["type"] for entity in client.get("/api/posts/0").json()["entities"]] == ["TEAM"]
        assert client.put("/api/posts/0", json={"version": 0, "text": TEXT}).status_code == 200
        assert len(output.read_text(encoding="utf-8").splitlines()) == 1
        assert len(client.get("/api/posts/0").json()["entities"]) == 2


def test_nested_entities_keep_the_evidence_of_their_own_relations(
    make_predictions: MakePredictions, tmp_path: Path
) -> None:
    """Ada and Ada Lovelace both play for Foo United, and start at the same word."""
    path, output = make_predictions("mre"), tmp_path / "corrections.jsonl"
    first, *others = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    nested = {**first, "id": 9, "head": [1, 2], "attention": [[0.9, 0.1], [0.7, 0.3]]}
    path.write_text("".join(json.dumps(record) + "\n" for record in (first, nested, *others)), encoding="utf-8")
    with reviewing(path, output) as client:
        before = [link["evidence"] for link in client.get("/api/posts/0").json()["relations"]]
        assert before[0] != before[1]
        assert confirm(client, 0) == 200
    with reviewing(path, output) as client:
        assert [link["evidence"] for link in client.get("/api/posts/0").json()["relations"]] == before


def test_a_post_saved_elsewhere_is_not_silently_overwritten(make_predictions: MakePredictions, tmp_path: Path) -> None:
    output = tmp_path / "corrections.jsonl"
    with reviewing(make_predictions("mner"), output) as client:
        assert confirm(client, 1, entities=[]) == 200
        assert confirm(client, 1, version=0) == 409
        assert json.loads(output.read_text(encoding="utf-8"))["entities"] == []
        assert confirm(client, 1) == 200
        assert confirm(client, 2, text="of other predictions") == 409
        before = output.read_text(encoding="utf-8")
        output.write_text(before + "\n", encoding="utf-8")
        post = client.put("/api/posts/1", json={"version": 2, "text": TEXT, "entities": []})
        assert (post.status_code, "changed by another program" in post.text) == (409, True)
        assert output.read_text(encoding="utf-8") == before + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entities": [{"start": 0, "end": 1, "type": "OTHER"}]}, "not one of the labels"),
        ({"entities": [{"start": 3, "end": 5, "type": "TEAM"}]}, "whole words"),
        ({"relations": [{"head": 0, "tail": 1, "type": "leaves"}]}, "not one of the labels"),
        ({"entities": [{"start": 5, "end": 2, "type": "TEAM"}]}, "whole words"),
    ],
)
def test_corrections_that_cannot_be_trained_on_are_refused(
    make_predictions: MakePredictions, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    output = tmp_path / "corrections.jsonl"
    with reviewing(make_predictions("mner"), output) as client:
        answer = client.put("/api/posts/0", json={"version": 0, "text": TEXT, "entities": [], **change})
        assert (answer.status_code, message in answer.json()["error"]) == (422, True)
        assert client.put("/api/posts/9", json={"version": 0, "text": TEXT, "entities": []}).status_code == 404
        assert not output.exists()


def test_corrections_of_other_posts_or_in_use_are_refused(
    make_predictions: MakePredictions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = make_predictions("mner"), tmp_path / "corrections.jsonl"
    with reviewing(path, output) as client:
        confirm(client, 2)
        assert main(["review", str(path), "-o", str(output), "--port", "0"]) == 2
        assert "another mmib review has" in capsys.readouterr().err
    before = output.read_bytes()
    other = make_predictions("mre")
    with pytest.raises(DataError, match="of another data set"), reviewing(other, output):
        pass
    assert output.read_bytes() == before
    with pytest.raises(ConfigError, match="is the input"), reviewing(path, path):
        pass


@pytest.mark.parametrize(("entities", "fault"), [(True, "the label PERSON"), (False, "no entities to relate")])
def test_corrections_of_another_task_for_the_same_posts_are_refused(
    make_predictions: MakePredictions, tmp_path: Path, entities: bool, fault: str
) -> None:
    """Their relations, which nobody looked at, would be taken for reviewed."""
    output = tmp_path / "corrections.jsonl"
    with reviewing(make_predictions("mner"), output) as client:
        found = client.get("/api/posts/0").json()["entities"] if entities else []
        given = [{name: entity[name] for name in ("start", "end", "type")} for entity in found]
        assert client.put("/api/posts/0", json={"version": 0, "text": TEXT, "entities": given}).status_code == 200
    before = output.read_bytes()
    with pytest.raises(DataError, match=rf"corrections\.jsonl, line 1 corrects other predictions .*, it has {fault}: "):
        Corrections(output, read_predictions(make_predictions("mre")))
    assert output.read_bytes() == before


def test_two_corrections_of_one_post_are_refused(make_predictions: MakePredictions, tmp_path: Path) -> None:
    path, output = make_predictions("mner"), tmp_path / "corrections.jsonl"
    with reviewing(path, output) as client:
        confirm(client, 2)
    output.write_bytes(output.read_bytes() * 2)
    with pytest.raises(DataError, match=r"corrections\.jsonl, line 2 is a second correction of row 2"):
        Corrections(output, read_predictions(path))


def test_corrections_add_newly_known_images_and_keep_earlier_ones(extracted: Path) -> None:
    posts, output = extracted.with_name("posts.jsonl"), extracted.with_name("corrections.jsonl")
    team = Annotation([Entity(11, 19, "TEAM")])
    for source, seen in ((None, ""), (posts, "ada.png"), (None, "ada.png")):
        with Corrections.opened(output, read_predictions(extracted, posts=source), []) as corrections:
            assert corrections.post(2).image == seen
            corrections.save(1, Annotation(), corrections.version(1))  # of another post
            if source is None:
                corrections.save(2, team, corrections.version(2))
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert [line.get("image", "") for line in lines] == ["", seen]
        assert list(lines[1]) == ["row", "id", "text", *(["image"] if seen else []), "entities", "relations"]
    changed = output.read_text(encoding="utf-8").replace("Ada joined", "Eve joined")
    output.write_text(changed, encoding="utf-8")
    with pytest.raises(DataError, match="of another data set"):
        Corrections(output, read_predictions(extracted, posts=posts))


def _save_until_killed(path: Path, output: Path) -> None:
    predictions = read_predictions(path)
    with Corrections.opened(output, predictions, []) as corrections:
        for version in range(10_000):
            corrections.save(version % 3, Annotation([Entity(0, 1, "TEAM")]), corrections.version(version % 3))


def test_killing_the_process_leaves_a_complete_file_and_no_lock(
    make_predictions: MakePredictions, tmp_path: Path
) -> None:
    path, output = make_predictions("mner"), tmp_path / "corrections.jsonl"
    process = multiprocessing.get_context("fork").Process(target=_save_until_killed, args=(path, output))
    process.start()
    while not (output.exists() and len(output.read_text(encoding="utf-8").splitlines()) == 3):
        assert process.is_alive()
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with reviewing(path, output) as client:
        assert all(post["reviewed"] for post in client.get("/api/review").json()["posts"])


def test_only_this_machine_and_this_page_may_send_requests(make_predictions: MakePredictions, tmp_path: Path) -> None:
    predictions = read_predictions(make_predictions("mner"))
    corrections = Corrections(tmp_path / "corrections.jsonl", predictions)
    client = TestClient(
        create_app(corrections, predictions.root, allowed_hosts("127.0.0.1")), base_url="http://localhost"
    )
    content = {"version": 0, "text": TEXT, "entities": []}
    assert client.get("/api/review").status_code == 200
    assert client.get("/api/review", headers={"Host": "elsewhere.example"}).status_code == 421
    other = {"Origin": "http://elsewhere.example"}
    assert client.put("/api/posts/0", json=content, headers=other).status_code == 403
    assert client.get("/api/posts/0/image").headers["content-type"] == "image/webp"
    (tmp_path / "data" / "0.png").unlink()
    assert client.get("/api/posts/0/image").status_code == 404


def test_the_command_serves_until_interrupted_and_reports_progress(
    make_predictions: MakePredictions, tmp_path: Path
) -> None:
    path, output = make_predictions("mner"), tmp_path / "corrections.jsonl"
    command = [sys.executable, "-m", "mmib", "review", str(path), "-o", str(output), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = process.stderr.readline()
        address = line.split(" at ")[1].split()[0]
        assert line.startswith("mmib review shows 3 posts at http://127.0.0.1:")
        content = json.dumps({"version": 0, "text": TEXT, "entities": []}).encode()
        request = Request(f"{address}/api/posts/1", content, {"Content-Type": "application/json"}, method="PUT")
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer) == {"version": 1}
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed.strip() == f"{output}: 1 of 3 posts reviewed"
