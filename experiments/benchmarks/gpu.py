"""Run all GPU benchmarks with one command in at most eight minutes; writes a JSON file and a Markdown table.

    python -m experiments.benchmarks.gpu --output runs/bench-gpu
    python -m experiments.benchmarks.gpu --size tiny --no-compile       # a rehearsal on any CPU, about ten seconds
    python -m experiments.benchmarks.gpu --sections parity training --budget 240

It needs no network and no pretrained weights: all weights are random. The most important sections come first; a section
that fails or exceeds its share of the budget is reported with its error, and the others continue. Both files are
rewritten after each section, so that they survive if the process is killed. Posts are from the demo corpus unless
`--bundle` or `--data-root` has real ones; images are generated.

A machine without network and without this project's packages needs a bundle, made on a machine with a network
(`make gpu-bundle`): a folder with the missing packages as wheels, a tokenizer and the text of the sets. On the GPU
machine:

    python3 -m pip install --quiet --no-index --no-deps --target .gpu/site .gpu/wheels/*.whl
    PYTHONPATH=src:.:.gpu/site python3 -m experiments.benchmarks.gpu --bundle .gpu --output OUT

The exit status is 1 if a measurement failed, or if float32 results differ from float64 on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._dynamo.config
from torch import Tensor

from experiments.benchmarks import cache, cost, crf, inference, parity
from experiments.benchmarks.bundle import TEXT, TOKENIZER
from experiments.benchmarks.corpus import DATA_ROOT, SETS, open_set, read_set, write_set
from experiments.benchmarks.measure import (
    Clock,
    best_device,
    in_turns,
    machine,
    spread,
    tf32,
    to_standard_error,
)
from experiments.benchmarks.memory import memory
from experiments.benchmarks.recipe import (
    ENCODERS,
    PUBLISHED,
    WORKERS,
    Setup,
    build_module,
    make_loader,
    make_optimizer,
    running_as,
    training_step,
)
from experiments.benchmarks.scaling import OURS, random_batch
from experiments.benchmarks.sections import (
    Figure,
    Result,
    Section,
    failures,
    figure,
    first_line,
    markdown,
    run,
    write_report,
)
from experiments.benchmarks.training import Bench, fit_epoch, quiet_lightning, row_lengths
from experiments.benchmarks.varlen import Encoders as PaddedAndPacked
from experiments.benchmarks.waiting import HostReads, Trace, trace
from mmib.callbacks.monitor import IBMonitor
from mmib.datamodules.base import PostDataModule
from mmib.encoders.image import ImageEncoder
from mmib.modules import ExtractionModule
from mmib.schema import ConfigError, PostBatch

BUDGET = 480.0
NAME = "gpu"
# Limits relative to float64 on the CPU, without TF32: they separate rounding from errors.
LOSS_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-3
WARM_UP = 2


class Arithmetic(NamedTuple):
    """Whether float32 products may be computed in TF32, and whether mixed precision is used."""

    tf32: bool
    bf16: bool


ARITHMETIC = {"float32": Arithmetic(False, False), "TF32": Arithmetic(True, False), "bf16": Arithmetic(True, True)}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        encoders: a key of `ENCODERS`.
        rows: rows of a pass over a set; a multiple of the batch sizes, with enough large batches for all workers.
        batch_sizes: batch sizes to compare.
        repeats: repeats of each measurement.
        parity: rows and word pieces of the batch whose gradients are compared.
        peak: size of the square matrices that measure the ceiling.
        bandwidth: number of values in each array that measures the memory bandwidth.
        pictured: rows of a set with their own images, and number of all rows if images must not repeat.
        crf: numbers of posts and words.
        posts: numbers of posts in a batch, for the variants of attention.
        steps: steps of a profile.
    """

    encoders: str = "base"
    rows: int = 1024
    batch_sizes: tuple[int, ...] = (16, 64, 256)
    repeats: int = 2
    parity: tuple[int, int] = (8, 40)
    peak: int = 8192
    bandwidth: int = 2**28
    pictured: int = 256
    crf: tuple[tuple[int, int], ...] = ((16, 24), (64, 64), (256, 24))
    posts: tuple[int, ...] = (64, 256)
    steps: int = 5


