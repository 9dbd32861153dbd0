"""Study files: the combinations of named settings to train, and the seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmib.base.files import read_yaml
from mmib.configs import expand_configs
from mmib.schema import ConfigError
from mmib.search.checks import check_keys, read_mapping

KEYS = {
    "name": "a short name",
    "experiments": "a list of experiments or configuration files",
    "seeds": "a list of whole numbers",
    "baseline": "a level of one or several factors",
    "factors": "{factor: {level: list of options of mmib fit}}",
}
OPTIONAL_KEYS = {
    "search": "{seed: whole number, settings: {name: list of options of mmib fit}, options: list of such options}"
}
# Options for runs of a search that are not runs of the study: they are not scored on test.
SEARCHED = ("--evaluate", "val")

STUDY_OPTIONS = ("--seed_everything", "--runs", "--run", "--ckpt_path", "--evaluate")
# What does not belong in the name of a folder.
UNNAMED = r"[^\w.-]+"

Level = str | int | float


@dataclass(frozen=True)
class Trial:
    """One combination of settings.

    Attributes:
        levels: the level of each factor.
        options: options of `mmib fit` for its levels, in order of the factors.
    """

    levels: dict[str, Level]
    options: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(
            level if isinstance(level, str) else f"{factor} {level}" for factor, level in self.levels.items()
        )

    @property
    def tested(self) -> bool:
        """Whether its runs are scored on test if there is a test split; runs of a search may not be."""
        return SEARCHED[0] not in self.options

    def command(self, experiment: str, seed: int) -> list[str]:
        """Return the options of `mmib fit` to train the trial with a seed."""
        return ["--config", experiment, *self.options, "--seed_everything", str(seed)]

    def key(self, experiment: str, seed: int) -> str:
        """Return the name of its run's folder, which contains a hash of all options and of the settings in files.

        Comments and layout of the files do not count, so that correcting them repeats no run.
        """
        content, label = hashlib.sha256(), [Path(experiment).stem]
        expanded = iter(expand_configs(["fit", *self.command(experiment, seed)]))
        for option in expanded:
            settings = option if option != "--config" else json.dumps(read_yaml(Path(next(expanded))), default=str)
            content.update(f"{settings}\0".encode())
        options = iter(self.options)
        for option in options:
            label.append(Path(next(options)).stem if option == "--config" else option.rpartition(".")[2])
        name = re.sub(UNNAMED, "_", "-".join(label))[:80]
        return f"{name}-seed{seed}-{content.hexdigest()[:8]}"


@dataclass(frozen=True)
class Search:
    """A search among settings: each combination of levels is trained with all of them, and validation selects one.

    Attributes:
        seed: seed of all runs of the search.
        settings: {name: options}; options of a level override them.
        options: additional options for runs of the search only, such as fewer epochs. With such options, these runs
            are not reused as runs of the study, and are not scored on test.
    """

    seed: int
    settings: dict[str, tuple[str, ...]]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyFile:
    """Content of a study file.

    Attributes:
        name: name of the study.
        experiments: experiments or configuration files; each is a separate study.
        seeds: seeds with which each trial is trained.
        baseline: levels of the baseline. Comparisons are made within each level of the factors that it does not name.
        factors: {factor: {level: options}}.
        search: search among settings, the same for all levels; None without one.
        options: options of all runs; options of settings and levels override them.
    """

    name: str
    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: dict[str, Level]
    factors: dict[str, dict[Level, tuple[str, ...]]]
    search: Search | None = None
    options: tuple[str, ...] = ()

    def trials(self) -> Iterator[Trial]:
        """Yield every combination with the options of its levels; the last factor changes fastest."""
        for levels in itertools.product(*(options.items() for options in self.factors.values())):
            named = dict(zip(self.factors, (level for level, _ in levels), strict=True))
            yield Trial(named, tuple(option for _, options in levels for option in options))

    def restricted(self, chosen: Sequence[str]) -> StudyFile:
        """Return the study with one level of some factors, and a name that says so.

        Args:
            chosen: `factor=level` for each of these factors.

        Raises:
            ConfigError: there is no such factor or level, or the baseline is another level.
        """
        study = self
        for text in chosen:
            factor, _, wanted = text.partition("=")
            levels = study.factors.get(factor, {})
            kept = {level: options for level, options in levels.items() if str(level) == wanted}
            if not kept:
                choices = [f"{name}={level}" for name, levels in study.factors.items() for level in levels]
                raise ConfigError(f"--level {text} is no level of the study: choose from {', '.join(choices)}")
            if factor in study.baseline and study.baseline[factor] not in kept:
                raise ConfigError(f"--level {text} leaves out the baseline, {factor}={study.baseline[factor]}")
            name = f"{study.name}-{re.sub(UNNAMED, '_', wanted)}"
            study = replace(study, name=name, factors={**study.factors, factor: kept})
        return study

    def complete(self, trial: Trial, setting: tuple[str, ...] = ()) -> Trial:
        """Add the options of all runs, and those of a setting of the search, to a trial."""
        return replace(trial, options=(*self.options, *setting, *trial.options))

    def candidates(self, trial: Trial) -> dict[str, Trial]:
        """Return {name of a setting: trial with this setting} for the search; empty without a search."""
        settings = self.search.settings if self.search else {}
        return {name: self.complete(trial, options) for name, options in settings.items()}

    def searched(self, candidate: Trial) -> Trial:
        """Return the trial that the search trains for a candidate."""
        if self.search is None or not self.search.options:
            return candidate
        return replace(candidate, options=(*candidate.options, *self.search.options, *SEARCHED))


def read_study_file(path: Path) -> StudyFile:
    """Read and check a study file.

    Raises:
        ConfigError: the file is missing or malformed; the message names the key.
    """
    content = read_mapping(path, "study file", "; ".join(f"{key}: {form}" for key, form in KEYS.items()))
    check_keys(content, KEYS | OPTIONAL_KEYS, str(path))
    for key, form in KEYS.items():
        if not content.get(key):
            raise ConfigError(f"{path}: {key!r} is missing: {form}")
    if not re.fullmatch(r"\w[\w.-]*", str(content["name"])):
        raise ConfigError(
            f"{path}: the name {content['name']!r} names a folder: letters, digits, '.', '-' and '_' only"
        )
    factors = content["factors"]
    if not isinstance(factors, dict) or not all(isinstance(levels, dict) and levels for levels in factors.values()):
        raise ConfigError(f"{path}: 'factors' must be {KEYS['factors']}")
    study = StudyFile(
        str(content["name"]),
        tuple(_list_of(str, content, "experiments", path)),
        tuple(_list_of(int, content, "seeds", path)),
        content["baseline"],
        {name: _levels(f"level {{!r}} of {name!r}", levels, path) for name, levels in factors.items()},
        _search(content["search"], path) if "search" in content else None,
    )
    _check_baseline(study, path)
    _check_experiments(study, path)
    return study


def _levels(title: str, levels: dict[Any, Any], path: Path) -> dict[Any, tuple[str, ...]]:
    for level, options in levels.items():
        here = f"{path}: the {title.format(level)}"
        if isinstance(level, bool) or not isinstance(level, str | int | float):
            raise ConfigError(f"{here} is neither a name nor a number: quote it")
        if isinstance(options, dict) and "search" in options:
            raise ConfigError(f"{here} has a search: levels must share it to be comparable; put it beside 'factors'")
        check_options(options, here)
    return {level: tuple(map(str, options)) for level, options in levels.items()}


def check_options(options: Any, title: str) -> tuple[str, ...]:
    """Check options of `mmib fit` in a study.

    Raises:
        ConfigError: the options are not a list, or set an option that the study sets; the message starts with `title`.
    """
    if not isinstance(options, list):
        raise ConfigError(f'{title} must be a list of options of mmib fit, such as [--model.gamma, "0.3"]')
    reserved = [name for name in (str(option).partition("=")[0] for option in options) if name in STUDY_OPTIONS]
    if reserved:
        raise ConfigError(f"{title} cannot set {reserved[0]}: the study sets it")
    return tuple(map(str, options))


def _search(content: Any, path: Path) -> Search:
    form = OPTIONAL_KEYS["search"]
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: 'search' must be {form}")
    check_keys(content, ("seed", "settings", "options"), f"{path}: 'search'")
    seed, settings = content.get("seed"), content.get("settings")
    if type(seed) is not int or not isinstance(settings, dict):
        raise ConfigError(f"{path}: 'search' must be {form}")
    if len(settings) < 2:
        raise ConfigError(f"{path}: 'search' has {len(settings)} settings: there is nothing to choose between")
    named = {str(name): options for name, options in settings.items()}
    options = check_options(content.get("options", []), f"{path}: the options of 'search'")
    return Search(seed, _levels("setting {!r} of 'search'", named, path), options)


def _list_of(item_type: type, content: dict[str, Any], key: str, path: Path) -> list[Any]:
    values = content[key]
    if not isinstance(values, list) or not all(type(value) is item_type for value in values):
        raise ConfigError(f"{path}: {key!r} must be {KEYS[key]}")
    if len(set(values)) < len(values):
        raise ConfigError(f"{path}: {key!r} names one twice: {values}")
    return values


def _check_baseline(study: StudyFile, path: Path) -> None:
    if not isinstance(study.baseline, dict):
        raise ConfigError(f"{path}: 'baseline' must be {{factor: level}}, {KEYS['baseline']}")
    for factor, level in study.baseline.items():
        if level not in list(study.factors.get(factor, {})):  # a list, as unhashable values cannot be looked up
            choices = {name: list(levels) for name, levels in study.factors.items()}
            raise ConfigError(f"{path}: the baseline {factor}: {level!r} is no level: choose from {choices}")


def _check_experiments(study: StudyFile, path: Path) -> None:
    """Check that results of the experiments have different folders."""
    names: dict[str, str] = {}
    for experiment in study.experiments:
        other = names.setdefault(Path(experiment).stem, experiment)
        if other != experiment:
            raise ConfigError(
                f"{path}: the experiments {other} and {experiment} would share the folder of results "
                f"{Path(experiment).stem!r}: rename one of the files"
            )
