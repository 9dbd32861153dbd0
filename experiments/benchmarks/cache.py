"""Feature cache: building, opening and reading it, compared with decoding and encoding at each step.

    python -m experiments.benchmarks.cache --rows 64 --image pip:efficientnet-lite0

Uses generated JPEG files of typical size, four images per row as in MNRE. A build takes as long as the slower of
decoding and encoding if they overlap fully, and as long as their sum if they do not overlap. On a CPU it is measured in
PyTorch and in onnxruntime, whose features must agree.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.corpus import DATA_ROOT, SETS, write_set
from experiments.benchmarks.measure import (
    Clock,
    best_device,
    in_turns,
    machine,
    spread,
    table,
    to_standard_error,
)
from experiments.benchmarks.recipe import ENCODERS
from mmib.datamodules.cache import BATCH_ITEMS, ImageFeatureCache
from mmib.datamodules.images import decoders, read_image
from mmib.encoders.image import ImageEncoder, Runtime

SET = "mnre"
READS = 20  # passes over all images: a single one is too short to measure


class Bench:
    """Images, and an encoder for them.

    Args:
        files: the images.
        encoder: the encoder, on its device.
        folder: folder for caches.
    """

    ENCODE, BUILD, BASELINE = "encode", "build the cache", "decode and encode at each step"

    def __init__(self, files: list[Path], encoder: ImageEncoder, folder: Path) -> None:
        self.files = files
        self.encoder = encoder
        self.folder = folder
        self.device = next(encoder.parameters()).device
        self.pixels = torch.stack([encoder.transform(read_image(file)) for file in files[:BATCH_ITEMS]])
        self.filled = ImageFeatureCache(folder / "filled", encoder)
        self.filled.build(files)

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """Runtimes that can compute features on this device."""
        return ("torch", "onnx") if self.device.type == "cpu" else ("torch",)

    def measures(self) -> dict[str, Callable[[], float]]:
        """Measurements by name, in images per second."""
        ways = {"decode, one thread": self.decode, self.BASELINE: self.step}
        for name, way in ((self.ENCODE, self.encode), (self.BUILD, self.build)):
            ways |= {f"{name}, {runtime}": partial(self.run_by, runtime, way) for runtime in self.runtimes}
        return ways | {"open a filled cache": self.open, "read features": self.read}

    def run_by(self, runtime: Runtime, way: Callable[[], float]) -> float:
        """Run a measurement with this runtime."""
        self.encoder.run_by(runtime)
        return way()

    def deviation(self) -> float:
        """Difference between the features of onnxruntime and PyTorch, relative to the norm of the latter."""
        features = []
        for runtime in self.runtimes:
            self.encoder.run_by(runtime)
            features.append(self.encoder.features(self.pixels))
        return float((features[-1] - features[0]).norm() / features[0].norm())

    def decode(self) -> float:
        """Decode files to pixels."""
        started = time.perf_counter()
        for file in self.files:
            self.encoder.transform(read_image(file))
        return len(self.files) / (time.perf_counter() - started)

    def encode(self) -> float:
        """Encode pixels to features."""
        clock = Clock(self.device)
        clock.start()
        for _ in range(0, len(self.files), BATCH_ITEMS):
            self.encoder.features(self.pixels)
        batches = -(-len(self.files) // BATCH_ITEMS)
        return batches * len(self.pixels) / clock.seconds()

    def step(self) -> float:
        """Decode a batch of images, then encode it, as in published code."""
        clock = Clock(self.device)
        clock.start()
        with torch.inference_mode():
            for start in range(0, len(self.files), BATCH_ITEMS):
                images = [read_image(file) for file in self.files[start : start + BATCH_ITEMS]]
                self.encoder(torch.stack([self.encoder.transform(image) for image in images]).to(self.device))
        return len(self.files) / clock.seconds()

    def build(self) -> float:
        """Build a cache, as the first run does: digests, decoding in threads, encoding, writing."""
        with tempfile.TemporaryDirectory(dir=self.folder) as root:
            started = time.perf_counter()
            ImageFeatureCache(Path(root), self.encoder).build(self.files)
            return len(self.files) / (time.perf_counter() - started)

    def open(self) -> float:
        """Open a cache, as every later run does: fingerprint of the encoder, digests, checksums."""
        started = time.perf_counter()
        ImageFeatureCache(self.folder / "filled", self.encoder).build(self.files)
        return len(self.files) / (time.perf_counter() - started)

    def read(self) -> float:
        """Read the features of four images together, in random order, as for a batch."""
        files = random.Random(0).sample(self.files * READS, READS * len(self.files))
        regions = SETS[SET].regions
        started = time.perf_counter()
        for start in range(0, len(files), regions):
            np.concatenate([self.filled.features(file) for file in files[start : start + regions]])
        return len(files) / (time.perf_counter() - started)


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoders", choices=list(ENCODERS), default="base", help="their shapes, of random weights")
    parser.add_argument("--image", help="another image encoder, with its weights")
    chosen = parser.parse_args(arguments)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_set(folder / "set", SET, chosen.rows, DATA_ROOT)
        files = sorted((folder / "set").rglob("*.jpg"))
        name = chosen.image or ENCODERS[chosen.encoders].image
        encoder = ImageEncoder(name, pretrained=chosen.image is not None).to(best_device())
        bench = Bench(files, encoder, folder)
        apart = bench.deviation()
        found = in_turns(bench.measures(), chosen.repeats, to_standard_error)
        size = sum(file.stat().st_size for file in bench.filled.folder.iterdir())
        sources = sum(file.stat().st_size for file in files)
    baseline = spread(found[Bench.BASELINE]).median
    rows = [[label, spread(rates), f"{spread(rates).median / baseline:.3g}"] for label, rates in found.items()]
    print(f"{machine()}\n")
    print(f"{len(files)} images, {name}, {decoders()} threads decode, batches of {BATCH_ITEMS}; ")
    print(f"{size / len(files):,.0f} bytes an image in the cache, {sources / len(files):,.0f} in its file; ")
    print(f"features of the runtimes differ by {apart:.1e} of their norm\n")
    print(table(["", "images a second: median (range)", "to decoding and encoding at each step"], rows))


if __name__ == "__main__":
    main()
