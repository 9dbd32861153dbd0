"""`mmib convert`: formats are recognised, files are safe, and output of mmib extract is accepted."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmib.cli import main
from mmib.datamodules.convert.formats import recognise
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.split_files import HoldOut
from mmib.schema import DataError

Convert = Callable[..., Any]
DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "annotation.md"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (' \n[{"data": {}}]', "label-studio"),
        ('{"text": "a"}\n{"text": "a", "label": []}', "doccano"),
        ('{"text": "a", "entities": [], "relations": [], "Comments": []}', "doccano"),
        ('{"text": "a", "entities": []}\n{"text": "a", "entities": [{"start_offset": 0}]}', "doccano"),
        ('{"text": "a", "entities": [{"start": 0}]}', "mmib"),
        ('{"row": 1, "text": "a", "entities": [], "relations": [], "notes": []}', "mmib"),
        ('{"row": 1, "id": 1, "error": "no words"}', "mmib"),
        ('{"tokens": ["a"]}', "mmib"),
        ('{"text": "a", "label": "b", "entities": [{"start": 0}]}', "mmib"),
        ('{"text": "a", "labels": ["b"], "entities": []}\n{"text": "a", "relations": [{"head": 0}]}', "mmib"),
        ('{"text": "a", "notes": "b", "label": []}', "doccano"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_format_is_recognised_by_its_keys(tmp_path: Path, text: str, name: str, mark: str) -> None:
    file = tmp_path / "posts"
    file.write_text(mark + text, encoding="utf-8")
    assert recognise(file) == name


@pytest.mark.parametrize("text", ['{"text": "a"}', '{"text": "a", "entities": []}\n\n', ""])
def test_a_file_without_annotations_fits_any_format(tmp_path: Path, text: str) -> None:
    file = tmp_path / "posts"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"could be of several formats.*--from"):
        recognise(file)


def test_the_output_can_be_trained_on(convert: Convert) -> None:
    """Spans in UTF-16 units; the second ends inside an emoji of several code points, the third is blank."""
    family = "\U0001f468\u200d\U0001f469"
    line = {
        "text": f"Acme {family} sells Zip",
        "entities": [
            {"id": 1, "label": "TEAM", "start_offset": 0, "end_offset": 4},
            {"id": 2, "label": "FACE", "start_offset": 5, "end_offset": 7},
            {"id": 3, "label": "NONE", "start_offset": 4, "end_offset": 5},
            {"id": 4, "label": "PRODUCT", "start_offset": 17, "end_offset": 20},
        ],
        "relations": [
            {"from_id": 1, "to_id": 4, "type": "makes"},
            {"from_id": 1, "to_id": 1, "type": "makes"},
            {"from_id": 3, "to_id": 1, "type": "makes"},
        ],
    }
    done = convert([line])
    (post,) = JSONLinesReader(done.file, "mner", hold_out=HoldOut(0.0)).posts("train")
    assert post.words == ["Acme", family, "sells", "Zip"]
    assert post.tags == ["B-TEAM", "B-FACE", "O", "B-PRODUCT"]
    (row,) = JSONLinesReader(done.file, "mre", hold_out=HoldOut(0.0)).posts("train")
    assert (row.head, row.tail, row.relation) == ((0, 1), (3, 4), "makes")
    for noted in (
        "1 entity starting or ending inside a visible character: extended to the whole character (line 1)",
        "1 entity blank, outside the text or ending inside a character: left out (see --offsets) (line 1)",
        "1 relation of an entity with itself: left out (line 1)",
        "1 relation whose head or tail is not an entity of the post: left out (line 1)",
    ):
        assert noted in done.output.splitlines()


def test_all_examples_of_the_docs_encode_the_same_post(convert: Convert) -> None:
    blocks = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    posts = [post for block in blocks for post in convert(block).lines()]
    assert len(posts) == 3
    for post in posts:
        assert post["text"] == "Acme makes the Zipper"
        assert post["entities"] == [{"start": 0, "end": 4, "type": "TEAM"}, {"start": 15, "end": 21, "type": "PRODUCT"}]
    assert [len(post["relations"]) for post in posts] == [1, 0, 1]
    assert posts[0]["image"] == "0a1b2c3d-zipper.jpg"


def test_relations_may_refer_to_entities_by_custom_ids(convert: Convert) -> None:
    entities = [{"id": "a", "start": 0, "end": 1, "type": "X"}, {"id": "b", "start": 2, "end": 3, "type": "Y"}]
    line = {"text": "p q", "entities": entities, "relations": [{"head": "b", "tail": "a", "type": "r"}]}
    (post,) = convert([line]).lines()
    assert post["relations"] == [{"head": 1, "tail": 0, "type": "r"}]


def test_word_offsets_become_character_offsets(convert: Convert) -> None:
    line = {"tokens": ["Ada", "joined", "Big", "Org"], "entities": [{"start": 2, "end": 4, "type": "TEAM"}]}
    (post,) = convert([line]).lines()
    (entity,) = post["entities"]
    assert post["text"] == "Ada joined Big Org"
    assert post["text"][entity["start"] : entity["end"]] == "Big Org"


JAVASCRIPT = {"text": "\U0001f44d Ada joins", "entities": [{"start": 3, "end": 6, "type": "PERSON"}]}
FROM_DOCCANO = {"text": JAVASCRIPT["text"], "label": [[3, 6, "PERSON"]]}


@pytest.mark.parametrize(
    ("line", "options", "span"),
    [
        (JAVASCRIPT, ["--offsets", "utf-16"], (2, 5)),
        (FROM_DOCCANO, ["--offsets", "utf-16", "--to", "label-studio"], (2, 5)),
        (FROM_DOCCANO, ["--offsets", "characters", "--to", "label-studio"], (3, 6)),
        (JAVASCRIPT, ["--offsets", "utf-16", "--to", "label-studio"], (4, 7)),
    ],
)
def test_the_offset_unit_is_that_of_the_tools_file(
    convert: Convert, line: dict[str, Any], options: list[str], span: tuple[int, int]
) -> None:
    """That of the input, unless only the output is a tool's file."""
    written = convert([line], *options).file.read_text(encoding="utf-8")
    assert re.findall(r'"(?:start|end)": (\d+)', written) == [str(offset) for offset in span]


