"""Compare the information estimates with the truth on distributions of known information: a figure and a table.

    python -m experiments.known_answers

Samples pairs with a known mutual information, and computes the estimates that training logs on them.
docs/explanation/information.md says what each estimate bounds; tests/mmib/nn/test_information.py tests it.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import integrate, special, stats
from torch import Tensor, nn

from mmib.base.files import write_text
from mmib.base.revision import revision
from mmib.charts import Chart, Point, Series, line_chart, save
from mmib.nn.alignment import Candidates, InfoNCEAlignment, JSDAlignment, Latents, candidate_mask, info_nce
from mmib.nn.gaussian import Posterior

ROOT = Path(__file__).parents[1]
DIMS = 8
ROWS = 8192
SIZES = (8, 16, 64, 256)
INFORMATION = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
CHANNELS = {"N(0, I)": (0.0, 1.0), "mean 0.5": (0.5, 1.0), "standard deviation 0.6": (0.0, 0.6)}
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999)
CONCENTRATIONS = (1.0, 5.0, 20.0, 50.0, 100.0)
TEMPERATURES = (0.05, 0.07, 0.1, 0.2, 0.5, 1.0)
SCALED = 0.3
SHARED_ROWS = (1, 2, 4, 8)
SHARED_SIZE = 16
SHARED_NATS = 0.5
JSD_BATCH = 256
JSD_HEAD = ("correlation", "I(X; Z)", "2 JSD by quadrature", "best discriminator", f"scores times {SCALED}")
VERSIONS = ("torch", "scipy")


class Estimate(NamedTuple):
    """Mean over batches and its standard error, in nats."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and standard error of independent values, one per batch."""
    drawn = np.fromiter(values, dtype=float)
    return Estimate(float(drawn.mean()), float(drawn.std(ddof=1) / math.sqrt(len(drawn))))


def information(rho: float, dims: int = 1) -> float:
    """I(X; Z) in nats of standard Gaussians with correlation rho in each dimension: -D/2 log(1 - rho^2)."""
    return -0.5 * dims * math.log1p(-(rho**2))


def correlation(nats: float, dims: int = 1) -> float:
    """Correlation for which `information` equals `nats`."""
    return math.sqrt(-math.expm1(-2 * nats / dims))


