"""The tutorials run unchanged: their `sh` and `python` blocks in order, with tiny encoders and a tiny corpus."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mmib.cli import main
from mmib.extract.extractor import Extractor
from mmib.serve.app import create_app
from mmib.serve.limits import Limits

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
QUICK = ["--wandb=off", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SUMMARIES = "runs/*/*/summary.json"
DEMO = ["--data.root=data/tiny", "--data.demo.size=tiny"]

pytestmark = [pytest.mark.slow, pytest.mark.fresh_weights, pytest.mark.filterwarnings("ignore")]


class Reader:
    """Somebody who types what the pages say into a shell and an interpreter, in a folder.

    Args:
        options: added to each training.
    """

    def __init__(self, options: list[str]) -> None:
        self.options = options

    def follow(self, page: str) -> None:
        text = (TUTORIALS / page).read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S):
            if language == "python":
                exec(compile(block, page, "exec"), {})
                continue
            for line in block.splitlines():
                self.type(shlex.split(line))

    def type(self, words: list[str]) -> None:
        program, *arguments = words
        if program == "curl":
            self.ask(arguments)
            return
        assert program == "mmib"
        runs = sorted(Path("runs").glob("*/*-seed*"))
        arguments = [argument.replace("RUN", str(runs[0])) if runs else argument for argument in arguments]
        if arguments[0] == "fit":
            arguments += [*self.options, *(DEMO if "mre-demo" in arguments else [])]
        assert main(arguments) == 0, f"mmib {shlex.join(arguments)}"

    def ask(self, arguments: list[str]) -> None:
        url, options = arguments[0], arguments[1:]
        path = url.removeprefix("localhost:8000")
        with TestClient(create_app(Extractor.from_pretrained("exports"), Limits()), "http://localhost:8000") as client:
            if "-d" in options:
                answer = client.post(path, json=json.loads(options[options.index("-d") + 1]))
            else:
                answer = client.get(path)
        assert answer.status_code == 200, answer.text


def test_the_first_run_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_files: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Reader([*QUICK, *encoder_files.options()]).follow("first-run.md")
    trained, scored = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(tmp_path.glob(SUMMARIES)))
    assert {"val", "test"} <= trained.keys()
    assert scored["images"]["test"].startswith("0 of ")
    assert list(tmp_path.glob("runs/first/*/report.html"))


def test_the_custom_data_and_production_tutorials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader([*QUICK, *encoder_files.options()])
    reader.follow("your-data.md")
    (summary,) = tmp_path.glob(SUMMARIES)
    assert json.loads(summary.read_text(encoding="utf-8"))["labels"] == {"names": ["PRODUCT", "TEAM"]}
    capsys.readouterr()
    reader.follow("production.md")
    assert len((tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()) == 60
    assert "'entities'" in capsys.readouterr().out