@pytest.mark.parametrize(
    ("name", "posts"),
    [
        ("posts.jsonl", b'{"text": "a"}\n\n{"text": "b", "image": "b.jpg"}\n{"text": bad}\n'),
        ("posts.csv", b'text,image\na,\n\nb,b.jpg\n"bad"x,\n'),
        # Test ids contain the data and must be equal in all processes that run the tests.
        ("posts.csv.gz", gzip.compress(b"image,text\n,a\nb.jpg,b\n", mtime=0)),
    ],
)
def test_images_come_from_the_extracted_posts(convert: Convert, tmp_path: Path, name: str, posts: bytes) -> None:
    """Rows are read and numbered as by `mmib extract`."""
    (tmp_path / name).write_bytes(posts)
    found = [
        {"row": 1, "id": 1, "text": "a", "entities": [], "relations": [], "notes": []},
        {"row": 2, "id": 2, "text": "b", "entities": [], "relations": [], "notes": []},
        {"row": 3, "id": 3, "error": "the row has no 'text': each needs the text of a post"},
    ]
    options = ["--posts", str(tmp_path / name), "--image-prefix", "/data/local-files/?d=pictures/"]
    done = convert(found, "--to", "label-studio", *options)
    tasks = json.loads(done.file.read_text(encoding="utf-8"))
    assert [made["data"].get("image") for made in tasks] == [None, "/data/local-files/?d=pictures/b.jpg"]
    assert "1 post that nothing could be extracted from: left out (line 3)" in done.output
    assert "2 posts (1 with an image)" in done.output


