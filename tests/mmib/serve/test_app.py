"""The API: it gives the extractor's results, and bad input gets a reason and ends nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from mmib.export.model import TrainedModel
from mmib.extract.extractor import Extractor
from mmib.labels import LabelSet
from mmib.plugins import import_plugins
from mmib.serve.app import PAGE
from mmib.serve.guard import HEADERS, allowed_hosts
from mmib.serve.limits import Limits
from mmib.serve.messages import PostRequest
from mmib.serve.pages import FILES
from mmib.serve.receive import RefusedError, read_json
from mmib.serve.service import LOG

MakeClient = Callable[..., TestClient]
TEXT = "anna and bob meets carl in the paris 🙂 head"
JSON = {"Content-Type": "application/json"}


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


def alive(client: TestClient) -> bool:
    return client.post("/api/extract", json={"text": "bob"}).status_code == 200


@pytest.mark.smoke
def test_one_post_can_be_sent_as_json_and_as_a_form(client: TestClient, extractor: Extractor, picture: bytes) -> None:
    crops = [[0.0, 0.0, 0.5, 0.5]]
    expected = extractor.extract(TEXT, picture, crops, evidence=True).to_dict()
    wanted = {"text": TEXT, "crops": crops, "evidence": True}
    found = client.post("/api/extract", json={**wanted, "image": encoded(picture)})
    assert found.status_code == 200
    assert found.json() == json.loads(json.dumps(expected))
    assert found.json()["entities"]
    form = {"text": TEXT, "crops": json.dumps(crops), "evidence": "true"}
    sent = client.post("/api/extract", data=form, files={"image": ("a.png", picture, "image/png")})
    assert sent.json() == found.json()


def test_given_entities_and_samples_are_used(client: TestClient) -> None:
    given = [{"start": 0, "end": 4, "type": "PER"}, {"start": 9, "end": 12}]
    found = client.post("/api/extract", json={"text": TEXT, "entities": given, "samples": 3}).json()
    assert [(entity["text"], entity["type"]) for entity in found["entities"]] == [("anna", "PER"), ("bob", None)]
    assert all("spread" in relation for relation in found["relations"])


def test_a_batch_is_answered_in_order_with_errors_of_bad_posts_in_place(client: TestClient, picture: bytes) -> None:
    posts = [
        {"text": TEXT},
        {"text": 7},
        "no post",
        {"text": " "},
        {"text": "bob", "image": encoded(picture[:60])},
        {"text": "bob", "image": "photo.jpg"},
        {"text": "bob", "path": "photo.jpg"},
        {"text": "anna", "image": encoded(picture)},
    ]
    answer = client.post("/api/extract-batch", json={"posts": posts, "evidence": True})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert ["error" in result for result in results] == [False, True, True, True, True, True, True, False]
    assert (results[0]["text"], results[7]["text"]) == (TEXT, "anna")
    assert "evidence" in results[7]
    reasons = [
        "text: ",
        "expected a JSON object",
        "empty",
        "cannot be read",
        "no path and no address",
        "path: this field",
    ]
    for result, reason in zip(results[1:7], reasons, strict=True):
        assert reason in result["error"]


BAD: list[tuple[str, bytes | dict[str, Any], int, str]] = [
    ("empty text", {"text": ""}, 422, "the text is empty"),
    ("enormous text", {"text": "x" * 10_001}, 422, "10,001 characters: at most 10,000"),
    ("text of a wrong type", {"text": 7}, 422, "text: "),
    ("no text", {}, 422, "text: this field is missing"),
    ("a list", b"[1]", 422, "object"),
    ("no JSON", b"text=bob", 400, "JSON"),
    ("no UTF-8", b'{"text": "\xff"}', 400, "JSON"),
    ("half a surrogate pair", b'{"text": "\\ud800"}', 400, "JSON"),
    ("nested too deeply", b'{"text": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400, "JSON"),
    ("nothing", b"", 400, "JSON"),
    ("unknown field", {"text": "bob", "model": "x"}, 422, "model: this field is unknown"),
    ("broken image", {"text": "bob", "image": encoded(b"GIF89a" + bytes(30))}, 422, "the image"),
    ("no image", {"text": "bob", "image": encoded(b"hello")}, 422, "expected a file of JPEG"),
    ("a path", {"text": "bob", "image": "/etc/hostname"}, 422, "no path and no address"),
    ("an address", {"text": "bob", "image": "http://localhost/a.png"}, 422, "no path and no address"),
    ("crop that is no box", {"text": "bob", "crops": [[0, 0, 2, 1]]}, 422, "crops.0.2: "),
    ("crop of a path", {"text": "bob", "crops": ["/etc/hostname"]}, 422, "crops.0: "),
    ("crops without an image", {"text": "bob", "crops": [[0, 0, 1, 1]]}, 422, "crops were given without their image"),
    ("entity outside the text", {"text": "bob", "entities": [{"start": 1, "end": 9}]}, 422, "is outside the text"),
    (
        "entity of another type",
        {"text": "bob", "entities": [{"start": 0, "end": 3, "type": "X"}]},
        422,
        "'X' is none of",
    ),
    (
        "type that is no text",
        {"text": "bob", "entities": [{"start": 0, "end": 3, "type": 7}]},
        422,
        "entities.0.type: ",
    ),
    ("empty type", {"text": "bob", "entities": [{"start": 0, "end": 3, "type": ""}]}, 422, "entities.0.type: "),
    ("too many entities", {"text": "bob", "entities": [{"start": 0, "end": 3}] * 51}, 422, "51 entities are given"),
    ("negative samples", {"text": "bob", "samples": -1}, 422, "samples: "),
    ("one sample", {"text": "bob", "samples": 1}, 422, "samples is 1: a spread takes two samples or more"),
    ("too many samples", {"text": "bob", "samples": 51}, 422, "51 samples are requested"),
    ("evidence of a wrong type", {"text": "bob", "evidence": "yes"}, 422, "evidence: "),
]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"entities": [{}] * 9_000}, "entities.0.start: this field is missing; entities.0.end: this field is missing"),
        ({"crops": [[]] * 9_000}, "crops.0: List should have at least 4 items after validation, not 0"),
        (
            {f"x{number}": 0 for number in range(9_000)},
            "9,000 fields are unknown or invalid: expected the fields of /api/openapi.json",
        ),
    ],
)
def test_the_number_of_reported_errors_is_limited(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(RefusedError) as error:
        read_json(PostRequest, json.dumps({"text": "bob", **fields}).encode())
    assert (error.value.status, str(error.value)) == (422, problem)


@pytest.mark.parametrize(("body", "status", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_gets_a_reason_and_the_service_continues(
    client: TestClient, body: bytes | dict[str, Any], status: int, reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/api/extract", content=content, headers=JSON)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert alive(client)


@pytest.mark.parametrize("text", ["🙂🙂 👍🏽", "שלום עולם", "北京欢迎你", "bob\u202eanna\x00", "e\u0301" * 50])
def test_any_script_is_accepted(client: TestClient, text: str) -> None:
    found = client.post("/api/extract", json={"text": text, "evidence": True})
    assert found.status_code == 200
    assert all(entity["text"] == text[entity["start"] : entity["end"]] for entity in found.json()["entities"])


def test_an_image_with_too_many_pixels_is_not_decoded(make_client: MakeClient, picture: bytes) -> None:
    client = make_client(pixels=48 * 40 - 1)
    answer = client.post("/api/extract", json={"text": "bob", "image": encoded(picture)})
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "the image has 1,920 pixels: at most 1,919 are accepted",
    )


def test_formats_delegated_to_other_programs_by_pillow_are_refused(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    answer = client.post("/api/extract", json={"text": "bob", "image": encoded(file.getvalue())})
    assert answer.status_code == 422
    assert "expected a file of" in answer.json()["error"]


def test_invalid_forms_are_refused(client: TestClient, picture: bytes) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for content, headers in ((b"", {"Content-Type": "multipart/form-data"}), (b"no form at all", form)):
        answer = client.post("/api/extract", content=content, headers=headers)
        assert answer.status_code == 400
        assert "form cannot be read" in answer.json()["error"]
    files = [("image", ("a.png", picture)), ("image", ("b.png", picture))]
    assert client.post("/api/extract", data={"text": "bob"}, files=files).status_code == 422
    twice = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nbob\r\n' * 2 + b"--x--\r\n"
    answer = client.post("/api/extract", content=twice, headers=form)
    assert (answer.status_code, answer.json()["error"]) == (422, "the form has a field twice: send one post in a form")
    answer = client.post("/api/extract", data={"text": "bob", "samples": "many"}, files=files[:1])
    assert answer.status_code == 422
    assert "no JSON" in answer.json()["error"]
    assert alive(client)


def test_other_content_types_are_refused(client: TestClient) -> None:
    for path in ("/api/extract", "/api/extract-batch"):
        answer = client.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
        assert answer.status_code == 415
        assert "text/plain" in answer.json()["error"]


@pytest.mark.parametrize("media", ["multipart/form-data; boundary=x", "application/json"])
@pytest.mark.parametrize(("charset", "status"), [("punycode", 415), ("latin-1", 415), ("UTF-8", 400)])
def test_requests_must_be_utf_8(client: TestClient, media: str, charset: str, status: int) -> None:
    """Python supports encodings that take quadratic time, and a form in another encoding would be misread."""
    field = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nbob \xe9\r\n--x--\r\n'
    content = field if "form" in media else b'{"text": "bob \xe9"}'
    headers = {"Content-Type": f"{media}; charset={charset}"}
    answer = client.post("/api/extract", content=content, headers=headers)
    assert answer.status_code == status
    assert "UTF-8" in answer.json()["error"] or "unicode" in answer.json()["error"]


def test_a_form_with_many_fields_is_refused(client: TestClient) -> None:
    field = b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n1\r\n'
    content = b"".join(field % number for number in range(50_000)) + b"--x--\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/extract", content=content, headers=form)
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "the form has more than 10 fields: send one post in a form",
    )


def test_a_content_length_of_thousands_of_digits_is_too_large(client: TestClient) -> None:
    answer = client.post("/api/extract", content=b"{}", headers={**JSON, "Content-Length": "9" * 5000})
    assert answer.status_code == 413


@pytest.mark.parametrize("text", ["_." * 5_000, "\u0e51" * 10_000])
def test_a_long_text_takes_no_longer_than_the_part_that_the_models_read(client: TestClient, text: str) -> None:
    assert alive(client)
    began = time.process_time()
    assert client.post("/api/extract", json={"text": text, "evidence": True}).status_code == 200
    assert time.process_time() - began < 40, "it took minutes"


def test_a_large_body_is_not_received(make_client: MakeClient) -> None:
    client = make_client(body=1_000)
    assert client.post("/api/extract", json={"text": "x" * 1_000}).status_code == 413
    with client.stream("POST", "/api/extract", content=chunks_of(b" " * 400, 50), headers=JSON) as answer:
        assert answer.status_code == 413
    assert alive(client)


def chunks_of(part: bytes, count: int) -> Iterator[bytes]:
    yield from [part] * count


def test_too_many_posts_are_refused(make_client: MakeClient) -> None:
    client = make_client(posts=2)
    answer = client.post("/api/extract-batch", json={"posts": [{"text": "bob"}] * 3})
    assert (answer.status_code, answer.json()["error"]) == (422, "3 posts: at most 2 are accepted at a time")
    assert client.post("/api/extract-batch", json={"posts": []}).status_code == 422


@pytest.fixture
def slow(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Makes reading wait until this is set."""
    go_on = threading.Event()
    read = Extractor.read

    def waiting(self: Extractor, *arguments: Any) -> Any:
        go_on.wait(60)
        return read(self, *arguments)

    monkeypatch.setattr(Extractor, "read", waiting)
    yield go_on
    go_on.set()


