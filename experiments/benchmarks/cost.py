"""Minimum cost of a training step: floating-point operations and bytes by formula, compared with measurements.

    python -m experiments.benchmarks.cost
    python -m experiments.benchmarks.cost --paper

Prints operations per row, bytes per step, the cost of a million posts and the gain from more ranks; then this machine's
ceilings (matrix products, memory), and the time of a step at these ceilings beside its measured time. Formulas:
docs/explanation/performance.md. With `--paper` nothing is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from experiments.benchmarks.corpus import DATA_ROOT, SETS, open_set, read_set, write_set
from experiments.benchmarks.measure import best_device, machine, table
from experiments.benchmarks.recipe import ENCODERS, Setup, build_module, make_loader, make_optimizer
from experiments.benchmarks.training import Bench, row_lengths, waterfall
from mmib.base.devices import has_bf16
from mmib.datamodules.released import LABELS_BEFORE_0_2
from mmib.schema import task_named

FLOAT, HALF = 4, 2
# Values of width d that a transformer layer reads and writes per word piece, in matrix products and between them;
# backward passes touch about twice as many.
TOUCHED = 34
# AdamW reads weight, gradient and two moments, and writes all but the gradient.
ADAMW_VALUES = 7
# A step reads the weights in forward and backward pass, and writes gradients.
WEIGHT_VALUES = 3
# Means over the training splits, with the vocabulary of bert-base-uncased: word pieces per row, including special
# pieces and markers, and positions that the head reads: two markers, or the words.
LENGTHS = {"mnre": (30.7, 2.0), "twitter2017": (20.2, 15.7), "twitter2015": (42.1, 16.1)}
POSTS = 1_000_000
GLOBAL_BATCHES = (16, 256, 2048)


class Part(NamedTuple):
    """Operations of a part of the network per row: forward, and forward and backward together."""

    forward: float
    training: float


@dataclass(frozen=True)
class Shapes:
    """Shapes that determine the operations per row.

    Attributes:
        task: task, which determines the head.
        length: word pieces L.
        regions: image regions R.
        queries: fused positions Q; 2 for relations, a post's words for entities.
        width: width D.
        layers: layers of the text encoder.
        hidden: width of its feed-forward layers.
        image_width: width V of the image features.
        batch: rows B, for the alignment.
    """

    task: str
    length: float
    regions: float
    queries: float
    width: int
    layers: int
    hidden: int
    image_width: int
    batch: int


def linear(rows: float, inputs: int, outputs: int, backward: int = 2) -> Part:
    """A linear layer; `backward` is the number of products of its backward pass: 1 if the input has no gradient."""
    forward = 2.0 * rows * inputs * outputs
    return Part(forward, (1 + backward) * forward)


def attention(queries: float, keys: float, width: int) -> Part:
    """Attention scores and weighted sums, over all heads."""
    forward = 4.0 * queries * keys * width
    return Part(forward, 3 * forward)


def total(parts: Sequence[Part]) -> Part:
    """Sum of the parts."""
    return Part(sum(part.forward for part in parts), sum(part.training for part in parts))


def block(queries: float, keys: float, width: int) -> Part:
    """`AttentionBlock`: four projections, attention, and a feed-forward layer of four times the width."""
    return total(
        [
            linear(2 * queries, width, width),
            linear(2 * keys, width, width),
            attention(queries, keys, width),
            linear(2 * queries, width, 4 * width),
        ]
    )


def row_cost(shapes: Shapes) -> dict[str, Part]:
    """Operations per row by part of the network, without the image encoder; see docs/explanation/performance.md."""
    width, length, regions = shapes.width, shapes.length, shapes.regions
    layer = [
        linear(4 * length, width, width),
        attention(length, length, width),
        linear(2 * length, width, shapes.hidden),
    ]
    heads = linear(2 * length, width, width)
    projections = [linear(regions, shapes.image_width, width), linear(regions, 4, width, backward=1)]
    align = [
        linear(length + regions, width, width),
        # Means over pieces and over regions, and B comparisons for each.
        Part(2.0 * (length + regions) * width, 4.0 * (length + regions) * width),
        Part(2.0 * shapes.batch * width, 6.0 * shapes.batch * width),
    ]
    classes = len(task_named(shapes.task).outputs(LABELS_BEFORE_0_2[shapes.task]))
    return {
        "text encoder": total(layer * shapes.layers),
        "text bottleneck": total([block(length, length, width), heads]),
        "image bottleneck": total([*projections, block(regions, regions, width), linear(2 * regions, width, width)]),
        "alignment": total(align),
        "fusion": total([block(regions, length, width), block(shapes.queries, regions, width)]),
        "head": linear(shapes.queries, width, classes),
    }


def image_cost(name: str) -> tuple[float, int]:
    """Operations of a frozen timm encoder per image of its input size, and the width of its features."""
    with torch.device("meta"):
        encoder = timm.create_model(name, num_classes=0).eval()
        pixels = torch.zeros(1, *encoder.default_cfg["input_size"])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(pixels)
    return float(counter.get_total_flops()), int(encoder.head_hidden_size)


class Bytes(NamedTuple):
    """Minimum bytes that a training step of a batch moves between memory and processor."""

    weights: float
    optimizer: float
    activations: float
    features: float


def step_bytes(shapes: Shapes, parameters: int, value: int = FLOAT) -> Bytes:
    """Minimum bytes of a step.

    Args:
        shapes: shapes of a row, and the batch size.
        parameters: number of trained parameters.
        value: bytes per activation.
    """
    touched = 3 * TOUCHED * (shapes.layers + 1) * shapes.length * shapes.width
    return Bytes(
        weights=WEIGHT_VALUES * FLOAT * parameters,
        optimizer=ADAMW_VALUES * FLOAT * parameters,
        activations=shapes.batch * touched * value,
        features=shapes.batch * shapes.regions * shapes.image_width * HALF,
    )


def step_seconds(flops: float, moved: Bytes, peak: float, bandwidth: float) -> float:
    """Minimum seconds of a step: the optimiser waits for the gradients, everything else overlaps.

    Args:
        flops: operations of the batch.
        moved: bytes of the batch.
        peak: operations per second.
        bandwidth: bytes per second.
    """
    passes = max(flops / peak, (moved.weights + moved.activations + moved.features) / bandwidth)
    return passes + moved.optimizer / bandwidth


def ranks_seconds(flops: float, moved: Bytes, ranks: int, parameters: int, hardware: Hardware) -> float:
    """Minimum seconds of a step of the same global batch on several ranks: only the passes become shorter.

    Gradients are reduced in a ring, concurrently with the backward pass, which is two thirds of the passes.
    """
    share = moved._replace(activations=moved.activations / ranks, features=moved.features / ranks)
    alone = step_seconds(flops / ranks, share, hardware.peak, hardware.bandwidth)
    optimizer = moved.optimizer / hardware.bandwidth
    reduced = 2 * (ranks - 1) / ranks * FLOAT * parameters / hardware.link
    return alone + max(0.0, reduced - 2 / 3 * (alone - optimizer))


class Hardware(NamedTuple):
    """Operations per second of matrix products, and bytes per second of memory and of the link between ranks."""

    peak: float
    bandwidth: float
    link: float


def measure_peak(dtype: torch.dtype, device: torch.device, size: int = 2048, repeats: int = 7) -> float:
    """Operations per second of a square matrix product; the best of several."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / _best(lambda: left @ right, device, repeats)


