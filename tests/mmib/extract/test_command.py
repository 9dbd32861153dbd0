"""`mmib extract`: ordered rows, reported errors, resumption, and graphs."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import networkx
import pytest
import rdflib
from PIL import Image

from mmib import schema
from mmib.cli import main
from mmib.datamodules.raw_rows import LONGEST
from mmib.export.folder import write_export
from mmib.export.model import TrainedModel
from mmib.extract import stream
from mmib.extract.extractor import Extractor
from mmib.extract.graph import merged, write_graph
from mmib.extract.rows import read_rows
from mmib.labels import LabelSet
from mmib.plugins import import_plugins
from mmib.schema import DataError

TEXT = "anna and bob meets carl in the paris head"
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def cache() -> dict[str, Path]:
    return {}


@pytest.fixture
def model(
    cache: dict[str, Path], make_trained: Callable[..., TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """An exported folder of both tasks, created once."""
    if "model" not in cache:
        cache["model"] = tmp_path_factory.mktemp("exported") / "both"
        write_export([make_trained("mner"), make_trained("mre")], cache["model"])
    return str(cache["model"])


def write_lines(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def buffered(content: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type] - any raw file


def standard_input(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(buffered(content))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.smoke
def test_rows_are_written_in_order_and_bad_ones_with_their_reason(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    rows = [
        {"text": TEXT, "id": "first", "image": "red.png"},
        b"no json",
        {"text": ""},
        b"[1]",
        {"id": "textless"},
        {"text": "bob", "image": "gone.png"},
        b"",
        b'{"text": "\xff"}',
        {"text": "bob", "entities": [{"start": 0, "end": 3}]},
        {"text": 7},
        b'{"text": "bob", "id": NaN}',
        b'{"text": "bob", "id": 1e400}',
        b'{"text": "bob", "id": "\\ud800"}',
        b'{"text": "bob", "image": "\\udfff.png"}',
        {"text": "bob", "image": "pipe.png"},
        {"text": "bob", "image": "\0.png"},
        {"text": "bob", "id": "last"},
        {"text": "bob", "id": None},
    ]
    os.mkfifo(tmp_path / "pipe.png")
    posts = write_lines(tmp_path / "posts.jsonl", rows)
    assert main(["extract", "--model", model, str(posts), "-o", str(tmp_path / "out.jsonl")]) == 0
    found = read_lines(tmp_path / "out.jsonl")
    summary = capsys.readouterr().out.splitlines()
    assert summary[0].endswith("out.jsonl: 17 rows, 13 of them could not be read")
    assert summary[1].startswith("  the first, row 2: ")
    assert summary[2:] == ["  1 row with entities given: these were used, and no others searched for"]
    assert [row["row"] for row in found] == list(range(1, 18))
    assert found[0]["id"] == "first"
    expected = Extractor.from_pretrained(model).extract(TEXT, tmp_path / "red.png")
    assert [entity["text"] for entity in found[0]["entities"]] == [entity.text for entity in expected.entities]
    reasons = {row["id"]: row.get("error", "") for row in found}
    assert "no JSON" in reasons[2]
    assert "empty" in reasons[3]
    assert "got list" in reasons[4]
    assert "no 'text'" in reasons["textless"]
    assert "gone.png cannot be read" in reasons[6]
    assert "not UTF-8" in reasons[7]
    assert reasons[8] == ""
    assert "not int" in reasons[9]
    assert "holds NaN" in reasons[10]
    assert "holds 1e400" in reasons[11]
    assert "unpaired surrogate" in reasons[12]
    assert "unpaired surrogate" in reasons[13]
    assert "pipe.png cannot be read: it is no regular file" in reasons[14]
    assert "null byte" in reasons[15]
    assert reasons["last"] == reasons[17] == ""
    assert {path.name for path in tmp_path.iterdir()} == {"red.png", "posts.jsonl", "out.jsonl", "pipe.png"}


def test_csv_and_json_lines_give_the_same_results(model: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "posts.jsonl", [{"id": "1", "text": TEXT}, {"id": "2", "text": "bob,\nanna"}])
    (tmp_path / "posts.csv").write_text(f'id,text\n1,{TEXT}\n2,"bob,\nanna"\n', encoding="utf-8")
    for name in ("posts.jsonl", "posts.csv"):
        assert main(["extract", "--model", model, str(tmp_path / name), "-o", str(tmp_path / f"{name}.out")]) == 0
    assert read_lines(tmp_path / "posts.jsonl.out") == read_lines(tmp_path / "posts.csv.out")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_byte_order_marks_and_compression_have_no_effect(tmp_path: Path, mark: bytes, is_compressed: bool) -> None:
    for content, is_csv in ((b'{"text": "bob"}\r\n{"text": "anna"}', False), (b"text,id\r\nbob,1\r\nanna,2\r\n", True)):
        data = gzip.compress(mark + content) if is_compressed else mark + content
        rows = list(read_rows(buffered(data), is_csv, tmp_path))
        assert [row.post and row.post.text for row in rows] == ["bob", "anna"]


@pytest.mark.parametrize("damage", ["short", "changed"])
def test_rows_before_damage_in_a_compressed_file_are_kept(tmp_path: Path, damage: str) -> None:
    content = b"".join(b'{"text": "%s"}\n' % os.urandom(20).hex().encode() for _ in range(5000))
    data = bytearray(gzip.compress(content))
    data = data[: len(data) // 2] if damage == "short" else data[:-8] + b"\0" * 8
    *rows, last = read_rows(buffered(bytes(data)), is_csv=False, folder=tmp_path)
    assert len(rows) > 1000
    assert sum(row.post is None for row in rows) <= 1, "the last line may be cut"
    assert "the rest of the compressed file cannot be read" in str(last.error)


def test_utf_16_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in UTF-16: save them as UTF-8"):
        list(read_rows(buffered("text\nbob\n".encode("utf-16")), is_csv=True, folder=tmp_path))


def test_standard_input_and_output_are_supported(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b'{"text": "bob"}\nbroken\n'))
    assert main(["extract", "--model", model, "-"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["text"] == "bob"
    assert "no JSON" in second["error"]


def test_a_single_post_can_be_given_on_the_command_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (30, 20), "blue").save(tmp_path / "blue.png")
    options = ["--image", str(tmp_path / "blue.png"), "--evidence", "--samples", "2"]
    assert main(["extract", "--model", model, "--text", TEXT, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["evidence"]["regions"]) == 5
    assert all("spread" in entity for entity in found["entities"])


def test_an_interrupted_extraction_is_resumed(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POSTS", 2)
    posts = write_lines(tmp_path / "posts.jsonl", [{"text": f"bob meets anna {number}"} for number in range(9)])
    command = ["extract", "--model", model, str(posts), "-o"]
    assert main([*command, str(tmp_path / "whole.jsonl")]) == 0
    read = Extractor.read
    calls: list[int] = []

    def dying(self: Extractor, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "read", dying)
        assert main([*command, str(tmp_path / "out.jsonl")]) == 130
    part = tmp_path / ".out.jsonl.part"
    assert not (tmp_path / "out.jsonl").exists()
    assert len(read_lines(part)) == 4
    with part.open("ab") as file:
        file.write(b'{"row": 5, "id')  # half a line
    with monkeypatch.context() as patch:
        patch.setattr(
            Extractor, "read", lambda self, *arguments: calls.append(len(arguments[0])) or read(self, *arguments)
        )
        assert main([*command, str(tmp_path / "out.jsonl")]) == 0
    assert sum(calls[3:]) == 5, "four of nine were done"
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not part.exists()


def interrupt(out: Path, key: dict[str, Any]) -> None:
    """Leave an interrupted output of one row."""
    output = stream.Output(out, key)
    with output.file as file:
        file.write(b"{}\n")


def test_an_extraction_is_not_resumed_with_other_options(model: str, tmp_path: Path, refused: Refused) -> None:
    posts, out = write_lines(tmp_path / "posts.jsonl", [{"text": "bob"}]), tmp_path / "out.jsonl"
    interrupt(out, {"another": "key"})
    assert "begun with another model" in refused("extract", "--model", model, str(posts), "-o", str(out))


def test_resumption_depends_on_contents_and_not_on_names_and_sizes(
    model: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    def key(source: Path, text: bytes) -> str:
        with buffered(text) as file:
            return json.dumps(stream.key_of([source], file, {}))

    copy = shutil.copytree(model, tmp_path / "copy")
    run = make_run("mre")
    checkpoint = run / "checkpoints" / "best.ckpt"
    before = [key(copy, b"bob"), key(run, b"bob"), key(checkpoint, b"bob")]
    assert before[0] == key(Path(model), b"bob") != key(copy, b"ann")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    config = copy / "mre" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("digest", "dagest"), encoding="utf-8")
    after = [key(copy, b"bob"), key(run, b"bob"), key(checkpoint, b"bob")]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_two_processes_do_not_write_the_same_output(model: str, tmp_path: Path, refused: Refused) -> None:
    posts, out = write_lines(tmp_path / "posts.jsonl", [{"text": "bob"}]), tmp_path / "out.jsonl"
    (tmp_path / "link").symlink_to("out.jsonl")
    first = stream.Output(out, {"the": "key"})
    for name in ("out.jsonl", "link"):
        message = refused("extract", "--model", model, str(posts), "-o", str(tmp_path / name))
        assert "another process is writing" in message
    first.write([{"row": 1}])
    assert read_lines(out) == [{"row": 1}]
    assert main(["extract", "--model", model, str(posts), "-o", str(tmp_path / "link")]) == 0
    assert read_lines(out)[0]["text"] == "bob"
    assert (tmp_path / "link").is_symlink()


def test_an_output_that_was_just_completed_is_not_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process renames its part between this process's check and its lock."""
    lock, out = stream.fcntl.flock, tmp_path / "out.jsonl"
    (tmp_path / ".out.jsonl.part").write_text("{}\n")

    def late(file: Any, operation: int) -> None:
        if not out.exists():
            (tmp_path / ".out.jsonl.part").rename(out)
        lock(file, operation)

    monkeypatch.setattr(stream.fcntl, "flock", late)
    with stream.Output(out, {}).file:
        assert read_lines(out) == [{}]