def test_requests_beyond_the_queue_limit_are_rejected(make_client: MakeClient, slow: threading.Event) -> None:
    client = make_client(posts=2, waiting=2)
    answers: list[int] = []

    def ask() -> None:
        answers.append(client.post("/api/extract-batch", json={"posts": [{"text": "bob"}] * 2}).status_code)

    first = threading.Thread(target=ask)
    first.start()
    while client.get("/api/health").json()["waiting"] < 2:
        pass
    refused = client.post("/api/extract", json={"text": "bob"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    slow.set()
    first.join()
    assert answers == [200]
    assert client.get("/api/health").json()["waiting"] == 0
    assert alive(client)


def test_a_client_cannot_exceed_its_share(make_client: MakeClient, slow: threading.Event) -> None:
    client = make_client(posts=1, client=1)
    first = threading.Thread(target=client.post, args=("/api/extract",), kwargs={"json": {"text": "bob"}})
    first.start()
    while client.get("/api/health").json()["waiting"] < 1:
        pass
    refused = client.post("/api/extract", json={"text": "bob"})
    assert refused.status_code == 503
    assert "of this client" in refused.json()["error"]
    slow.set()
    first.join()


def test_a_request_times_out(make_client: MakeClient, slow: threading.Event) -> None:
    client = make_client(seconds=0.2)
    answer = client.post("/api/extract", json={"text": "bob"})
    assert (answer.status_code, answer.json()["error"]) == (
        504,
        "there was no result within 0.2 seconds: send fewer posts, or try again later",
    )
    slow.set()
    assert client.get("/api/health").json()["waiting"] == 0


def test_unexpected_errors_are_logged_and_reported_without_details(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    monkeypatch.setattr(Extractor, "read", lambda *arguments: 1 / 0)
    answer = client.post("/api/extract", json={"text": "bob"})
    assert answer.status_code == 500
    assert "division" not in answer.json()["error"]
    assert "ZeroDivisionError" in caplog.text


def test_concurrent_requests_get_their_own_answers(client: TestClient) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = client.post("/api/extract", json={"text": f"bob {number}"}).json()["text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"bob {number}" for number in range(20)}


@pytest.mark.smoke
def test_health_and_model_describe_the_service(client: TestClient) -> None:
    health = client.get("/api/health").json()
    assert (health["ready"], health["tasks"], len(health["models"])) == (True, ["mner", "mre"], 2)
    model = client.get("/api/model").json()
    assert model["limits"] == json.loads(json.dumps(vars(Limits())))
    assert [(known["task"], known["finds"], known["max_crops"]) for known in model["models"]] == [
        ("mner", "entities", 4),
        ("mre", "relations", 3),
    ]
    assert model["models"][0]["labels"] == model["entity_types"] == ["PER", "LOC", "ORG", "MISC"]
    assert model["models"][1]["negative"] == "None"
    assert model["models"][1]["image_encoder"] == "test_resnet"
    assert len(model["models"][1]["labels"]) == 23


def test_a_service_with_custom_labels_accepts_and_lists_them(
    make_client: MakeClient, make_trained: Callable[..., TrainedModel]
) -> None:
    labels = LabelSet(("PRODUCT", "TEAM", "work-of-art"))
    client = make_client(Extractor([make_trained("mner", labels)]))
    model = client.get("/api/model").json()
    assert model["entity_types"] == model["models"][0]["labels"] == ["PRODUCT", "TEAM", "work-of-art"]
    given = {"text": "bob", "entities": [{"start": 0, "end": 3, "type": "work-of-art"}]}
    assert client.post("/api/extract", json=given).json()["entities"][0]["type"] == "work-of-art"
    given["entities"][0]["type"] = "PER"
    assert "none of PRODUCT, TEAM, work-of-art" in client.post("/api/extract", json=given).json()["error"]
    for example in client.get("/api/examples").json():
        assert client.post("/api/extract", json=example).status_code == 200


def test_a_model_of_relations_alone_accepts_entities_of_any_type(
    make_client: MakeClient, make_trained: Callable[..., TrainedModel]
) -> None:
    labels = LabelSet(("plays for", "none"), "none", {"plays for": ("PERSON", "TEAM")})
    client = make_client(Extractor([make_trained("mre", labels)]))
    assert client.get("/api/model").json()["entity_types"] == ["PERSON", "TEAM"]
    given = [{"start": 0, "end": 4, "type": "TEAM"}, {"start": 9, "end": 12, "type": "anything"}]
    found = client.post("/api/extract", json={"text": TEXT, "entities": given})
    assert [entity["type"] for entity in found.json()["entities"]] == ["TEAM", "anything"]


def test_post_labels_are_returned(
    make_client: MakeClient, make_trained: Callable[..., TrainedModel], relevance: str, picture: bytes
) -> None:
    import_plugins([relevance])
    extractor = Extractor([make_trained("relevance", LabelSet(("yes", "no"), "no"))])
    client = make_client(extractor)
    (model,) = client.get("/api/model").json()["models"]
    assert (model["task"], model["title"], model["finds"]) == ("relevance", "image-text relevance", "labels")
    found = client.post("/api/extract", json={"text": TEXT, "image": encoded(picture)}).json()
    assert found == json.loads(json.dumps(extractor.extract(TEXT, picture).to_dict()))
    assert found["labels"]["relevance"]["label"] in ("yes", "no")


def test_examples_are_accepted_by_the_service(client: TestClient, extractor: Extractor) -> None:
    examples = client.get("/api/examples").json()
    for example in examples:
        found = client.post("/api/extract", json=example).json()
        assert [entity["type"] for entity in found["entities"]] == [entity["type"] for entity in example["entities"]]
        assert all(name[:1].isupper() for name in (entity["text"] for entity in found["entities"]))


def test_a_model_of_relations_alone_reports_that_it_needs_entities(
    make_client: MakeClient, make_trained: Callable[..., TrainedModel]
) -> None:
    answer = make_client(Extractor([make_trained("mre")])).post("/api/extract", json={"text": "bob"})
    assert answer.status_code == 422
    assert "relations between given entities" in answer.json()["error"]


# The page, and allowed origins


def test_only_the_page_and_its_files_are_served(client: TestClient) -> None:
    for path in {**PAGE, **FILES}:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
    for path in ("/page.html", "/../setup.cfg", "/%2e%2e/setup.cfg", "/etc/hostname", "/docs", "/redoc"):
        assert client.get(path).status_code == 404
    assert client.get("/api/extract").status_code == 405


def test_a_local_service_accepts_only_its_own_host_names(make_client: MakeClient) -> None:
    client = make_client(hosts=allowed_hosts("127.0.0.1"))
    for host, status in {"localhost:8000": 200, "127.0.0.1": 200, "[::1]:8000": 200}.items():
        assert client.get("/api/health", headers={"Host": host}).status_code == status
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", ""):
        assert client.get("/api/health", headers={"Host": host}).status_code == 421
    assert allowed_hosts("0.0.0.0") is None


@pytest.mark.parametrize("listens_at", ["127.0.0.1", "0.0.0.0"])
def test_the_page_works_behind_a_proxy_with_an_allowed_host(make_client: MakeClient, listens_at: str) -> None:
    names = frozenset({"mmib.example.org", "mmib.example.org:8443"})
    client = make_client(hosts=allowed_hosts(listens_at, names), names=names)

    def status(host: str, origin: str) -> int:
        headers = {"Host": host, "Origin": origin}
        return client.post("/api/extract", json={"text": "bob"}, headers=headers).status_code

    for host in (
        "localhost:8000",
        "mmib.example.org",
    ):  # the proxy sends its upstream's name, or passes on the original name
        for origin in ("https://mmib.example.org", "https://MMIB.example.org:8443"):
            assert status(host, origin) == 200
        for origin in ("https://evil.example", "https://mmib.example.org:1", "https://mmib.example.org.evil.example"):
            assert status(host, origin) == 403
    assert status("evil.example", "https://mmib.example.org") == (421 if listens_at == "127.0.0.1" else 200)


def test_other_origins_are_refused(client: TestClient) -> None:
    def status(origin: str) -> int:
        headers = {"Origin": origin, "Host": "localhost:8000"}
        return client.post("/api/extract", json={"text": "bob"}, headers=headers).status_code

    origins = ("http://localhost:8000", "http://evil.example", "null", "http://[", "http://[v1]")
    assert [status(origin) for origin in origins] == [200, 403, 403, 403, 403]
    answer = client.options("/api/extract", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_requests_open_no_files(client: TestClient, picture: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/api/extract", json={"text": "bob", "image": encoded(picture)})  # load everything that is loaded once
    opened: list[Any] = []
    really = os.open

    def noting(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(path)
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", noting)
    monkeypatch.setattr("builtins.open", lambda path, *arguments, **options: opened.append(path))
    for image in (encoded(picture), "/etc/hostname"):
        client.post("/api/extract", json={"text": "bob", "image": image})
    client.post("/api/extract", data={"text": "bob"}, files={"image": ("/etc/hostname", picture)})
    assert not opened
