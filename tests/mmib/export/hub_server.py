"""A local stub of a model hub that supports the huggingface_hub requests to create, list and download models.

Written after huggingface_hub's client code; all files are regular ones, without LFS or Xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_local"
COMMIT = "c" * 40


class Hub:
    """State of the hub.

    Attributes:
        address: address of the hub.
        models: files of each model by their paths.
        private: models that only `TOKEN` may see.
        answer: a status returned for every request; None for real answers.
        asked: methods and paths of requests.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.answer: int | None = None
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.answer is not None:
            self.reply(self.hub.answer, {"error": "refused"})
            return
        may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command == "POST" and not may_write:
            self.reply(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.reply(200, {"errors": [], "warnings": []})
        else:
            self.of_model(path, body, may_write)

    do_GET = do_POST = do_HEAD = handle_request  # noqa: N815 - names of the base class

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        exists = name in self.hub.models
        if not exists:
            self.hub.models[name] = {}
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private.add(name)
        self.reply(409 if exists else 200, {"url": f"{self.hub.address}/{name}", "name": name})

    def of_model(self, path: str, body: bytes, may_write: bool) -> None:
        is_api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        files = self.hub.models.get(name)
        if files is None or (name in self.hub.private and not may_write):
            # The hub says so of what is private too, and 401 to those it does not know.
            self.reply(404 if may_write else 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif is_api and rest[:1] == ["preupload"]:
            asked = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            self.reply(200, {"files": modes})
        elif is_api and rest[:1] == ["commit"]:
            lines = [json.loads(line) for line in body.splitlines()]
            added = [line["value"] for line in lines if line["key"] == "file"]
            files.update({one["path"]: base64.b64decode(one["content"]) for one in added})
            for line in lines:
                if line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            self.reply(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
        elif is_api and rest[:1] == ["tree"]:
            self.reply(200, [self.listed(path, content) for path, content in files.items()])
        elif is_api:
            if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
                self.reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
                return
            siblings = [{"rfilename": path} for path in files]
            private = name in self.hub.private
            self.reply(200, {"id": name, "sha": COMMIT, "private": private, "siblings": siblings})
        else:  # name/resolve/revision/path
            self.download(files["/".join(rest[2:])])

    @staticmethod
    def listed(path: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def download(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.reply(200, content, headers)

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows what fails."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at a free port of this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    Handler.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