@pytest.mark.parametrize("output", ["posts.jsonl", "link", "hard", "-"])
def test_the_input_is_refused_as_output(
    model: str, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    posts = write_lines(tmp_path / "posts.jsonl", [{"text": "bob"}])
    (tmp_path / "link").symlink_to(posts)
    os.link(posts, tmp_path / "hard")
    before = posts.read_bytes()
    if output == "-":
        with posts.open() as file:
            monkeypatch.setattr("mmib.extract.STANDARD_INPUT", file.fileno())
            message = refused("extract", "--model", model, "-", "-o", str(posts))
    else:
        message = refused("extract", "--model", model, str(posts), "-o", str(tmp_path / output))
    assert "is the input" in message
    assert posts.read_bytes() == before
    options = ["-o", str(tmp_path / "out.json"), "--graph", str(tmp_path / "out.json")]
    assert "--graph" in refused("extract", "--model", model, str(posts), *options)


def test_rows_are_written_to_a_pipe_immediately(model: str, tmp_path: Path, refused: Refused) -> None:
    posts = write_lines(tmp_path / "posts.jsonl", [{"text": "bob"}, b"broken"])
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.extend((tmp_path / "pipe").read_text().splitlines()))
    reader.start()
    assert main(["extract", "--model", model, str(posts), "-o", str(tmp_path / "pipe")]) == 0
    reader.join()
    assert [json.loads(line)["row"] for line in received] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"posts.jsonl", "pipe"}
    graph = ["-o", str(tmp_path / "pipe"), "--graph", str(tmp_path / "graph.json")]
    assert "nor a pipe" in refused("extract", "--model", model, str(posts), *graph)


