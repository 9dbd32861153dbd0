"""The packaged schema matches the code, and outdated schemas are detected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmib.options import schema
from mmib.options.composition import check
from mmib.options.schema import SCHEMA, classes, forms, is_of_this_code, read_schema, signatures, source_of
from mmib.schema import ConfigError

WRONG = ["--trainer.max_epoch", "3"]


def test_the_file_matches_the_parser() -> None:
    # In a separate process: other tests import classes that a configuration could name.
    program = "from mmib.training.option_schema import option_schema, text_of; print(text_of(option_schema()), end='')"
    written = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert SCHEMA.read_text(encoding="utf-8") == written, "run make schema"
    assert is_of_this_code()


def test_forms_resolve_references_and_alternatives() -> None:
    node = {"anyOf": [{"type": ["null", "integer"]}, {"$ref": "#/$defs/OptimizerSettings"}]}
    assert [form.get("title", form["type"]) for form in forms(node)] == ["null", "integer", "OptimizerSettings"]


def test_a_class_is_known_by_all_its_paths() -> None:
    known = classes({"$ref": "#/$defs/ExtractionModule"})
    assert known["mmib.MREModule"] == known["mmib.modules.MREModule"]
    assert "labels" in known["mmib.MREModule"]["properties"]


def test_third_party_classes_and_sizes_set_by_a_parent_are_not_described() -> None:
    assert not classes({"$ref": "#/$defs/Logger"})
    assert "dim" not in classes({"$ref": "#/$defs/Fusion"})["mmib.nn.fusion.LateFusion"]["properties"]


def test_signatures_change_only_with_the_parameters_of_a_class(tmp_path: Path) -> None:
    source, changed = tmp_path / "source.py", tmp_path / "changed.py"
    source.write_text("class A:\n    def __init__(self, a: int = 1) -> None:\n        self.a = a\n")
    changed.write_text("class A:\n    def __init__(self,\n a: int = 1) -> None:\n        self.b = a\n    c = 3\n")
    assert signatures(source) == signatures(changed)
    changed.write_text("class A:\n    def __init__(self, a: int = 2) -> None:\n        self.a = a\n")
    assert signatures(source) != signatures(changed)
    changed.write_text("class A:\n    b: int\n    def __init__(self, a: int = 1) -> None:\n        self.a = a\n")
    assert signatures(source) != signatures(changed)


def test_sources_are_found_without_importing_them() -> None:
    assert source_of("mmib.nn.fusion").name == "fusion.py"
    assert source_of("mmib.callbacks").parts[-2:] == ("callbacks", "__init__.py")
    assert source_of("mmib.datamodules.base").is_file()


def test_with_changed_code_the_parser_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user adds an argument to a class, and uses it before running `make schema`."""
    with pytest.raises(ConfigError, match="did you mean max_epochs"):
        check("fit", WRONG)
    changed = {**read_schema(), "signatures": {"mmib.nn.fusion": "of another time"}}
    monkeypatch.setattr(schema, "read_schema", lambda: changed)
    check("fit", WRONG)


def test_with_another_lightning_version_the_parser_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema.metadata, "version", lambda _: "2.6.99")
    read_schema.cache_clear()
    with pytest.raises(ConfigError, match="no model and no data"):
        check("fit", WRONG)
    read_schema.cache_clear()
