"""Label sets from a configuration: a known set, a file, or the labels themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmib.base.files import parse_json, read_yaml
from mmib.datamodules.files import read_lines
from mmib.datamodules.released import KNOWN_LABELS
from mmib.labels import NAMES, LabelSet, shown
from mmib.schema import ConfigError, DataError

# The value of `data.labels` in a configuration.
LabelSource = str | list[str] | dict[str, Any]

FILE = "file"
ENDINGS = (".json", ".txt", ".yaml", ".yml")
CONFIGURATION = ("data", "model")  # sections of every configuration that mmib init writes
LAYOUT = "data.labels names a known label set, a file of labels, or the labels themselves"


def label_set(source: LabelSource | LabelSet) -> LabelSet:
    """Return the label set of a configuration, or unchanged the one that Python code gives.

    Args:
        source: one of

            - the name of a known set, `mnre` or `twitter`;
            - a file: `.json` or `.yaml` with a list of labels, with `{label: id}`, ids counted from 0, or with the
              output of `LabelSet.to_dict`; or `.txt` with one label per line;
            - a list of labels;
            - the output of `LabelSet.to_dict`, in which `file: PATH` may replace `names`;
            - in Python, a `LabelSet`.

    Raises:
        ConfigError: `source` is not one of these, or no label set.
        DataError: the file is missing, cannot be read or holds no label set.
    """
    if isinstance(source, LabelSet):
        return source
    if isinstance(source, str):
        return KNOWN_LABELS[source] if source in KNOWN_LABELS else _of_file(source)
    if not isinstance(source, dict) or FILE not in source:
        return LabelSet.from_dict(source)
    if NAMES in source or not isinstance(source[FILE], str):
        raise ConfigError(
            f"data.labels is {source!r}: give the path of a file behind '{FILE}', or the labels behind '{NAMES}'"
        )
    changes = {key: value for key, value in source.items() if key != FILE}
    return LabelSet.from_dict({**label_set(source[FILE]).to_dict(), **changes})


def unknown_label(place: str, label: str, labels: LabelSet) -> DataError:
    """Return the error for a label in the data that the configuration lacks; `place` is its `file:line`."""
    return DataError(
        f"{place}: the label {label!r} is not one of the {len(labels)} of data.labels ({shown(labels.names)}): add it "
        "there, or correct the file; mmib check-data --labels lists every such label"
    )


def _of_file(name: str) -> LabelSet:
    path = Path(name)
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"the label set {name!r} is neither a known one ({', '.join(KNOWN_LABELS)}) nor a file that ends in "
            f"{', '.join(ENDINGS)}: name one of these, or list the labels in data.labels"
        )
    if path.suffix.lower() == ".txt":
        return _of_lines(path)
    content = _content(path)
    if isinstance(content, dict) and all(isinstance(content.get(section), dict) for section in CONFIGURATION):
        raise DataError(f"{path} is a configuration: name a file of labels, or list them after data.labels; {LAYOUT}")
    try:
        is_table = isinstance(content, dict) and not isinstance(content.get(NAMES), list)
        return LabelSet.from_dict(_by_id(content) if is_table else content)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def _of_lines(path: Path) -> LabelSet:
    """Read one label per line; blank lines are ignored."""
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, LAYOUT), start=1):
        label = line.strip()
        if label in lines:
            raise DataError(f"{path}:{number}: the label {label!r} is in line {lines[label]} already: remove one")
        if label:
            lines[label] = number
    if not lines:
        raise DataError(f"{path} holds no labels: write one a line")
    return LabelSet(tuple(lines))


def _content(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path} does not exist; {LAYOUT}")
    try:
        return parse_json(path.read_text(encoding="utf-8-sig")) if path.suffix.lower() == ".json" else read_yaml(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from error


def _by_id(table: dict[Any, Any]) -> list[Any]:
    """Return the labels of `{label: id}` in the order of their ids.

    Raises:
        ConfigError: the ids are not consecutive numbers from 0.
    """
    for label, number in table.items():
        if type(number) is not int:
            raise ConfigError(f"the id of the label {label!r} is {number!r}: give each label a number, counted from 0")
    labels = {number: label for label, number in table.items()}
    expected = range(len(table))
    lacking = [number for number in expected if number not in labels]
    if lacking:
        raise ConfigError(
            f"the {len(table)} labels do not have the ids 0 to {len(table) - 1}, each once: no label has {lacking[0]}"
        )
    return [labels[number] for number in expected]
