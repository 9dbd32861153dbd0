"""Shortens errors of the trainer commands' parser to one sentence: key, problem, and suggestion."""

from __future__ import annotations

import re
from collections.abc import Collection

from mmib.base.argument_parser import UNKNOWN
from mmib.base.wording import did_you_mean
from mmib.training.constructors import parameters_of

KEY = re.compile(r'Parser key "([^"]+)":')
CLASS = re.compile(r"given class_path '([\w.]+)'|class_path='([\w.]+)'")
OPTION = re.compile(r"Option '([^']+)' is not accepted")
COMMAND_OPTION = re.compile(r"Subcommand '(\w+)' does not accept option '([^']+)'")
NO_CLASS = ("has no attribute", "No module named")
NO_MODULE = re.compile(r"No module named '(\w+)'")
# Parameters whose type is a callable take a class, by path or as a mapping with class_path.
CALLABLE = "expects a function or a callable class:"
NO_CALLABLE = re.compile(rf"{CALLABLE} .*\. Got value: ([\w.]+)$", re.MULTILINE)
NO_PATH = "expected path but"
# Lines of parser messages that do not describe the problem.
FRAME = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Problem with given class_path")
NONE = "Expected a <class 'NoneType'>"
GIVEN = "Given value: "
WORDING = (
    (re.compile(r"Expected a typing\.Literal\[(.*?)\]"), r"choose from \1"),
    (re.compile(r"<class '(?:\w+\.)*(\w+)'>"), r"\1"),
    (re.compile(rf"^Type .* {CALLABLE} ?"), ""),
    (re.compile(r"\. Got value: Namespace\(.*\)$"), ""),
    (re.compile(r"((?:has no attribute|No module named) '\w+')\. Got value: .*"), r"\1"),
    (
        re.compile(r"Expected (?:a )?dot import path string: (\w+)"),
        r"there is no class \1: name its module too, as in module.\1",
    ),
    (re.compile(r"^Expected an? "), "expected "),
    (re.compile(r"\. Got value: "), ", got "),
)


def in_one_sentence(message: str, options: Collection[str]) -> str:
    """Shorten a message of jsonargparse to its reasons.

    Args:
        message: the message, of any number of lines.
        options: dotted names of the options outside of model and data.
    """
    if message.startswith(UNKNOWN):
        option = message.removeprefix(UNKNOWN).split()[0]
        return f"{option} is no option{_advice(option.partition('=')[0].lstrip('-'), options)}"
    if refused := COMMAND_OPTION.search(message):
        return f"{refused[2]} is no option of mmib {refused[1]}{_advice(refused[2], options)}"
    key = ".".join(KEY.findall(message))
    classes = [one or other for one, other in CLASS.findall(message)]
    if classes and (refused := OPTION.search(message)):
        names = parameters_of(classes[-1])
        choice = did_you_mean(refused[1], names) or f": choose from {', '.join(sorted(names))}"
        return f"{key}.{refused[1]} is no option of {classes[-1].rpartition('.')[2]}{choice}"
    reasons = _reasons(message, with_value=not classes)
    if classes and any(text in reasons for text in NO_CLASS):
        named = NO_CALLABLE.findall(message)
        return f"{key}: there is no class {(named or classes)[-1]} ({reasons}){_where(reasons)}"
    return f"{key}: {reasons}" if key else reasons


def _where(reasons: str) -> str:
    """How Python finds the module of a custom class, if that is the reason."""
    if not (missing := NO_MODULE.search(reasons)):
        return ""
    return f"; if it is in a file {missing[1]}.py, put the file's folder on PYTHONPATH, as in PYTHONPATH=. mmib fit …"


def _advice(wrong: str, options: Collection[str]) -> str:
    return did_you_mean(wrong, options) or "; --help lists all options"


def _reasons(message: str, with_value: bool) -> str:
    found = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if text and text != NONE and not text.startswith((*FRAME, GIVEN)) and not KEY.fullmatch(text):
            for pattern, words in WORDING:
                text = pattern.sub(words, KEY.sub("", text).strip())
            if text:
                found.append(text)
        elif with_value and text.startswith(GIVEN):
            found.append(f"got {text.removeprefix(GIVEN)!r}")
    # A value that is no class and no file either fails for both reasons; the class was meant.
    classes = [reason for reason in found if not reason.startswith(NO_PATH)]
    return ", ".join(dict.fromkeys(classes or found))
