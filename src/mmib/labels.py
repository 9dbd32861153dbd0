"""Label sets: they belong to a data set, and are saved with every model trained on it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from mmib.schema import ConfigError

NAMES, NEGATIVE, ARGUMENTS = "names", "negative", "arguments"
NAMES_SHOWN = 8


@dataclass(frozen=True)
class LabelSet:
    """The labels of a data set: relations, entity types, or classes of whole posts.

    Attributes:
        names: the labels; a label's position is its id.
        negative: the label that means none of the others, and is left out of scores; None if all labels are scored.
        arguments: {relation: (type of head, type of tail)}; a relation that is not listed may hold between any two
            entities.

    Raises:
        ConfigError: If there is no label, a label is repeated or is no string, or `negative` or `arguments` name a
            label that is not in the set.
    """

    names: tuple[str, ...]
    negative: str | None = None
    arguments: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the label set."""
        if not self.names:
            raise ConfigError("the label set is empty: name at least one label")
        for name in self.names:
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"the label {name!r} is no text: quote it, as in '{name}'")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(f"the label set names {', '.join(twice)} more than once: name each label once")
        if self.negative is not None and self.negative not in self.names:
            raise ConfigError(
                f"the negative class {self.negative!r} is not one of the labels {shown(self.names)}: name one of them, "
                "or leave 'negative' out where all labels count"
            )
        unknown = sorted(set(self.arguments) - set(self.names), key=str)
        if unknown:
            raise ConfigError(f"'arguments' names {unknown[0]!r}, which is not one of the labels {shown(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """Return the id of a label.

        Raises:
            KeyError: If the label is not in the set.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(name) from None

    @property
    def scored(self) -> tuple[str, ...]:
        """All labels but the negative one."""
        return tuple(name for name in self.names if name != self.negative)

    def fits(self, name: str, head: str | None, tail: str | None) -> bool:
        """Whether a relation may hold between entities of these types; an unknown type (None) fits everything."""
        if name == self.negative:
            return False
        wanted = self.arguments.get(name, (None, None))
        return all(None in (found, asked) or found == asked for found, asked in zip((head, tail), wanted, strict=True))

    def may_relate(self, head: str | None, tail: str | None) -> bool:
        """Whether any relation may hold between entities of these types, in this order."""
        return any(self.fits(name, head, tail) for name in self.names)

    def relates(self, types: Sequence[str]) -> bool:
        """Whether any relation may hold between two entities of these types."""
        return any(itertools.starmap(self.may_relate, itertools.product(types, repeat=2)))

    @property
    def argument_types(self) -> list[str]:
        """Entity types that relations take as arguments, without duplicates."""
        return list(dict.fromkeys(name for pair in self.arguments.values() for name in pair))

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON and YAML, without unset fields."""
        result: dict[str, Any] = {NAMES: list(self.names)}
        if self.negative is not None:
            result[NEGATIVE] = self.negative
        if self.arguments:
            result[ARGUMENTS] = {name: list(types) for name, types in self.arguments.items()}
        return result

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Build a label set from the result of `to_dict`, or from a list of labels, without a negative class.

        Raises:
            ConfigError: If `value` is no label set.
        """
        if isinstance(value, list | tuple):
            value = {NAMES: value}
        if not isinstance(value, dict) or not isinstance(value.get(NAMES), list | tuple):
            raise ConfigError(f"{value!r} is no label set: give a list of labels, or a mapping with '{NAMES}'")
        more = sorted(value.keys() - {NAMES, NEGATIVE, ARGUMENTS}, key=str)
        if more:
            raise ConfigError(
                f"the label set has the key {more[0]!r}: choose from '{NAMES}', '{NEGATIVE}' and '{ARGUMENTS}'"
            )
        arguments = value.get(ARGUMENTS) or {}
        if not isinstance(arguments, dict) or not all(_is_pair(types) for types in arguments.values()):
            raise ConfigError(
                f"'{ARGUMENTS}' of the label set is {arguments!r}: give {{relation: [head type, tail type]}}"
            )
        pairs = {name: (types[0], types[1]) for name, types in arguments.items()}
        return cls(tuple(value[NAMES]), value.get(NEGATIVE), pairs)

    def __str__(self) -> str:
        negative = "" if self.negative is None else f" (negative: {self.negative})"
        noun = "label" if len(self.names) == 1 else "labels"
        return f"{len(self.names):,} {noun}, {shown(self.names)}{negative}"

    def __hash__(self) -> int:
        return hash((self.names, self.negative, tuple(sorted(self.arguments.items()))))


def difference(ours: LabelSet, theirs: LabelSet) -> str:
    """Describe both label sets and how they differ; empty if they are equal."""
    if ours == theirs:
        return ""
    missing = [name for name in theirs.names if name not in ours.names]
    more = [name for name in ours.names if name not in theirs.names]
    details = [
        *([f"{shown(more)} only in the first"] if more else []),
        *([f"{shown(missing)} only in the second"] if missing else []),
        *(["in another order"] if not more and not missing and ours.names != theirs.names else []),
        *(["another negative class"] if ours.negative != theirs.negative else []),
        *(["other argument types"] if dict(ours.arguments) != dict(theirs.arguments) else []),
    ]
    return f"{ours} against {theirs}: {'; '.join(details)}"


def shown(names: Sequence[str], most: int = NAMES_SHOWN) -> str:
    """Return the first names, and the number of the remaining ones, for a message."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _is_pair(types: Any) -> bool:
    return isinstance(types, list | tuple) and len(types) == 2 and all(isinstance(name, str) for name in types)