def gaussian_pairs(rho: float, rows: int, dims: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample two (rows, dims) standard Gaussians with correlation rho in each dimension; float64."""
    x, noise = torch.randn(2, rows, dims, generator=generator, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def log_density_ratio(x: Tensor, z: Tensor, rho: float) -> Tensor:
    """log p(x, z) / (p(x) p(z)) of such pairs, summed over the last dimension: the optimal critic."""
    residual = (rho**2 * (x.square() + z.square()) - 2 * rho * x * z) / (2 * (1 - rho**2))
    return (information(rho) - residual).sum(dim=-1)


class DensityRatio(nn.Module):
    """`log_density_ratio` as a replacement for `JSDAlignment.discriminator`, without parameters.

    Args:
        rho: correlation of the pairs.
        scale: factor of the output; any value but 1 makes it a worse discriminator.
    """

    def __init__(self, rho: float, scale: float = 1.0) -> None:
        super().__init__()
        self.rho, self.scale = rho, scale

    def forward(self, pairs: Tensor) -> Tensor:
        """Map concatenated text and image (B, 2D) to scores (B, 1)."""
        text, image = pairs.chunk(2, dim=-1)
        return self.scale * log_density_ratio(text, image, self.rho)[:, None]


def channel(x: Tensor, rho: float, offset: float = 0.0, scale: float = 1.0) -> Posterior:
    """q(z|x) for each row of standard Gaussians x (B, D); z correlates with x by rho and is N(offset, scale^2)."""
    variance = torch.full_like(x, scale**2 * (1 - rho**2))
    mean = offset + scale * rho * x
    return Posterior(mean[:, None], variance.log()[:, None], torch.ones(len(x), 1, dtype=torch.bool))


def excess(offset: float, scale: float) -> float:
    """KL(N(offset, scale^2) || N(0, 1)) in nats: the excess of the rate of `channel` over I(X; Z), per dimension."""
    return 0.5 * (offset**2 + scale**2 - 1) - math.log(scale)


def jensen_shannon(rho: float) -> float:
    """Jensen-Shannon divergence in nats between joint and product of two correlated Gaussians, by 2-D quadrature.

    The integral is over u, v along the diagonals, where the joint density factorises and everything is even in both.
    Steps in v begin at the width of the joint density and grow, as it has a narrow ridge on a wide base.
    """
    rho = abs(rho)
    constant, width = 1 / (2 * math.pi), math.sqrt(1 - rho)

    def integrand(step: float, u: float) -> float:
        v = width * math.sinh(step)
        joint = constant / math.sqrt(1 - rho**2) * math.exp(-0.5 * (u**2 / (1 + rho) + v**2 / (1 - rho)))
        product = constant * math.exp(-0.5 * (u**2 + v**2))
        middle = 0.5 * (joint + product)
        density = 0.5 * float(special.rel_entr(joint, middle) + special.rel_entr(product, middle))
        return density * width * math.cosh(step)

    return 4 * float(integrate.dblquad(integrand, 0, 12, 0, math.asinh(12 / width))[0])


def sphere_information(concentration: float, dims: int) -> float:
    """I(X; Z) in nats for x uniform on the sphere and z von Mises-Fisher around x."""
    log_area = math.log(2) + 0.5 * dims * math.log(math.pi) - math.lgamma(0.5 * dims)
    return log_area - float(stats.vonmises_fisher(np.eye(dims)[0], concentration).entropy())


def sphere_pairs(concentration: float, rows: int, dims: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sample such pairs as two (rows, dims) tensors.

    Up to a constant, concentration times cosine is their log density ratio, so the critic of `InfoNCEAlignment` is
    optimal at the temperature 1 / concentration.
    """
    rng = np.random.default_rng(seed)
    pole = np.eye(dims)[0]
    x = stats.uniform_direction(dims).rvs(rows, random_state=rng)
    around_pole = stats.vonmises_fisher(pole, concentration).rvs(rows, random_state=rng)
    # The reflection that maps the pole to x maps the distribution around the pole to that around x.
    normal = x - pole
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    z = around_pole - 2 * (around_pole * normal).sum(axis=1, keepdims=True) * normal
    return torch.from_numpy(x), torch.from_numpy(z)


def batches(x: Tensor, z: Tensor, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Split pairs into batches of `size`."""
    return zip(x.split(size), z.split(size), strict=True)


def best_info_nce(x: Tensor, z: Tensor, size: int, rho: float) -> Estimate:
    """InfoNCE bound on Gaussian pairs with the optimal critic, in batches of `size`."""
    candidates = Candidates(candidate_mask(torch.arange(size)))
    return estimate(
        math.log(size) - info_nce(log_density_ratio(a[:, None], b[None], rho), candidates).mean().item()
        for a, b in batches(x, z, size)
    )


def own_info_nce(x: Tensor, z: Tensor, size: int, temperature: float) -> Estimate:
    """`mi_bound` of an untrained `InfoNCEAlignment`, whose projections are identities, in batches of `size`."""
    module = InfoNCEAlignment(x.shape[1], temperature=temperature).double()
    return estimate(_aligned(module, a, b)["mi_bound"].item() for a, b in batches(x, z, size))


def shared_info_nce(nats: float, images: int, rows: int, count: int, generator: torch.Generator) -> Estimate:
    """InfoNCE bound with the optimal critic on two Gaussians: `count` batches of `images` with `rows` texts each."""
    rho = correlation(nats)
    ids = torch.arange(images).repeat_interleave(rows)
    candidates = Candidates(candidate_mask(ids))
    bounds = []
    for _ in range(count):
        z = torch.randn(images, 1, generator=generator, dtype=torch.float64)[ids]
        x = rho * z + math.sqrt(1 - rho**2) * torch.randn(z.shape, generator=generator, dtype=torch.float64)
        losses = info_nce(log_density_ratio(x[:, None], z[None], rho), candidates)
        bounds.append((candidates.mask.sum(dim=1).log() - losses).mean().item())
    return estimate(bounds)


def jsd(x: Tensor, z: Tensor, discriminator: nn.Module) -> Estimate:
    """`jsd_bound` of `JSDAlignment` with this discriminator, in batches of `JSD_BATCH`."""
    module = JSDAlignment(x.shape[1])
    module.discriminator = discriminator  # type: ignore[assignment]
    return estimate(_aligned(module, a, b)["jsd_bound"].item() for a, b in batches(x, z, JSD_BATCH))


@torch.no_grad()
def _aligned(module: InfoNCEAlignment | JSDAlignment, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    there = torch.ones(len(x), 1, dtype=torch.bool)
    output = module(Latents(x[:, None], there), Latents(z[:, None], there), torch.arange(len(x)))
    return output.scalars


def measure(seed: int) -> dict[str, list[list[Any]]]:
    """Compute the rows of each table; their first cell is the truth."""
    generator = torch.Generator().manual_seed(seed)
    rates, bounds, divergences = [], [], []
    for nats in INFORMATION:
        rho = correlation(nats, DIMS)
        x, z = gaussian_pairs(rho, ROWS, DIMS, generator)
        rate = [estimate(channel(x, rho, *at).kl().sum(dim=(1, 2)).tolist()) for at in CHANNELS.values()]
        rates.append([nats, *rate])
        cosine = max(own_info_nce(x, z, 64, temperature) for temperature in TEMPERATURES)
        bounds.append([nats, *(best_info_nce(x, z, size, rho) for size in SIZES), cosine])
    for rho in CORRELATIONS:
        pairs = gaussian_pairs(rho, 4 * ROWS, 1, generator)
        found = [jsd(*pairs, DensityRatio(rho, scale)) for scale in (1.0, SCALED)]
        divergences.append([rho, information(rho), 2 * jensen_shannon(rho), *found])
    spheres = [
        [
            at,
            sphere_information(at, DIMS),
            *(own_info_nce(*sphere_pairs(at, ROWS, DIMS, seed), n, 1 / at) for n in SIZES),
        ]
        for at in CONCENTRATIONS
    ]
    shared = [
        [rows, SHARED_NATS, shared_info_nce(SHARED_NATS, SHARED_SIZE // rows, rows, 4 * ROWS // SHARED_SIZE, generator)]
        for rows in SHARED_ROWS
    ]
    return {"rate": rates, "info_nce": bounds, "sphere": spheres, "shared": shared, "jsd": divergences}


def figure(measured: dict[str, list[list[Any]]]) -> list[Chart]:
    """Build the figure: a chart for each estimate."""
    drawn = [
        ("KL rate: an upper bound (lines: in closed form)", _rate_lines(measured["rate"])),
        ("InfoNCE: a lower bound, at most log N (dashed)", _info_nce_lines(measured["info_nce"])),
        ("JSD bound: at most 2 log 2 (dashed)", _jsd_lines(measured["jsd"])),
    ]
    charts = [line_chart(title, lines, "mutual information, nats", "nats") for title, lines in drawn]
    return [chart for chart in charts if chart is not None]


def _identity(limit: float) -> Series:
    """The line of the true mutual information, over the range of the estimates."""
    return Series("mutual information", [(0.0, 0.0), (limit, limit)], "c7 dashed", dots=False)


def _level(name: str, height: float, limit: float, style: str) -> Series:
    return Series(name, [(0.0, height), (limit, height)], f"{style} dashed", dots=False)


def _means(rows: list[list[Any]], x: int, column: int) -> list[Point]:
    return [(row[x], row[column].mean) for row in rows]


def _rate_lines(rows: list[list[Any]]) -> list[Series]:
    lines = [_identity(max(INFORMATION))]
    for column, (name, at) in enumerate(CHANNELS.items(), start=1):
        style, label = f"c{column - 1}", f"rate, latents of {name}"
        truth = [(nats, nats + DIMS * excess(*at)) for nats in INFORMATION]
        # Both have one name, and the legend shows the last.
        lines += [
            Series(label, truth, f"{style} faint", dots=False),
            Series(label, _means(rows, 0, column), f"{style} points"),
        ]
    return lines


def _info_nce_lines(rows: list[list[Any]]) -> list[Series]:
    lines = [_identity(math.log(max(SIZES)))]
    for column, size in enumerate(SIZES, start=1):
        style, label = f"c{column - 1}", f"N = {size}"
        lines += [
            _level(label, math.log(size), max(INFORMATION), f"{style} faint"),
            Series(label, _means(rows, 0, column), style),
        ]
    return [*lines, Series("N = 64, cosine critic", _means(rows, 0, len(SIZES) + 1), "ink points")]


def _jsd_lines(rows: list[list[Any]]) -> list[Series]:
    limit, most = 2 * math.log(2), max(row[1] for row in rows)
    return [
        _identity(1.5 * limit),
        _level("2 log 2", limit, most, "c0 faint"),
        Series("2 JSD, by quadrature", [(row[1], row[2]) for row in rows], "c0", dots=False),
        Series("best discriminator", _means(rows, 1, 3), "c0 points"),
        Series(f"its scores times {SCALED}", _means(rows, 1, 4), "c1 points"),
    ]


def describe(measured: dict[str, list[list[Any]]], seed: int) -> str:
    """Format the page of tables, in Markdown."""
    packages = {name: metadata.version(name) for name in VERSIONS}
    used = {"python": platform.python_version(), "mmib": revision(), **packages}
    sizes = [f"N = {size}" for size in SIZES]
    above = ", ".join(f"{DIMS * excess(*at):.3f} for {name}" for name, at in CHANNELS.items())
    return f"""# Known answers: what was measured

`make known-answers`, that is `python -m experiments.known_answers --seed {seed}`, on CPU; versions:
{", ".join(f"{name} {version}" for name, version in used.items())}. All in nats, with the standard error of the
mean over batches, from {ROWS:,} pairs a figure ({4 * ROWS:,} in the last two tables).
[docs/explanation/information.md](../../docs/explanation/information.md) explains them.

## KL rate of Gaussian latents in {DIMS} dimensions

{_table(["I(X; Z)", *(f"rate, latents of {name}" for name in CHANNELS)], measured["rate"])}

The rate is above I(X; Z) by KL(q(z) || N(0, I)): {above}.

## InfoNCE bound on Gaussians in {DIMS} dimensions, batches of N

With the best critic, the log density ratio; last, `InfoNCEAlignment` with identity projections at the best of the
temperatures {", ".join(map(str, TEMPERATURES))}: a cosine does not see the length of its vectors.

{_table(["I(X; Z)", *sizes, "N = 64, cosine critic"], measured["info_nce"])}

## InfoNCE bound where the cosine is the best critic: the sphere in {DIMS} dimensions

x uniform, z von Mises-Fisher around x; `InfoNCEAlignment` at the temperature 1 / concentration.

{_table(["concentration", "I(X; Z)", *sizes], measured["sphere"])}

## InfoNCE bound of batches in which rows share images

Two correlated Gaussians, the best critic, N = {SHARED_SIZE} rows a batch; rows of one image are not each other's
candidates.

{_table(["rows an image", "I(X; Z)", "bound"], measured["shared"])}

## Jensen-Shannon bound on two correlated Gaussians

`JSDAlignment` with the log density ratio as its discriminator, and with {SCALED} of it.

{_table(JSD_HEAD, measured["jsd"])}
"""


def _table(head: Sequence[str], rows: list[list[Any]]) -> str:
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the estimates, and write figure and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/figures/known_answers.svg")
    parser.add_argument("--table", type=Path, default=ROOT / "experiments/results/known_answers.md")
    arguments = parser.parse_args(argv)
    measured = measure(arguments.seed)
    save(figure(measured), arguments.figure)
    write_text(arguments.table, describe(measured, arguments.seed))
    print(f"figure: {arguments.figure}\ntables: {arguments.table}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