def test_posts_from_a_pipe_are_read_once(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text('{"text": "bob"}\n'))
    writer.start()
    assert main(["extract", "--model", model, str(tmp_path / "pipe"), "-o", str(tmp_path / "out.jsonl")]) == 0
    writer.join()
    assert [row["text"] for row in read_lines(tmp_path / "out.jsonl")] == ["bob"]


def test_a_non_finite_result_is_an_error_of_its_row() -> None:
    line = json.loads(stream.line_of({"row": 3, "id": "a", "entities": [{"confidence": float("nan")}]}))
    assert line == {"row": 3, "id": "a", "error": "the model gives no finite result for this post"}


def test_a_graph_merges_names_over_posts_and_records_their_sources(tmp_path: Path) -> None:
    def entity(text: str, name: str) -> dict[str, Any]:
        return {"text": text, "type": name}

    def relation(label: str, confidence: float) -> dict[str, Any]:
        return {"label": label, "head": 0, "tail": 1, "confidence": confidence}

    records = [
        {
            "id": "p1",
            "entities": [entity("Ada", "PER"), entity("Big  Org", "ORG")],
            "relations": [relation("/per/org/member_of", 0.6)],
        },
        {"id": "p2", "error": "no text"},
        {
            "id": "p3",
            "entities": [entity("ADA", "PER"), entity("big org", "ORG")],
            "relations": [relation("/per/org/member_of", 0.9)],
        },
        {"id": 4, "entities": [entity("Ada", "LOC"), entity("x\x00<&", "MISC")], "relations": []},
    ]
    graph = merged(records)
    assert graph.number_of_nodes() == 4
    (edge,) = graph.edges(data=True)
    assert edge[2] == {"label": "/per/org/member_of", "confidence": 0.9, "posts": ["p1", "p3"]}
    for ending in (".json", ".graphml", ".ttl"):
        write_graph(graph, tmp_path / f"graph{ending}")
    assert len(json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))["nodes"]) == 4
    read = networkx.read_graphml(tmp_path / "graph.graphml")
    assert json.loads(next(iter(read.edges(data=True)))[2]["posts"]) == ["p1", "p3"]
    rdf = rdflib.Graph().parse(tmp_path / "graph.ttl")
    member = rdflib.URIRef("urn:mmib:relation:per/org/member_of")
    ((head, tail),) = rdf.subject_objects(member)
    assert str(rdf.value(head, rdflib.RDFS.label)) == "Ada"
    assert str(rdf.value(tail, rdflib.RDFS.label)) == "Big Org"
    statement = rdf.value(predicate=rdflib.RDF.predicate, object=member)
    posts = set(map(str, rdf.objects(statement, rdflib.URIRef("urn:mmib:term:saidIn"))))
    assert posts == {"urn:mmib:post:p1", "urn:mmib:post:p3"}


