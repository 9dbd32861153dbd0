"""The code of docs/how-to/library.md runs unchanged, with tiny encoders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmib.training.train import Scores

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "library.md"


@pytest.mark.filterwarnings("ignore")
def test_the_blocks_of_the_page_run_in_order(
    workspace: Any,
    encoder_files: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    code = "\n".join(blocks)
    for name, tiny in {
        '"mre-demo"': repr(str(workspace.experiment)),
        '"pip:minilm-l6"': repr(encoder_files.text),
        '"pip:efficientnet-lite0"': f"'test_resnet', weights={encoder_files.image!r}",
    }.items():
        assert name in code
        code = code.replace(name, tiny)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    scores = names["scores"]
    assert isinstance(scores, Scores)
    assert (scores.folder / "summary.json").is_file()
    assert scores.folder.parent.name == "from-python"
    assert names["test"].keys() >= {"test/f1", "test/precision", "test/recall", "test/accuracy"}
    assert list(tmp_path.glob("lightning_logs/version_0/*")), "the default logger, whichever is installed"
    assert names["objective"].loss.isfinite()
    output = capsys.readouterr().out
    assert re.search(r"\d+ of \d+ wrong", output)
    assert "'relations'" in output
    assert "'f1'" in output
