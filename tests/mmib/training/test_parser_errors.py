"""Multi-line parser errors become one sentence that names the key, the reason and a suggestion."""

from __future__ import annotations

import importlib

import pytest

from mmib.training.parser_errors import in_one_sentence

OPTIONS = ("seed_everything", "wandb", "trainer.max_epochs", "trainer.devices")
NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'mmib.modules.ExtractionModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "backbone":
          Problem with given class_path 'mmib.backbone.MultimodalIB':
            Parser key "text_encoder":
              Problem with given class_path 'mmib.encoders.text.TextEncoder':
                Option 'nam' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'init_args': {'backbone': {'init_args': {'text_encoder': {'init_args': {'nam': 1}}}}}}"""
CALLABLE = """Parser key "model":
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "fusion":
          Type collections.abc.Callable[[int], mmib.nn.fusion.Fusion] expects a function or a callable class: Option \
'dropuot' is not accepted. Got value: Namespace(class_path='mmib.nn.fusion.CrossModalFusion', init_args=None)
    - Expected a <class 'NoneType'>"""
VALUE = """Parser key "trainer.max_epochs":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'int'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: many"""
INNER_VALUE = """Parser key "model":
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "gamma":
          Expected a <class 'float'>. Got value: x
    - Expected a <class 'NoneType'>
  Given value: {'init_args': {'gamma': 'x'}}"""
NO_CLASS = """Parser key "data":
  Errors:
    - Problem with given class_path 'mmib.datamodules.nowhere.Module':
        module 'datamodules' has no attribute 'nowhere'
    - Expected a <class 'NoneType'>
  Given value: {'class_path': 'mmib.datamodules.nowhere.Module'}"""

CALLABLE_VALUE = """Parser key "model":
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "fusion":
          Type collections.abc.Callable[[int], mmib.nn.fusion.Fusion] expects a function or a callable class: Parser \
key "dropout":
            Expected a <class 'float'>. Got value: x. Got value: Namespace(class_path='mine.Mine', init_args=None)
    - Expected a <class 'NoneType'>"""
NO_CALLABLE = """Parser key "model":
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "fusion":

          - Expected a path but mine.Fusoin either not accessible or invalid
          - Type collections.abc.Callable[[int], mmib.nn.fusion.Fusion] expects a function or a callable class: \
module 'mine' has no attribute 'Fusoin'. Got value: mine.Fusoin
    - Expected a <class 'NoneType'>"""
NO_MODULE = """Parser key "model":
  Errors:
    - Problem with given class_path 'mmib.modules.MREModule':
        Parser key "fusion":
          Type collections.abc.Callable[[int], mmib.nn.fusion.Fusion] expects a function or a callable class: No \
module named 'mine'. Got value: Namespace(class_path='mine.Fusion')
    - Expected a <class 'NoneType'>"""
NO_PATH = """Parser key "data":
  Errors:
    - Expected a path but Posts either not accessible or invalid
    - Expected a dot import path string: Posts"""


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """Import the classes that are imported after the parser has read a configuration."""
    for module in ("mmib.encoders.text", "mmib.nn.fusion", "mmib.optim"):
        importlib.import_module(module)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (NESTED, "model.backbone.text_encoder.nam is no option of TextEncoder: did you mean name?"),
        (CALLABLE, "model.fusion.dropuot is no option of CrossModalFusion: did you mean dropout?"),
        (NESTED.replace("'nam'", "'zzz'"), "model.backbone.text_encoder.zzz is no option of TextEncoder: choose from "),
        (VALUE, "trainer.max_epochs: expected int, got 'many'"),
        (INNER_VALUE, "model.gamma: expected float, got x"),
        (NO_CLASS, "data: there is no class mmib.datamodules.nowhere.Module (module 'datamodules' has no attribute"),
        (CALLABLE_VALUE, "model.fusion.dropout: expected float, got x"),
        (NO_CALLABLE, "model.fusion: there is no class mine.Fusoin (module 'mine' has no attribute 'Fusoin')"),
        (
            NO_MODULE,
            "model.fusion: there is no class mine.Fusion (No module named 'mine'); if it is in a file mine.py, put the",
        ),
        (NO_PATH, "data: there is no class Posts: name its module too, as in module.Posts"),
        (
            "Parser key \"wandb\":\n  Expected a typing.Literal['auto', 'off']. Got value: perhaps",
            "wandb: choose from 'auto', 'off', got perhaps",
        ),
        (
            "Subcommand 'fit' does not accept option 'trainer.max_epoch'",
            "trainer.max_epoch is no option of mmib fit: did you mean trainer.max_epochs?",
        ),
        (
            "unrecognized arguments: --sed_everything=1 x",
            "--sed_everything=1 is no option: did you mean seed_everything?",
        ),
        ("unrecognized arguments: --wild", "--wild is no option; --help lists all options"),
        ("something new\n  of two lines", "something new, of two lines"),
    ],
)
def test_a_message_becomes_one_sentence(message: str, sentence: str) -> None:
    output = in_one_sentence(message, OPTIONS)
    assert output.startswith(sentence)
    assert "\n" not in output