def measure_bandwidth(device: torch.device, values: int = 2**26, repeats: int = 7) -> float:
    """Bytes per second of c = a + b on arrays too large for any cache; the best of several."""
    first, second, result = (torch.ones(values, device=device) for _ in range(3))
    return 3.0 * FLOAT * values / _best(lambda: torch.add(first, second, out=result), device, repeats)


def _best(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shapes_of(name: str, length: float, batch: int, text: BertConfig, image_width: int) -> Shapes:
    """Shapes of a set whose rows have `length` word pieces on average."""
    posts, (pieces, read) = SETS[name], LENGTHS[name]
    return Shapes(
        task=posts.task,
        length=length,
        regions=posts.regions,
        queries=read if posts.task == "mre" else read * length / pieces,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        hidden=text.intermediate_size,
        image_width=image_width,
        batch=batch,
    )


def operations_table(shapes: Mapping[str, Shapes], image_flops: float) -> str:
    """GFLOP per row by part, of our training and of the published recipe."""
    rows = []
    for name, row_shapes in shapes.items():
        posts = SETS[name]
        padded = replace(row_shapes, length=posts.max_length, queries=posts.max_length)
        images = posts.regions * image_flops
        for label, shape, encoded in (("published recipe", padded, images), ("ours", row_shapes, 0.0)):
            parts = row_cost(shape)
            text, whole = parts.pop("text encoder").training, total(list(parts.values())).training
            cells = [f"{value / 1e9:.1f}" for value in (encoded, text, whole, encoded + text + whole)]
            rows.append([name, label, f"{shape.length:.0f}", posts.regions, *cells])
    head = ["set", "", "pieces", "images", "image encoder", "text encoder", "all else", "GFLOP a row"]
    return table(head, rows)


def bytes_table(shapes: Mapping[str, Shapes], parameters: int) -> str:
    """Megabytes per step by cause."""
    rows = []
    for name, row_shapes in shapes.items():
        moved = step_bytes(row_shapes, parameters)
        rows.append([name, row_shapes.batch, *(f"{value / 1e6:,.1f}" for value in moved), f"{sum(moved) / 1e6:,.0f}"])
    return table(["set", "batch", "weights", "AdamW", "activations", "features", "MB a step"], rows)


def million_table(shapes: Mapping[str, Shapes], image_flops: float, peak: float) -> str:
    """Cost of a million posts of each set."""
    rows = []
    for name, row_shapes in shapes.items():
        pictures = POSTS * row_shapes.regions
        epoch = POSTS * total(list(row_cost(row_shapes).values())).training
        build = pictures * image_flops
        cache = pictures * row_shapes.image_width * HALF
        times = (f"{cost / unit:.1f}" for cost in (build, epoch) for unit in (1e15, peak))
        rows.append([name, f"{cache / 1e9:.1f}", *times])
    head = ["set", "cache, GB", "building it, PFLOP", "seconds at the peak", "an epoch, PFLOP", "seconds at the peak"]
    return table(head, rows)


def ranks_table(row_shapes: Shapes, parameters: int, hardware: Hardware, batches: Sequence[int]) -> str:
    """Rows per second of a global batch by number of ranks, and the parallel efficiency."""
    rows = []
    for ranks in (1, 2, 4, 8, 16, 32, 64):
        cells = []
        for batch in batches:
            shapes = replace(row_shapes, batch=batch)
            flops = batch * total(list(row_cost(shapes).values())).training
            moved = step_bytes(shapes, parameters, HALF)
            one, many = (ranks_seconds(flops, moved, count, parameters, hardware) for count in (1, ranks))
            cells.append(f"{batch / many:,.0f} ({one / many / ranks:.0%})" if ranks <= batch else "")
        rows.append([ranks, *cells])
    return table(["ranks", *(f"batch {batch}: rows a second (of perfect)" for batch in batches)], rows)


def reached_table(arguments: argparse.Namespace, peaks: Mapping[str, float], bandwidth: float) -> str:
    """Duration of our training step at the ceilings, and as measured."""
    rows = []
    device = best_device()
    for name in arguments.sets:
        posts = SETS[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_set(folder / "data", name, arguments.rows, arguments.data_root)
            (folder / "text").mkdir()
            encoders = ENCODERS[arguments.encoders]
            module = build_module(posts.task, encoders, folder / "text").to(device)
            data = open_set(folder / "data", name, module, folder / "cache", batch_size=arguments.batch_size)
            read_set(data)
            length = statistics.mean(row_lengths(data))
            row_shapes = shapes_of(name, length, arguments.batch_size, encoders.text, module.backbone.image_encoder.dim)
            flops = arguments.batch_size * total(list(row_cost(row_shapes).values())).training
            trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
            for precision, peak in peaks.items():
                setup = _ours(posts.task, precision == "bf16")
                loaders = {setup: make_loader(data, setup, posts)}
                bench = Bench(module, {True: make_optimizer(module, fused=True)}, loaders, arguments.rows)
                bench.run(setup)
                seconds = arguments.batch_size / bench.run(setup)
                least = step_seconds(flops, step_bytes(row_shapes, trained), peak, bandwidth)
                milliseconds = (f"{1e3 * value:.0f}" for value in (least, seconds))
                shares = (f"{share:.0%}" for share in (least / seconds, flops / seconds / peak))
                rows.append([name, precision, f"{length:.1f}", f"{flops / 1e9:.0f}", *milliseconds, *shares])
    head = [
        "set",
        "",
        "mean pieces",
        "GFLOP a step",
        "ms at the ceilings",
        "ms measured",
        "reached",
        "of matrix products",
    ]
    return table(head, rows)


def _ours(task: str, bf16: bool) -> Setup:
    """The setup of `mmib fit`, without Lightning."""
    return replace(list(waterfall(task).values())[-1], bf16=bf16, lightning=False)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64, help="of a measured pass")
    parser.add_argument("--encoders", choices=list(ENCODERS), default="base", help="their shapes")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else drawn posts serve")
    parser.add_argument("--paper", action="store_true", help="measure nothing")
    parser.add_argument("--peak", type=float, default=400.0, help="TFLOP/s that a rank reaches, for the extrapolation")
    parser.add_argument("--bandwidth", type=float, default=3000.0, help="its memory's GB/s")
    parser.add_argument("--link", type=float, default=50.0, help="GB/s between ranks")
    chosen = parser.parse_args(arguments)
    encoders = ENCODERS[chosen.encoders]
    image_flops, image_width = image_cost(encoders.image)
    shapes = {
        name: shapes_of(name, LENGTHS[name][0], chosen.batch_size, encoders.text, image_width) for name in chosen.sets
    }
    with tempfile.TemporaryDirectory() as folder:
        module = build_module("mre", encoders, Path(folder))
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    hardware = Hardware(1e12 * chosen.peak, 1e9 * chosen.bandwidth, 1e9 * chosen.link)
    print(f"{trained:,} trained parameters, {image_flops / 1e9:.2f} GFLOP a picture\n")
    print(f"{operations_table(shapes, image_flops)}\n\n{bytes_table(shapes, trained)}\n")
    print(f"A million posts, at {chosen.peak:.0f} TFLOP/s:\n\n{million_table(shapes, image_flops, hardware.peak)}\n")
    print(
        f"{chosen.sets[0]} on ranks of {chosen.peak:.0f} TFLOP/s, {chosen.bandwidth:.0f} GB/s, {chosen.link:.0f} GB/s "
        f"between them:\n\n{ranks_table(shapes[chosen.sets[0]], trained, hardware, GLOBAL_BATCHES)}\n"
    )
    if chosen.paper:
        return
    device = best_device()
    types = {"float32": torch.float32} | ({"bf16": torch.bfloat16} if has_bf16(device) else {})
    peaks = {precision: measure_peak(dtype, device) for precision, dtype in types.items()}
    bandwidth = measure_bandwidth(device)
    ceilings = ", ".join(f"{peak / 1e9:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
    print(f"{machine(device)}\n\nCeilings: {ceilings}, {bandwidth / 1e9:.1f} GB/s\n")
    print(reached_table(chosen, peaks, bandwidth))


if __name__ == "__main__":
    main()
