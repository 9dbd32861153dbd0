"""Train the published settings on the real data sets with several seeds, and compare with published scores.

    python -m experiments.reproduce --data-root /path/to/data --seeds 1 2 3 -- --trainer.accelerator gpu

Arguments after `--` are options of `mmib fit` for every run. Finished runs are not repeated and interrupted ones are
resumed, so the same command continues an interrupted reproduction. docs/how-to/reproduction.md describes the data
folders and the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmib.analysis.comparison import compare
from mmib.base.files import checksum, write_text
from mmib.datamodules.check.texts import count_posts
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.readers import Reader
from mmib.datamodules.released import RELEASED, RELEASED_LABELS, TITLES
from mmib.datamodules.twitter_files import TwitterReader
from mmib.runs.reader import FinishedRun
from mmib.schema import DataError, MMIBError
from mmib.search.trials import TrialError, finished_run, run_trial

SPLITS = ("train", "val", "test")
METRICS = {"precision": "P", "recall": "R", "f1": "F1", "strict_f1": "strict F1", "accuracy": "accuracy"}
ROOT_HINT = (
    "--data-root names the folder that holds mnre/, twitter2015/ and twitter2017/: see docs/how-to/reproduction.md; "
    "--sets leaves sets out"
)
ENCODER_HINT = (
    "where the encoders could not be loaded: --settings published needs bert-base-uncased and resnet50 from the model "
    "hub, or local copies: -- --model.backbone.text_encoder.name /path/to/bert-base-uncased "
    "--model.backbone.image_encoder.weights /path/to/resnet50.safetensors; --settings offline needs neither"
)


class Counted(NamedTuple):
    """Counts for a split.

    Attributes:
        counts: the counts of `mmib check-data`, by name.
        images: names of the images, without duplicates.
        found: number of images that exist.
    """

    counts: dict[str, int]
    images: set[str]
    found: int


@dataclass(frozen=True)
class DataSet:
    """One of the real data sets.

    Attributes:
        name: key of its released counts.
        experiment: name of its experiments, without the settings.
        folder: root of its files, relative to the data root.
        open: creates its reader, from the root of its files.
    """

    name: str
    experiment: str
    folder: str
    open: Callable[[Path], Reader]

    @property
    def title(self) -> str:
        """Display name."""
        return TITLES[self.name]

    @property
    def released(self) -> dict[str, dict[str, int]]:
        """Counts of each released split (docs/how-to/reproduction.md)."""
        return RELEASED[self.name]

    def reader(self, data_root: Path) -> Reader:
        """Create its reader for a data root."""
        return self.open(data_root / self.folder)


def count(reader: Reader, split: str) -> Counted:
    """Count the posts and images of a split.

    Raises:
        DataError: the file is missing or malformed.
    """
    posts = list(reader.posts(split))
    images = {post.image for post in posts if post.image}
    found = sum(map(bool, reader.pictures(split, images, max_crops=0)))
    return Counted(count_posts(posts, reader.rows, RELEASED_LABELS[reader.corpus]), images, found)


SETS = {
    "mnre": DataSet("mnre", "mre-mnre", "mnre", MNREReader),
    "twitter2015": DataSet("twitter2015", "mner-twitter2015", ".", partial(TwitterReader, year=2015)),
    "twitter2017": DataSet("twitter2017", "mner-twitter2017", ".", partial(TwitterReader, year=2017)),
}
KINDS = {"negative": "None", "entities_strict": "in strict IOB2"}


class Published(NamedTuple):
    """Test F1 in percent, as stated on a web page that could be opened; empty if it states none."""

    system: str
    twitter2015: str
    twitter2017: str
    mnre: str
    source: str


DEEPKE_NER = "zjunlp/DeepKE, example/ner/multimodal/README.md"
DEEPKE_RE = "zjunlp/DeepKE, example/re/multimodal/README.md"
MORE = "modelscope/AdaSeq, examples/MoRe/README.md"
PG_MRE = "quoted by PG-MRE (AAAI 2025, doi 10.1609/aaai.v39i24.34795)"
PUBLISHED = (
    Published("CNN-BiLSTM-CRF (text)", "", "79.37", "", DEEPKE_NER),
    Published("BERT-CRF (text)", "", "83.44", "", DEEPKE_NER),
    Published("PCNN (text)", "", "", "53.59", DEEPKE_RE),
    Published("BERT (text)", "", "", "59.32", DEEPKE_RE),
    Published("MTB (text)", "", "", "64.20", DEEPKE_RE),
    Published("UMT (ACL 2020)", "73.41", "85.31", "", MORE),
    Published("UMT, its authors' released logs", "73.20", "85.09", "", "jefferyYu/UMT, log files"),
    Published("RpBERT (AAAI 2021)", "74.90", "", "", MORE),
    Published("UMGF (AAAI 2021)", "74.85", "85.51", "", MORE),
    Published("MEGA (ACM MM 2021)", "", "", "66.41", DEEPKE_RE),
    Published("MKGformer (SIGIR 2022)", "", "87.49", "", "zjunlp/MKGformer, issue 10; a user got 86.54"),
    Published("HVPNeT (NAACL 2022), a user's runs", "75.30 / 73.27", "", "", "zjunlp/HVPNeT, issues 14 and 27"),
    Published("HVPNeT, as published", "", "", "81.85", PG_MRE),
    Published("IFAformer (2022)", "", "87.39", "81.67", f"{DEEPKE_NER} and {DEEPKE_RE}"),
    Published("ITA (NAACL 2022)", "78.03", "89.75", "", MORE),
    Published("MoRe, text-only baseline (EMNLP 2022)", "77.04", "89.11", "", MORE),
    Published("MoRe-Text", "77.79", "89.49", "", MORE),
    Published("MoRe-Image", "77.57", "90.28", "", MORE),
    Published("TSVFN", "", "", "83.02", PG_MRE),
    Published("HVFormer", "", "", "83.39", PG_MRE),
    Published("MMIB (2023)", "", "", "83.23", PG_MRE),
    Published("MRE-ISE (ACL 2023)", "", "", "84.03", PG_MRE),
    Published("PGIM (2023; text by ChatGPT)", "79.33", "91.43", "", "paperswithcode page"),
    Published(
        "I2SRM (MMAsia 2023)", "77.12", "88.40", "84.12", "abstract of arXiv 2310.06326; its script: RoBERTa-large"
    ),
    Published("Group-level fusion (Electronics 2025)", "", "", "84.16", "abstract of Electronics 14(8), 1682"),
    Published("TMR (ACL 2023; generated images)", "", "", "89.05", PG_MRE),
    Published("PG-MRE (AAAI 2025; explanations by GPT-4o mini)", "", "", "91.82", "doi 10.1609/aaai.v39i24.34795"),
)
NOTES = (
    "mmib chooses its checkpoint on validation and scores the test split once. The released code of MMIB (for "
    "entities) and that of MKGformer look at the test split after every epoch and keep the best.",
    "Entity scores are read as seqeval does by default, as papers do; strict IOB2 stands beside. The two differ on "
    "Twitter-2015, whose labels hold stray I- tags.",
    "Twitter-2015 circulates with original and with repaired labels: the two figures of HVPNeT above are a user's runs "
    "on repaired and on original ones. The counts below tell which these are.",
    "MMIB's figure for MNRE is the one that PG-MRE quotes; its figures for Twitter could not be checked against the "
    "paper and are left out.",
)
SETTINGS_NOTES = {
    "published": "Settings are those of MMIB's released code as far as they are known: its published commands do not "
    "run as written. What is done otherwise, and why: docs/explanation/method.md.",
    "offline": "These are **not** the published settings: encoders are those that come as packages (MiniLM of "
    "6 layers, a fifth of the size of BERT-base, and EfficientNet-Lite0).",
}


@dataclass
class Reproduction:
    """The trials of a reproduction, and their results so far.

    Attributes:
        names: keys of `SETS`.
        seeds: seeds of the runs.
        settings: `published` or `offline`.
        options: further options of `mmib fit`.
        root: the data root.
        folder: the folder of runs and table.
        data: counts by set and split; splits that do not exist are missing.
        runs: finished runs by set.
        failures: reason why the runs of a set were given up, by set.
    """

    names: list[str]
    seeds: list[int]
    settings: str
    options: list[str]
    root: Path
    folder: Path
    data: dict[str, dict[str, Counted]] = field(default_factory=dict)
    runs: dict[str, list[FinishedRun]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> Path:
        """Path of the table."""
        return self.folder / "table.md"

    def split(self, name: str) -> str:
        """The split reported for a set."""
        return "test" if "test" in self.data[name] else "val"

    def trial(self, name: str, seed: int) -> tuple[list[str], Path]:
        """Options and folder of a run. The folder depends on the options: runs with other options are never reused."""
        options = ["--config", f"{SETS[name].experiment}-{self.settings}"]
        options += ["--data.root", str(self.root / SETS[name].folder), "--seed_everything", str(seed), *self.options]
        key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:8]
        return options, self.folder / f"{name}-{self.settings}-seed{seed}-{key}"


def check_data(root: Path, name: str) -> dict[str, Counted]:
    """Read the text of a set's splits, and print their counts.

    Raises:
        DataError: the training or validation split is missing, or a file is malformed.
    """
    data_set = SETS[name]
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist ({ROOT_HINT})")
    reader, counts = data_set.reader(root), {}
    for split in SPLITS:
        if split == "test" and not reader.has_split(split):
            print(
                f"{data_set.title}, test: {reader.text_file(split)} is not there; validation scores are reported, "
                "which are no test scores"
            )
            continue
        try:
            counts[split] = counted = count(reader, split)
        except DataError as error:
            raise DataError(f"{error}\n({ROOT_HINT})") from error
        print(
            f"{data_set.title}, {split}: {_listed(counted.counts)}{_as_released(data_set, split, counted)}; "
            f"{counted.found:,} of {len(counted.images):,} images"
        )
    return counts


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {KINDS.get(name, name)}" for name, number in counts.items())


def _as_released(data_set: DataSet, split: str, counted: Counted) -> str:
    released = data_set.released[split]
    return ", as released" if counted.counts == released else f", NOT as released ({_listed(released)})"


def _training_rows(counted: dict[str, Counted]) -> int:
    """Number of training rows, or posts: the first of the counts."""
    return next(iter(counted["train"].counts.values()))


def run_all(work: Reproduction) -> None:
    """Run every trial, beginning with the first seed of all sets; write the table after each run.

    A failed run ends its set, as its other seeds would fail too.
    """
    todo = [(name, seed) for seed in work.seeds for name in work.names]
    rows, spent = 0, 0.0
    for number, (name, seed) in enumerate(todo, start=1):
        if name in work.failures:
            continue
        options, folder = work.trial(name, seed)
        known, started = finished_run(folder) is not None, time.monotonic()
        trial = f"[{number}/{len(todo)}] {SETS[name].title}, seed {seed}"
        print(f"{trial}: {'is done' if known else f'runs; its output: {folder}'}", flush=True)
        try:
            run = run_trial(options, folder)
        except TrialError as error:
            work.failures[name] = f"seed {seed}: {error}"
            print(f"{trial}: failed: {error}", file=sys.stderr, flush=True)
            continue
        assert run is not None, "nothing asks it to stop"
        work.runs.setdefault(name, []).append(run)
        write_text(work.table, describe(work))
        if not known:
            # Assumes that time grows with training rows; accurate from the second seed on, once every set has been run.
            spent += time.monotonic() - started
            rows += _training_rows(work.data[name])
        left = sum(_training_rows(work.data[later]) for later, _ in todo[number:] if later not in work.failures)
        print(
            f"{trial}: {work.split(name)} F1 {100 * run.summary[work.split(name)]['f1']:.1f}"
            + (f"; about {_duration(spent / rows * left)} left" if rows and left else ""),
            flush=True,
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def describe(work: Reproduction) -> str:
    """Format the page of tables, in Markdown."""
    finished = {name: work.runs[name] for name in work.names if name in work.runs}
    scored = {name: compare({SETS[name].title: runs}, work.split(name)) for name, runs in finished.items()}
    seeds = " ".join(map(str, work.seeds))
    ours = [_f1(work, name) if name in finished else "" for name in ("twitter2015", "twitter2017", "mnre")]
    systems = [[f"**mmib, {work.settings} settings, seeds {seeds}**", *ours, "this run"], *map(list, PUBLISHED)]
    details = []
    for name, runs in finished.items():
        row = scored[name].rows[0]
        cells = [_mean([run.summary[work.split(name)].get(metric) for run in runs]) for metric in METRICS]
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        details.append([SETS[name].title, work.split(name), " ".join(str(run.seed) for run in runs), *cells, interval])
    notes = [*_warnings(work), SETTINGS_NOTES[work.settings], *NOTES]
    notes += dict.fromkeys(note for comparison in scored.values() for note in comparison.notes)
    listed = "\n".join(f"- {note}" for note in notes)
    command = shlex.join(["python", "-m", "experiments.reproduce", *sys.argv[1:]])
    return f"""# Reproduction

