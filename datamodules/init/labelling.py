"""The label set of a data set: the labels of its posts, and the negative class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from mmib.datamodules.init.recognise import MRE, Found
from mmib.datamodules.init.survey import Survey
from mmib.datamodules.labels import LabelSource, label_set
from mmib.datamodules.readers import Reader
from mmib.datamodules.released import KNOWN_LABELS, RELEASED_LABELS
from mmib.datamodules.split_files import SplitReader
from mmib.labels import LabelSet, shown
from mmib.schema import ConfigError, DataError

# A label may be a typo if it is this much rarer than one that is at least this similar.
RARE, ALIKE = 0.2, 0.75
# Common names of the negative class, in lower case.
USUAL_NEGATIVES = ("none", "no_relation", "no relation", "norelation", "na", "n/a", "other")


class Labelling(NamedTuple):
    """A label set.

    Attributes:
        labels: the label set.
        source: its form in a configuration.
        remarks: the assumptions made, and the options that change them.
    """

    labels: LabelSet
    source: LabelSource
    remarks: list[str]


def labelling(found: Found, reader: Reader, splits: Sequence[Survey], negative: str | None) -> Labelling:
    """Determine the label set of a data set.

    Args:
        found: the data.
        reader: reader of the data.
        splits: surveys of the splits.
        negative: the negative relation; None for a relation with a common name, if there is one.

    Raises:
        ConfigError: there is no such relation, several have common names, or the data has no relations.
        DataError: nothing is labelled, or the data set's own list lacks a label.
    """
    names = sorted({name for split in splits for name in split.labels})
    if negative is not None and found.task != MRE:
        raise ConfigError(f"--negative {negative} names a relation, and {found.title} hold entities: leave it out")
    if not names and negative is None:
        malformed = [error for split in splits for error in split.malformed]
        reason = f"; the first error in it is: {malformed[0]}" if malformed else ""
        raise DataError(
            f"{reader.text_file('train')} holds nothing that is labelled: there is nothing to learn{reason}"
        )
    known = None if isinstance(reader, SplitReader) else RELEASED_LABELS.get(reader.corpus)
    listed = _listed(reader, names)
    if known is not None and negative is None and set(names) <= set(known.names) and listed in (None, known.names):
        source = next(name for name, labels in KNOWN_LABELS.items() if labels == known)
        return Labelling(known, source, [])
    negative, remarks = _negative(found, listed or tuple(names), negative)
    if listed is None:
        listed = tuple(dict.fromkeys(([negative] if negative is not None else []) + names))
    labels = LabelSet(listed, negative)
    return Labelling(labels, labels.to_dict(), [*remarks, *_unseen(labels, splits), *_misspelt(splits)])


def _listed(reader: Reader, names: Sequence[str]) -> tuple[str, ...] | None:
    """The labels in the order of the data set's own list, or None without one."""
    file = reader.label_file
    if file is None or not file.is_file():
        return None
    listed = label_set(str(file)).names
    lacking = [name for name in names if name not in listed]
    if lacking:
        raise DataError(f"{file} lacks {shown(lacking)}, which is in the posts: add it there, or remove the file")
    return listed


def _negative(found: Found, names: Sequence[str], given: str | None) -> tuple[str | None, list[str]]:
    """The negative relation, and remarks on it."""
    if found.task != MRE:
        return None, []
    if given is not None:
        if given not in names and not found.makes_negatives:
            raise ConfigError(f"--negative {given!r} is not one of the relations {shown(names)}: name one of them")
        return given, []
    usual = [name for name in names if name.lower() in USUAL_NEGATIVES]
    if len(usual) > 1:
        raise ConfigError(f"{shown(usual)} could all stand for no relation: choose with --negative")
    if usual:
        return usual[0], [f"{usual[0]!r} means no relation, and scores leave it out: --negative names another"]
    more = ", or gives pairs of entities without a relation one" if found.makes_negatives else ""
    return None, [f"no relation is named {USUAL_NEGATIVES[0]!r} or similar, so all count: --negative names one{more}"]


def _unseen(labels: LabelSet, splits: Sequence[Survey]) -> list[str]:
    """Report labels that no training post has."""
    lacking = [name for name in labels.names if not splits[0].labels[name] and name != labels.negative]
    pronoun = "it" if len(lacking) == 1 else "they"
    return [f"no training post has {shown(lacking)}: {pronoun} cannot be learnt"] if lacking else []


def _misspelt(splits: Sequence[Survey]) -> list[str]:
    """Report rare labels that are similar to a frequent one."""
    counts = sum((split.labels for split in splits), Counter[str]())
    remarks = []
    for name, count in counts.items():
        frequent = [other for other in counts if RARE * counts[other] >= count and other != name]
        alike = get_close_matches(name.lower(), [other.lower() for other in frequent], 1, ALIKE)
        if alike:
            other = next(other for other in frequent if other.lower() == alike[0])
            place = next(split.places[name] for split in splits if name in split.places)
            remarks.append(
                f"{name!r} ({count:,}, first at {place}) is nearly {other!r} ({counts[other]:,}): correct it if it is "
                "a typo"
            )
    return remarks