@pytest.mark.parametrize(
    ("name", "posts", "message"),
    [
        ("posts.txt", "text\na\n", "in.json, line 1 is extracted from row 1, which cannot be read in"),
        ("posts.jsonl", "", "in.json, line 1 is extracted from row 1, which cannot be read in"),
        ("posts.csv", "words\na\n", "posts.csv: the CSV has no column 'text'"),
        ("posts", None, "posts does not exist; name the input of mmib extract"),
    ],
)
def test_posts_that_were_not_extracted_are_refused(
    convert: Convert, tmp_path: Path, name: str, posts: str | None, message: str
) -> None:
    if posts is not None:
        (tmp_path / name).write_text(posts, encoding="utf-8")
    line = {"row": 1, "id": 1, "text": "a", "entities": [], "relations": [], "notes": []}
    done = convert([line], "--posts", str(tmp_path / name))
    assert done.status == 2
    assert message in done.errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "abc", "entities": [{"start": 1, "end": 9, "type": "A"}]}, "[1, 9) is empty, or not in the text"),
        ({"tokens": ["abc"], "entities": [{"start": 1, "end": 2, "type": "A"}]}, "[1, 2) is empty, or not in the text"),
        ({"tokens": "abc"}, "expected a list of words"),
        ({"text": "abc", "entities": [{"start": 1, "type": "A"}]}, "start, end and type"),
        ({"text": "abc", "entities": ["a"]}, "expected a list of objects"),
        ({"text": "abc", "relations": [{"head": 0, "tail": 0}]}, "head, tail and type"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1, "confidence": 2}]}, "no number from 0 to 1"),
        ({"text": "abc", "image": 3}, "expected the name of a file"),
        ({"text": "abc", "row": [1]}, "'row' is [1]: expected a number"),
        ({"text": 3}, "expected a string"),
    ],
)
def test_malformed_lines_are_refused_in_one_sentence(convert: Convert, line: dict[str, Any], message: str) -> None:
    done = convert([{"text": "a"}, line], "--from", "mmib", "--to", "doccano")
    assert done.status == 2
    assert "in.json, line 2: " in done.errors
    assert message in done.errors
    assert done.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a", "label": []}\n{', "line 2 is no JSON"),
        ('{"text": "a", "label": []}\n[]', "line 2 holds a list"),
        (f'{{"a": {"[" * 100_000}', "nested too deeply"),
    ],
)
def test_invalid_json_is_refused(convert: Convert, text: str, message: str) -> None:
    done = convert(text, "--from", "doccano")
    assert done.status == 2
    assert message in done.errors


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "none.json"), "-o", str(tmp_path / "out.json")]) == 2
    assert "none.json does not exist" in capsys.readouterr().err


def test_the_input_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, link = tmp_path / "posts.jsonl", tmp_path / "link.jsonl"
    file.write_text('{"text": "a", "label": []}\n', encoding="utf-8")
    link.symlink_to(file)
    for output in (file, tmp_path / "." / "posts.jsonl", link):
        assert main(["convert", str(file), "-o", str(output)]) == 2
        assert "is the input" in capsys.readouterr().err
    assert main(["convert", str(file), "-o", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == '{"text": "a", "label": []}\n'


def test_a_failed_conversion_keeps_the_previous_output(convert: Convert) -> None:
    done = convert([{"text": "a", "label": []}])
    before = done.file.read_bytes()
    assert convert('{"text": "a", "label": []}\n{', "--from", "doccano").status == 2
    assert done.file.read_bytes() == before
    assert {path.name for path in done.file.parent.iterdir()} == {"in.json", "out.json"}


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    listed = capsys.readouterr().out
    for option in ("--from", "--to", "--offsets", "--images", "--posts", "--text-field", "--to-name"):
        assert option in listed