@pytest.mark.smoke
def test_the_command_writes_a_graph(model: str, tmp_path: Path) -> None:
    posts = write_lines(tmp_path / "posts.jsonl", [{"text": TEXT}, b"broken"])
    options = ["-o", str(tmp_path / "out.jsonl"), "--graph", str(tmp_path / "graph.json")]
    assert main(["extract", "--model", model, str(posts), *options]) == 0
    nodes = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))["nodes"]
    found = {entity["text"] for entity in read_lines(tmp_path / "out.jsonl")[0]["entities"]}
    assert {node["name"] for node in nodes} == found
    assert main(["graph", str(tmp_path / "out.jsonl"), "-o", str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "graph.json").read_bytes()


def test_a_graph_of_other_files_is_refused(tmp_path: Path, refused: Refused) -> None:
    nothing = {"id": 1, "text": "bob", "entities": [], "relations": []}
    for other in ({"id": 2, "text": "bob"}, {"id": 2, "entities": [[0, 3]], "relations": []}):
        path = write_lines(tmp_path / "out.json", [nothing, other])
        message = refused("graph", str(path), "-o", str(tmp_path / "graph.json"))
        assert f"{path}, line 2 was not written by mmib extract" in message
    assert "is the input" in refused("graph", str(tmp_path / "a.json"), str(path), "-o", str(path))


def test_a_graph_with_a_missing_package_is_refused_before_extraction(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdflib", None)
    for command in (["extract", "--model", "nowhere", "posts.jsonl", "-o", "o.jsonl", "--graph"], ["graph", "o", "-o"]):
        assert "g.ttl needs the package rdflib: pip install 'mmib[extract]'" in refused(*command, "g.ttl")


def test_a_graph_may_have_many_posts_with_the_same_name() -> None:
    records = (
        {"id": number, "entities": [{"text": "bob", "type": "PER"}], "relations": []} for number in range(30_000)
    )
    began = time.process_time()
    graph = merged(records)
    assert time.process_time() - began < 2, "in linear time"
    assert graph.nodes["PER:bob"]["posts"] == [str(number) for number in range(30_000)]


def test_an_endless_line_is_skipped_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmib.datamodules.raw_rows.LONGEST", 40)
    file = buffered(b'{"text": "' + b"x" * 500 + b'"}\n{"text": "bob"}\n')
    first, second = read_rows(file, is_csv=False, folder=tmp_path)
    assert "longer than 40" in str(first.error)
    assert second.post
    assert (second.number, second.post.text) == (2, "bob")
    assert LONGEST > 40


def test_bad_rows_of_a_csv_are_reported(tmp_path: Path) -> None:
    file = buffered(b'text,image\nbob,\nanna,a.png,more\n"carl"x,\nlast,b.png\n')
    rows = list(read_rows(file, is_csv=True, folder=tmp_path))
    assert [row.error is None for row in rows] == [True, False, False, True]
    assert rows[-1].post
    assert rows[-1].post.image == tmp_path / "b.png"
    with pytest.raises(DataError, match="no column 'text'"):
        list(read_rows(buffered(b"words\nbob\n"), is_csv=True, folder=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file of posts"),
        (["posts.jsonl", "--text", "bob"], "name a file of posts"),
        (["posts.jsonl", "--image", "a.png"], "--image belongs to --text"),
        (["posts.jsonl", "--samples", "-1"], "--samples is -1"),
        (["posts.jsonl", "--samples", "1"], "--samples is 1: a spread takes two samples or more"),
        (["posts.jsonl", "--graph", "g.json"], "name the file, and the output with -o"),
        (["posts.jsonl", "-o", "o.jsonl", "--graph", "g.png"], "ends in .json, .graphml, .ttl"),
        (["missing.jsonl"], "missing.jsonl cannot be read: No such file or directory"),
        (["posts.jsonl", "-o", "o.jsonl", "--shard", "65/64"], "--shard is '65/64'"),
        (["posts.jsonl", "--shard", "1/2"], "name it with -o"),
        (["-", "-o", "o.jsonl", "--workers", "2"], "--shard and --workers read a file of posts"),
        (["posts.jsonl", "-o", "o.jsonl", "--workers", "0"], "--workers is 0"),
        (
            ["posts.jsonl", "-o", "o.jsonl", "--workers", "2", "--shard", "1/2"],
            "leave out one of --shard and --workers",
        ),
        (["posts.jsonl", "-o", "o.jsonl", "--shard", "1/2", "--graph", "g.json"], "merge the shards first"),
    ],
)
def test_invalid_options_are_refused(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("extract", "--model", "nowhere", *arguments)


def test_invalid_models_and_texts_are_refused(model: str, tmp_path: Path, refused: Refused) -> None:
    assert "there is no model" in refused("extract", "--model", str(tmp_path / "nowhere"), "--text", "bob")
    assert "empty" in refused("extract", "--model", model, "--text", " ")


def test_a_single_post_is_written_to_a_file_if_one_is_given(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", "--model", model, "--text", TEXT]) == 0
    printed = capsys.readouterr().out
    assert main(["extract", "--model", model, "--text", TEXT, "-o", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == printed


@pytest.mark.parametrize(("device", "fault"), [("nowhere", "is unknown: "), ("cuda:99", "cannot be used: ")])
def test_an_unavailable_device_is_a_one_sentence_error(model: str, refused: Refused, device: str, fault: str) -> None:
    message = refused("extract", "--model", model, "--text", "bob", "--device", device)
    assert message.startswith(f"mmib: --device {device} {fault}")
    assert message.count("\n") == 1


def test_types_and_labels_of_any_spelling_can_be_written_to_graphs(tmp_path: Path) -> None:
    """Each is a single type or relation when the file is read again."""
    types = ["work-of-art", "Film & TV", "a:b", "*", 'quote"', "事件"]
    entities = [{"text": "Ada", "type": name} for name in types] + [{"text": "Ada", "type": None}]
    labels = ["made by", "/x/y z", "<is>", "先生"]
    relations = [{"label": name, "head": number, "tail": 6, "confidence": 0.5} for number, name in enumerate(labels)]
    graph = merged([{"id": 1, "entities": entities, "relations": relations}])
    assert graph.number_of_nodes() == 7
    for ending in (".json", ".graphml", ".ttl"):
        write_graph(graph, tmp_path / f"graph{ending}")
    read = networkx.read_graphml(tmp_path / "graph.graphml")
    assert {attributes["label"] for _, _, attributes in read.edges(data=True)} == set(labels)
    rdf = rdflib.Graph().parse(tmp_path / "graph.ttl")
    term = "urn:mmib:term:"
    found = {unquote(str(name).removeprefix(term)) for name in rdf.objects(None, rdflib.RDF.type) if term in name}
    assert found == set(types)
    assert len(set(rdf.objects(None, rdflib.RDF.predicate))) == len(labels)


def test_a_custom_task_needs_its_plugin_on_the_command_line(
    make_trained: Callable[..., TrainedModel],
    relevance: str,
    tmp_path: Path,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import_plugins([relevance])
    write_export([make_trained("relevance", LabelSet(("yes", "no"), "no"))], tmp_path / "exported")
    command = ["extract", "--model", str(tmp_path / "exported"), "--text", TEXT]
    assert main([*command, "--plugin", relevance]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"]["relevance"]["label"] in ("yes", "no")
    assert found["entities"] == found["relations"] == []
    del schema._TASKS["relevance"]
    assert "--plugin relevance_plugin" in refused(*command)
