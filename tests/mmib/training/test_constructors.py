import mmib.encoders.text
import mmib.optim
from mmib.training.constructors import named_class, parameters_of


def test_parameters_include_those_of_base_classes_receiving_kwargs() -> None:
    assert set(parameters_of("mmib.optim.OptimizerSettings")) >= {"lr", "warmup"}
    assert {"self", "args", "kwargs"}.isdisjoint(parameters_of("mmib.encoders.text.TextEncoder"))


def test_classes_that_are_not_imported_have_no_parameters() -> None:
    assert named_class("nowhere.Nothing") is None
    assert parameters_of("nowhere.Nothing") == {}
    assert parameters_of("") == {}


def test_a_dotted_path_refers_to_the_class_itself() -> None:
    assert named_class("mmib.optim.OptimizerSettings") is mmib.optim.OptimizerSettings
