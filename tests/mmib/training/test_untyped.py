"""Custom classes with unannotated parameters: missing values are reported, and valid ones are accepted."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmib.schema import ConfigError
from mmib.training.untyped import check_untyped

MODULE = "untyped_parts"
PARTS = """
from pytorch_lightning import Callback

from mmib.backbone import Regularizer
from mmib.datamodules.demo.module import DemoMREDataModule
from mmib.modules import MREModule
from mmib.nn.fusion import CrossModalFusion


class Term(Regularizer):
    def __init__(self, file, weight=1.0):
        super().__init__()

    def forward(self, output, batch):
        raise NotImplementedError


class Fusion(CrossModalFusion):
    def __init__(self, dim, file=None, heads=4):
        super().__init__(dim, heads=heads)


class FileFusion(Fusion):
    def __init__(self, dim, file, **options):
        super().__init__(dim, **options)


class Data(DemoMREDataModule):
    def __init__(self, root, file, text_encoder, image_encoder, **options):
        super().__init__(root, text_encoder=text_encoder, image_encoder=image_encoder, **options)


class Model(MREModule):
    def __init__(self, backbone, labels, **options):
        super().__init__(backbone, labels, **options)


class Report(Callback):
    def __init__(self, file):
        self.file = file
"""


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module stays imported: classes of deleted modules would break code that lists all subclasses."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / f"{MODULE}.py").write_text(PARTS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        importlib.import_module(MODULE)
        yield


@pytest.mark.parametrize(
    ("options", "place", "name"),
    [
        (["--model.regularizers", f"[{{class_path: {MODULE}.Term}}]"], r"model\.regularizers\.0", "Term"),
        (["--model.backbone.fusion", f"{MODULE}.FileFusion"], r"model\.backbone\.fusion", "FileFusion"),
        (["--data", f"{MODULE}.Data"], "data", "Data"),
        (["--trainer.callbacks+", f"{MODULE}.Report"], r"trainer\.callbacks\.\d+", "Report"),
    ],
)
def test_a_missing_value_is_named_with_class_and_parameter(
    refused: Callable[..., str], workspace: Any, options: list[str], place: str, name: str
) -> None:
    message = refused("fit", "--config", str(workspace.experiment), *options).splitlines()[-1]
    expected = (
        rf"mmib: {place}\.file is missing: {MODULE}\.{name} takes 'file' without a default; give it a value, and in "
    )
    assert re.match(expected + r"__init__ a type annotation, as in `file: str`$", message), message


def test_a_class_for_a_parameter_without_annotation_is_refused(refused: Callable[..., str], workspace: Any) -> None:
    message = refused("fit", "--config", str(workspace.experiment), "--model", f"{MODULE}.Model")
    assert f"mmib: model.backbone cannot be built: {MODULE}.Model takes 'backbone' without a type annotation" in message
    assert "as in `backbone: MultimodalIB`" in message.splitlines()[-1]


def test_complete_classes_are_accepted(refused: Callable[..., str], workspace: Any) -> None:
    """The error concerns something else: the dim of a fusion and the encoders of a data module come from the model."""
    parts = ["--model.backbone.fusion", f"{MODULE}.Fusion", "--data", f"{MODULE}.Data", "--data.file", "a.txt"]
    message = refused("fit", "--config", str(workspace.experiment), *parts, "--model.gamma", "-1")
    assert "gamma is -1.0" in message.splitlines()[-1]


def test_functions_builtins_and_unknown_classes_are_skipped() -> None:
    for path in ("builtins.dict", "math.pi", "nowhere.Class"):
        check_untyped([{"class_path": path, "init_args": {"file": None}}], "model")
    with pytest.raises(ConfigError, match=r"^x\.0\.inner\.file is missing: .*\.needy takes 'file'"):
        check_untyped([{"inner": {"class_path": f"{__name__}.needy", "init_args": {"file": None}}}], "x")


def needy(file):  # type: ignore[no-untyped-def]
    return file
