"""Whether W&B is used, depending on key and environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.base.wandb_mode import wandb_mode


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("netrc", "mode"), [("machine api.wandb.ai login user password key", "online"), ("nonsense", "offline")]
)
def test_a_login_in_the_netrc_file_enables_online_mode(tmp_path: Path, netrc: str, mode: str) -> None:
    assert wandb_mode() == "offline"
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode() == mode


@pytest.mark.parametrize(
    ("variable", "mode"),
    [("online", "online"), ("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")],
)
def test_the_environment_takes_precedence_over_a_key(monkeypatch: pytest.MonkeyPatch, variable: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode() == ("disabled" if variable == "disabled" else "offline")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode() == mode