`{command}`

F1 in percent on the test split, mean ± standard deviation over seeds for mmib; each published figure has the page that
states it.

{_markdown(["system", "Twitter-2015", "Twitter-2017", "MNRE", "source"], systems)}

{_markdown(["set", "split", "seeds", *METRICS.values(), "95 % interval of F1"], details)}

{listed}

## Data

{_markdown(["set", "split", "contents", "as released", "SHA-256", "images found"], _data_rows(work))}

## Runs

{_markdown(["set", "seed", "F1", "folder"], _run_rows(work))}
"""


def _f1(work: Reproduction, name: str) -> str:
    score = _mean([run.summary[work.split(name)]["f1"] for run in work.runs[name]])
    return score if work.split(name) == "test" else f"{score} (validation)"


def _mean(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation in percent; empty if the task has no such score."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.mean(known):.1f}" + (f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def _warnings(work: Reproduction) -> list[str]:
    found = []
    for name in work.names:
        title, data_set = SETS[name].title, SETS[name]
        if "test" not in work.data[name]:
            found.append(
                f"**{title}: no test scores.** Its test split is not there. Validation scores stand in their place; "
                "they flatter, since the checkpoint was chosen on them, and do not compare with published ones."
            )
        other = [split for split, counted in work.data[name].items() if counted.counts != data_set.released[split]]
        if other:
            found.append(f"**{title}: the data is not as released** ({', '.join(other)}): figures do not compare.")
        missing = [seed for seed in work.seeds if seed not in {run.seed for run in work.runs.get(name, [])}]
        if missing:
            reason = work.failures.get(name, "not run yet")
            found.append(f"**{title}: without seed {', '.join(map(str, missing))}**: {reason}")
    return found


def _data_rows(work: Reproduction) -> list[list[str]]:
    rows = []
    for name in work.names:
        data_set = SETS[name]
        for split, counted in work.data[name].items():
            digest = checksum(data_set.reader(work.root).text_file(split))
            same = "yes" if counted.counts == data_set.released[split] else _listed(data_set.released[split])
            images = work.runs[name][0].summary["images"].get(split, "") if name in work.runs else ""
            rows.append([data_set.title, split, _listed(counted.counts), same, digest[:12], images])
    return rows


def _run_rows(work: Reproduction) -> list[list[str]]:
    return [
        [SETS[name].title, str(run.seed), _mean([run.summary[work.split(name)]["f1"]]), str(run.folder)]
        for name in work.names
        for run in work.runs.get(name, [])
    ]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None yet."
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 if a run failed, 2 if nothing could be run, each with one message."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds mnre/, twitter2015/, …")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--settings", choices=SETTINGS_NOTES, default="published")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("options", nargs="*", help="behind --: further options of mmib fit")
    chosen = parser.parse_args(argv)
    names, seeds = list(dict.fromkeys(chosen.sets)), list(dict.fromkeys(chosen.seeds))
    folder = chosen.runs / "reproduce"
    work = Reproduction(names, seeds, chosen.settings, chosen.options, chosen.data_root, folder)
    try:
        work.data = {name: check_data(work.root, name) for name in work.names}
        run_all(work)
        write_text(work.table, describe(work))
    except MMIBError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    print(f"table: {work.table}")
    if work.failures and work.settings == "published":
        print(f"reproduce: {ENCODER_HINT}", file=sys.stderr)
    return int(bool(work.failures))


if __name__ == "__main__":
    raise SystemExit(main())