SIZES = {"full": Sizes(), "tiny": Sizes("tiny", 2, (2,), 1, (3, 12), 64, 2**16, 2, ((2, 5),), (3,), 1)}


@dataclass
class Workbench:
    """State shared by the sections.

    Attributes:
        folder: folder for all files.
        device: the device to measure.
        sizes: sizes of the measurements.
        data_root: folder that may have the text of the real sets.
        tokenizer: folder of a tokenizer; None for that of the package.
        compiled: whether `torch.compile` is measured too.
        peaks: operations per second of matrix products by arithmetic, once measured.
    """

    folder: Path
    device: torch.device
    sizes: Sizes
    data_root: Path
    tokenizer: Path | None
    compiled: bool
    peaks: dict[str, float] = field(default_factory=dict)

    def sections(self) -> list[Section]:
        """All sections, the most important first."""
        return [
            Section("parity", "difference of a step from the CPU's in float64, relative", 0.25, self.parity),
            Section("ceilings", "rates of this machine: matrix products, memory", 0.1, self.ceilings),
            Section(
                "training", "MNRE, loading included; times the recipe in float32", 0.5, partial(self.rates, "mnre")
            ),
            Section("memory", "MNRE, peak of a training step; times the recipe in float32", 0.1, self.memory),
            Section("inference", "MNRE, from files to predictions; times the recipe", 0.2, self.inference),
            Section("cache", "image features; times decoding and encoding at each step", 0.15, self.cache),
            Section("crf", "loss and gradients, decoding; times as long as ours", 0.15, self.crf),
            Section("varlen", "text encoder forward and backward; times as long as padded", 0.15, self.varlen),
            Section("monitor", "Trainer.fit with IBMonitor; times as long as without", 0.15, self.monitor),
            Section("waiting", "where the device waits for the host", 0.25, self.waiting),
            Section(
                "training-mner",
                "Twitter-2017, loading included; times the recipe in float32",
                0.5,
                partial(self.rates, "twitter2017"),
            ),
        ]

    def module(self, task: str, compiled: bool = False) -> ExtractionModule:
        """Build a model with the same random weights each time, whose blocks can optionally be compiled."""
        torch.manual_seed(0)
        text = Path(tempfile.mkdtemp(dir=self.folder))
        encoders = ENCODERS[self.sizes.encoders]
        return build_module(task, encoders, text, compiled, self.tokenizer).to(self.device)

    def set_folder(self, name: str, rows: int | None = None) -> Path:
        """Folder of a set with this many rows, written on first use."""
        rows = rows or self.sizes.rows
        folder = self.folder / f"{name}-{rows}"
        if not folder.is_dir():
            unfinished = folder.with_suffix(".part")  # the section may be stopped while writing
            source = write_set(unfinished, name, rows, self.data_root, self.sizes.pictured)
            unfinished.rename(folder)
            to_standard_error(f"{name}, {rows} rows: {source}")
        return folder

    def data(
        self, name: str, module: ExtractionModule, batch_size: int, rows: int | None = None, cached: bool = True
    ) -> PostDataModule:
        """Read a set, with features of its images or with pixels."""
        features = self.folder / "cache" if cached else None
        data = open_set(self.set_folder(name, rows), name, module, features, batch_size=batch_size)
        read_set(data)
        return data

    def batch(self, name: str, module: ExtractionModule, rows: int, setup: Setup) -> PostBatch:
        """Generate a random batch on the device, with the shapes that a setup has on a set."""
        posts, (pieces, _) = SETS[name], cost.LENGTHS[name]
        length = posts.max_length if setup.padded else round(pieces)
        batch = random_batch(module, rows, length, posts.regions)
        if setup.cached:
            return batch
        size = module.image_encoder.input_size
        pixels = torch.randn(rows * posts.regions, *size, device=self.device)
        return replace(batch, features=None, pixels=pixels)

    def parity(self) -> Iterator[Figure]:
        """Compare loss and gradients of both tasks in each arithmetic; compiled ones last, as compiling is slow."""
        compiled: list[tuple[str, Callable[[], parity.Step], parity.Step]] = []
        for task in ("mre", "mner"):
            module = self.module(task)
            batch = parity.ragged_batch(module, *self.sizes.parity, regions=4)
            reference = parity.reference_step(module, batch)
            ways: dict[str, Callable[[], parity.Step]] = {
                "CPU, float32": lambda module=module, batch=batch: parity.step(module.cpu(), batch),
                **{
                    f"{self.device.type}, {name}": partial(
                        self._step, module, batch, replace(OURS, bf16=arithmetic.bf16), arithmetic.tf32
                    )
                    for name, arithmetic in ARITHMETIC.items()
                },
            }
            for name, step in ways.items():
                yield from _compared(f"{task}, {name}", step, reference, limited="float32" in name)
            if self.compiled:
                step = partial(self._compiled_step, task, batch)
                compiled.append((task, step, reference))
        for task, step, reference in compiled:
            yield from _compared(f"{task}, {self.device.type}, float32, compiled", step, reference, limited=True)

    def _step(self, module: ExtractionModule, batch: PostBatch, setup: Setup, in_tf32: bool) -> parity.Step:
        return parity.step(module.to(self.device), batch, setup, in_tf32)

    def _compiled_step(self, task: str, batch: PostBatch) -> parity.Step:
        return self._step(self.module(task, compiled=True), batch, replace(OURS, compiled=True), False)

    def ceilings(self) -> Iterator[Figure]:
        """Measure the ceilings of the machine."""
        for name, arithmetic in ARITHMETIC.items():
            dtype = torch.bfloat16 if arithmetic.bf16 else torch.float32
            with tf32(arithmetic.tf32):
                found = figure(
                    f"product of two square matrices of {self.sizes.peak}, {name}",
                    "TFLOP/s",
                    lambda dtype=dtype: cost.measure_peak(dtype, self.device, self.sizes.peak) / 1e12,
                )
            if found.value is not None:
                self.peaks[name] = 1e12 * found.value.median
            yield found
        yield figure(
            "sum of two arrays, read and written",
            "GB/s",
            lambda: cost.measure_bandwidth(self.device, self.sizes.bandwidth) / 1e9,
        )

    def rates(self, name: str) -> Iterator[Figure]:
        """Rows per second of training by batch size and arithmetic, compiled or not, and of the recipe."""
        task, compiled = SETS[name].task, self.compiled
        try:
            module = self.module(task, compiled)
        except ConfigError as error:  # no compiler is available
            yield Figure("torch.compile", error=first_line(error))
            module, compiled = self.module(task), False
        first: dict[int, float] = {}
        for batch_size in self.sizes.batch_sizes:
            lines = {f"recipe, {a}": (a, PUBLISHED) for a in ("float32", "TF32")}
            lines |= {f"ours, {a}": (a, replace(OURS, bf16=ARITHMETIC[a].bf16)) for a in ARITHMETIC}
            yield from self._rates(name, module, batch_size, lines, first)
        for batch_size in self.sizes.batch_sizes if compiled else ():
            # The most common arithmetic comes first, as each is compiled separately.
            lines = {
                f"ours, {a}, compiled": (a, replace(OURS, bf16=ARITHMETIC[a].bf16, compiled=True))
                for a in reversed(ARITHMETIC)
            }
            yield from self._rates(name, module, batch_size, lines, first)

    def _rates(
        self,
        name: str,
        module: ExtractionModule,
        batch_size: int,
        lines: Mapping[str, tuple[str, Setup]],
        first: dict[int, float],
    ) -> Iterator[Figure]:
        """Measure lines in turns; `first` has the recipe's rate by batch size, once measured."""
        cached = {setup.cached for _, setup in lines.values()}
        data = {features: self.data(name, module, batch_size, cached=features) for features in cached}
        bench = Bench(
            module,
            {fused: make_optimizer(module, fused) for fused in {s.fused for _, s in lines.values()}},
            {s: make_loader(data[s.cached], s, SETS[name], WORKERS) for _, s in lines.values()},
            self.sizes.rows,
            from_request=True,
        )

        def rate(label: str) -> float:
            arithmetic, setup = lines[label]
            with tf32(ARITHMETIC[arithmetic].tf32):
                return bench.run(setup)

        measures: dict[str, Callable[[], float]] = {}
        warm_up: dict[str, float] = {}
        for label in lines:
            try:
                warm_up[label] = self.sizes.rows / rate(label)
            except Exception as error:  # the other lines can still be measured
                yield Figure(f"batch {batch_size}, {label}", unit="rows/s", error=first_line(error))
            else:
                measures[label] = partial(rate, label)
        length = float(np.mean(row_lengths(next(iter(data.values())))))
        for label, values in in_turns(measures, self.sizes.repeats, to_standard_error).items():
            arithmetic, setup = lines[label]
            rows = spread(values)
            if label == "recipe, float32":
                first[batch_size] = rows.median
            note = ""
            if setup.compiled:
                note = f"warm-up {warm_up[label] - self.sizes.rows / rows.median:.0f} s"
            yield Figure(
                f"batch {batch_size}, {label}",
                rows,
                "rows/s",
                rows.median / first[batch_size] if batch_size in first else None,
                self._share(arithmetic, rows.median * self._row_flops(name, length, batch_size, setup)),
                note,
            )

    def _row_flops(self, name: str, length: float, batch_size: int, setup: Setup) -> float:
        """Operations per row in training, by formula, without the padding up to the batch's longest row."""
        encoders, posts = ENCODERS[self.sizes.encoders], SETS[name]
        image, width = cost.image_cost(encoders.image)
        shapes = cost.shapes_of(name, length, batch_size, encoders.text, width)
        if setup.padded:
            shapes = replace(shapes, length=posts.max_length, queries=posts.max_length)
        network = cost.total(list(cost.row_cost(shapes).values())).training
        return network + (0.0 if setup.cached else posts.regions * image)

    def _share(self, arithmetic: str, flops: float) -> float | None:
        """Operations per second relative to the measured ceiling."""
        return flops / self.peaks[arithmetic] if arithmetic in self.peaks else None

    def memory(self) -> Iterator[Figure]:
        """Measure the peak memory of a step with AdamW."""
        module = self.module("mre")
        for rows in self.sizes.batch_sizes:
            recipe: float | None = None  # stays None if the recipe, which is first, fails
            for number, (label, setup) in enumerate(
                {
                    "recipe, float32": PUBLISHED,
                    "ours, float32": OURS,
                    "ours, bf16": replace(OURS, bf16=True),
                }.items()
            ):
                found = figure(f"batch {rows}, {label}", "MB", partial(self._peak, module, rows, setup))
                if found.value is not None:
                    recipe = found.value.median if number == 0 else recipe
                    found.times = found.value.median / recipe if recipe else None
                yield found

    def _peak(self, module: ExtractionModule, rows: int, setup: Setup) -> float:
        """Peak memory in megabytes: allocated by PyTorch on a GPU, or of the process on a CPU."""
        module.zero_grad()
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            memory()
        self._run_steps(module, self.batch("mnre", module, rows, setup), setup, WARM_UP)
        return torch.cuda.max_memory_allocated(self.device) / 1e6 if on_gpu else memory()["peak"]

    def _run_steps(self, module: ExtractionModule, batch: PostBatch, setup: Setup, steps: int) -> None:
        optimizer = make_optimizer(module, setup.fused)
        with running_as(module, setup) as running:
            running.train()
            for _ in range(steps):
                training_step(running, optimizer, batch, setup)

    def inference(self) -> Iterator[Figure]:
        """Measure inference from files to predictions, and the forward pass of small batches."""
        module = self.module("mre")
        # Each row has its own images, which ours encodes once and the recipe at every repetition.
        rows, filled = self.sizes.pictured, self.folder / "cache"
        folder = self.set_folder("mnre", rows)
        self.data("mnre", module, inference.OUR_BATCH, rows)
        recipe: float | None = None
        for number, (label, way) in enumerate(inference.WAYS.items()):
            measure = partial(inference.run, module, folder, "mnre", way, filled, WORKERS)
            found = figure(
                f"{label}, batch {way.batch_size}",
                "rows/s",
                lambda measure=measure: [measure() for _ in range(self.sizes.repeats + 1)][1:],
            )
            if found.value is not None:
                recipe = found.value.median if number == 0 else recipe
                found.times = found.value.median / recipe if recipe else None
            yield found
        module.eval()
        for count in (1, *self.sizes.batch_sizes):
            batch = self.batch("mnre", module, count, OURS)
            for name, arithmetic in ARITHMETIC.items():
                way = inference.Way(OURS, count, bf16=arithmetic.bf16)
                with tf32(arithmetic.tf32):
                    yield figure(
                        f"forward pass and evidence of {count} rows, {name}",
                        "ms",
                        partial(self._milliseconds, partial(inference.predict, module, batch, way)),
                    )

    def _milliseconds(self, call: Callable[[], object]) -> list[float]:
        """Milliseconds of a call, one value per repeat."""
        clock, found = Clock(self.device), []
        for number in range(WARM_UP + self.sizes.repeats):
            clock.start()
            call()
            if number >= WARM_UP:
                found.append(1e3 * clock.seconds())
        return found

    def cache(self) -> Iterator[Figure]:
        """Measure decoding, encoding, and building and reading the cache."""
        torch.manual_seed(0)
        files = sorted(self.set_folder("mnre", self.sizes.pictured).rglob("*.jpg"))
        encoder = ImageEncoder(ENCODERS[self.sizes.encoders].image, pretrained=False).to(self.device)
        measures = cache.Bench(files, encoder, Path(tempfile.mkdtemp(dir=self.folder))).measures()
        found = {
            label: figure(label, "images/s", lambda measure=measure: [measure() for _ in range(self.sizes.repeats)])
            for label, measure in measures.items()
        }
        each_step = found["decode and encode at each step"].value
        for one in found.values():
            if one.value is not None and each_step is not None:
                one.times = one.value.median / each_step.median
            yield one

    def crf(self) -> Iterator[Figure]:
        """Compare our CRF with the installed packages."""
        for posts, words in self.sizes.crf:
            found = crf.compare(posts, words, self.device, self.sizes.repeats)
            notes = {name: f"differs by {value:.0e} in float64" for name, value in found.differences.items()}
            for what, times, known in (("loss and gradients", found.training, notes), ("decoding", found.decoding, {})):
                ours = spread(times[crf.OWN]).median
                for name, taken in times.items():
                    value = spread(taken)
                    yield Figure(
                        f"{posts} posts of {words} words, {what}, {name}",
                        value,
                        "ms",
                        value.median / ours,
                        note=known.get(name, ""),
                    )
        for name in ("torchcrf", "torch_struct"):
            if not crf.installed(name):
                yield Figure(name, note="not installed: left out")

    def varlen(self) -> Iterator[Figure]:
        """Compare packed with padded posts, in random order and sorted by length."""
        encoders = PaddedAndPacked(ENCODERS[self.sizes.encoders].text, self.device)
        mean = round(cost.LENGTHS["mnre"][0])
        for count in self.sizes.posts:
            for order, reach in (("in random order", mean - 4), ("of similar length", 2)):
                lengths = np.random.default_rng(0).integers(mean - reach, mean + reach + 1, count)
                encoders.read(lengths.tolist())
                what = f"{count} posts {order}"
                padding = 1 - lengths.mean() / lengths.max()
                padded = figure(
                    f"{what}, padded",
                    "ms",
                    partial(self._milliseconds, partial(self._pass, encoders.padded_states)),
                    note=f"{padding:.0%} padding",
                )
                packed = figure(
                    f"{what}, packed",
                    "ms",
                    partial(self._milliseconds, partial(self._pass, encoders.packed_states)),
                )
                if packed.value is not None and padded.value is not None:
                    packed.times = packed.value.median / padded.value.median
                yield from (padded, packed)
                yield figure(f"{what}, difference of the states", "relative", partial(self._differ, encoders))

    def _autocast(self) -> torch.autocast:
        """Autocast for PyTorch's variable-length kernel, which requires half precision on GPUs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _pass(self, states: Callable[[], Tensor]) -> None:
        with self._autocast():
            states().float().square().mean().backward()

    @torch.no_grad()
    def _differ(self, encoders: PaddedAndPacked) -> float:
        with self._autocast():
            return encoders.difference()

    def monitor(self) -> Iterator[Figure]:
        """Measure an epoch of `Trainer.fit` with and without the monitor."""
        batch_size = self.sizes.batch_sizes[0]
        module = self.module("mre")
        setup = replace(OURS, bf16=True)
        loader = make_loader(self.data("mnre", module, batch_size), setup, SETS["mnre"])
        monitors: dict[str, list[Any]] = {"without": [], "with": [IBMonitor]}
        measures: dict[str, Callable[[], float]] = {
            name: lambda kinds=kinds: 1e3 * fit_epoch(module, loader, setup, [kind() for kind in kinds]) / len(loader)
            for name, kinds in monitors.items()
        }
        found = {name: spread(values) for name, values in in_turns(measures, self.sizes.repeats).items()}
        for name, value in found.items():
            yield Figure(
                f"batch {batch_size}, bf16, {name} IBMonitor", value, "ms/step", value.median / found["without"].median
            )

    def waiting(self) -> Iterator[Figure]:
        """Count kernels, gaps and synchronisations per step."""
        # Reading a trace of many steps is slow: only few cases with larger batches.
        small, large = self.sizes.batch_sizes[0], self.sizes.batch_sizes[len(self.sizes.batch_sizes) // 2]
        ours = replace(OURS, bf16=True)
        cases = [("mnre", small, "ours, bf16", ours)]
        cases += [("twitter2017", rows, "ours, bf16", ours) for rows in sorted({small, large})]
        cases.append(("twitter2017", small, "recipe, float32", PUBLISHED))
        for case in cases:
            yield from self._profiled(*case)
        yield from self._fitted(ours, large)
        if self.compiled:
            yield from self._profiled("mnre", small, "ours, bf16, compiled", replace(ours, compiled=True))

    def _profiled(self, name: str, rows: int, label: str, setup: Setup) -> Iterator[Figure]:
        """Profile steps on random batches that are on the device."""
        what = f"{name}, batch {rows}, {label}"
        try:
            module = self.module(SETS[name].task, setup.compiled)
            batch = self.batch(name, module, rows, setup)
            self._run_steps(module, batch, setup, WARM_UP)
            steps = self.sizes.steps
            found = trace(partial(self._run_steps, module, batch, setup, steps), steps, self.device)
            reads: HostReads | None = None
            if not setup.compiled:
                with HostReads() as reads:
                    self._run_steps(module, batch, setup, 1)
        except Exception as error:  # the other cases can still be profiled
            yield Figure(what, error=first_line(error))
        else:
            yield from _traced(what, found, reads)

    def _fitted(self, setup: Setup, batch_size: int) -> Iterator[Figure]:
        """Profile `Trainer.fit`: two epochs, including the time between them."""
        what = f"mnre, batch {batch_size}, Trainer.fit with IBMonitor, bf16, two epochs"
        try:
            module = self.module("mre")
            data = self.data("mnre", module, batch_size, self.sizes.pictured)
            loader = make_loader(data, setup, SETS["mnre"])
            found = trace(partial(fit_epoch, module, loader, setup), 2 * len(loader), self.device)
        except Exception as error:  # see above
            yield Figure(what, error=first_line(error))
        else:
            yield from _traced(what, found, None)


def _compared(what: str, step: Callable[[], parity.Step], reference: parity.Step, limited: bool) -> Iterator[Figure]:
    """Yield the differences of a step from the reference; if `limited`, exceeding the float32 limits is an error."""
    try:
        found = parity.difference(step(), reference)
    except Exception as error:  # the other steps can still be compared
        yield Figure(what, error=first_line(error))
        return
    for part, value, limit in (("loss", found.loss, LOSS_LIMIT), ("gradients", found.gradients, GRADIENT_LIMIT)):
        one = Figure(f"{what}, {part}", spread([value]), "relative")
        if part == "gradients":
            one.note = f"{found.parameter} {found.worst:.0e}"
        if limited and not value <= limit:  # also true for NaN
            one.error = f"DIFFERS by more than {limit:.0e}"
        yield one


def _traced(what: str, found: Trace, reads: HostReads | None) -> Iterator[Figure]:
    """Figures for a trace, and for the values that the host read in one step."""
    heaviest = ", ".join(f"{name[:60]} {share:.0%}" for name, share in found.heaviest)
    for part, value, unit, note in (
        ("a step", found.milliseconds, "ms", ""),
        ("kernels", found.kernels, "a step", heaviest),
        ("device busy", 100 * found.busy, "%", ""),
        ("longest gap", found.longest_gap, "ms", ""),
        ("synchronizations", found.synchronizations, "a step", ""),
    ):
        yield Figure(f"{what}, {part}", spread([value]), unit, note=note)
    if reads is not None:
        places = ", ".join(f"{place} {count} times" for place, count in reads.places.most_common(8))
        yield Figure(f"{what}, values read by the host", spread([reads.places.total()]), "a step", note=places)


def chosen_sections(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Return the sections with these names, or all.

    Raises:
        ConfigError: a name is unknown.
    """
    known = [section.name for section in sections]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no section {unknown[0]!r}: choose from {', '.join(known)}")
    return [section for section in sections if not names or section.name in names]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks, write both files, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/bench-gpu"), help="folder of gpu.json and gpu.md")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all sections")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument(
        "--sections", nargs="+", default=[], metavar="NAME", help="only these; any wrong name lists all"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--bundle", type=Path, help="folder that `make gpu-bundle` has made")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the text of the real sets, or not")
    chosen = parser.parse_args(arguments)
    if chosen.bundle is not None and not (chosen.bundle / TOKENIZER).is_dir():
        parser.error(f"--bundle {chosen.bundle} holds no folder {TOKENIZER}: make it with `make gpu-bundle`")
    quiet_lightning()
    # Each block is compiled for three arithmetics; without a higher limit, some would silently not be compiled.
    torch._dynamo.config.recompile_limit = 32
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    device = best_device()
    head = {
        "machine": machine(device),
        "memory": f"{torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
        if device.type == "cuda"
        else "no GPU: a rehearsal, whose times say nothing",
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": " ".join(["python -m experiments.benchmarks.gpu", *(arguments or sys.argv[1:])]),
    }
    with tempfile.TemporaryDirectory() as folder:
        workbench = Workbench(
            Path(folder),
            device,
            SIZES[chosen.size],
            chosen.data_root if chosen.bundle is None else chosen.bundle / TEXT,
            None if chosen.bundle is None else chosen.bundle / TOKENIZER,
            compiled=not chosen.no_compile,
        )
        try:
            sections = chosen_sections(workbench.sections(), chosen.sections)
        except ConfigError as error:
            parser.error(str(error))

        def write(results: list[Result]) -> None:
            write_report(chosen.output, NAME, head, results)

        results = run(sections, chosen.budget, write)
    print(f"{head['machine']}\n\n{markdown(results)}")
    for failure in (failed := failures(results)):
        to_standard_error(failure)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
