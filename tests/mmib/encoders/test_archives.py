"""Where fetched encoders are searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmib.encoders.archives import store
from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder, load_tokenizer
from mmib.schema import EncoderError


@pytest.fixture(autouse=True)
def _nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMIB_ENCODERS", str(tmp_path / "store"))


def test_the_store_is_in_the_users_cache_unless_a_variable_overrides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store().name == "store"
    monkeypatch.delenv("MMIB_ENCODERS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert store() == Path("/cache/mmib/encoders")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert store() == Path("/home/ada/.cache/mmib/encoders")


@pytest.mark.parametrize("load", [TextEncoder, load_tokenizer])
def test_an_encoder_that_was_not_fetched_is_named_with_the_command(load: type) -> None:
    with pytest.raises(EncoderError, match="pip:mpnet-base is not installed: run `mmib fetch-encoder mpnet-base`"):
        load("pip:mpnet-base")


def test_weights_damaged_in_the_store_are_refused_with_the_command() -> None:
    weights = store() / "mpnet-base" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    with pytest.raises(EncoderError, match=r"has SHA-256 .* reinstall it with `mmib fetch-encoder mpnet-base`"):
        TextEncoder("pip:mpnet-base")


def test_a_fetched_text_encoder_is_no_image_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmib.encoders.image.packaged_file", Path)
    with pytest.raises(EncoderError, match="pip:mpnet-base is not an image encoder"):
        ImageEncoder("pip:mpnet-base")
