import mmib.encoders.text
import mmib.optim
from mmib.training.constructors import named_class, parameters_of


def test_parameters_are_those_of_the_class_and_of_what_it_hands_them_on_to() -> None:
    assert set(parameters_of("mmib.optim.OptimizerSettings")) >= {"lr", "warmup"}
    assert {"self", "args", "kwargs"}.isdisjoint(parameters_of("mmib.encoders.text.TextEncoder"))


def test_what_nobody_imported_has_no_parameters() -> None:
    assert named_class("nowhere.Nothing") is None
    assert parameters_of("nowhere.Nothing") == {}
    assert parameters_of("") == {}


def test_a_dotted_path_names_the_class_itself() -> None:
    assert named_class("mmib.optim.OptimizerSettings") is mmib.optim.OptimizerSettings
