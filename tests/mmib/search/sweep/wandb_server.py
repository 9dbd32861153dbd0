"""A local stub of the W&B API that suffices to register a sweep and run agents."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY = "somebody"


class WandbServer(ThreadingHTTPServer):
    """Gives each agent one trial, and ends the agent after it.

    Attributes:
        trials: values of the trial of each sweep, by name.
        registered: the file of each sweep as received, by name.
    """

    daemon_threads = True

    def __init__(self, trials: dict[str, dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.trials = trials
        self.registered: dict[str, str] = {}
        self.beats: dict[str, int] = {}

    @property
    def address(self) -> str:
        """For WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        if "viewer" in query:
            teams: dict[str, Any] = {"edges": []}
            return {
                "viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
            }
        if "upsertSweep" in query:
            name = yaml.safe_load(variables["config"])["name"]
            self.registered[name] = variables["config"]
            project = {"id": "1", "name": variables["projectName"], "entity": {"id": "1", "name": ENTITY}}
            return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}
        if "SweepWithRuns" in query:
            name = variables["sweep"]
            config = self.registered[name]
            return {"project": {"sweep": {"id": name, "name": name, "config": config, "runs": {"edges": []}}}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": variables["sweep"]}}}
        if "agentHeartbeat" in query:
            commands = self.commands(variables["id"], json.loads(variables["runState"]))
            return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}
        return {}

    def commands(self, name: str, running: dict[str, Any]) -> list[dict[str, Any]]:
        """The next commands of an agent."""
        self.beats[name] = self.beats.get(name, 0) + 1
        if self.beats[name] > 1:
            return [] if running else [{"type": "exit"}]
        arguments = {parameter: {"value": value} for parameter, value in sorted(self.trials[name].items())}
        program = yaml.safe_load(self.registered[name])["program"]
        return [{"type": "run", "run_id": "run1", "program": program, "args": arguments}]


class Handler(BaseHTTPRequestHandler):
    """Handles HTTP requests."""

    server: WandbServer

    def do_POST(self) -> None:
        """Answer GraphQL requests, and ignore others."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        data: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(body)
            data = self.server.answer(request["query"], request.get("variables") or {})
        content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def wandb_server(trials: dict[str, dict[str, Any]]) -> Iterator[WandbServer]:
    """A server that runs in a thread."""
    with WandbServer(trials) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
