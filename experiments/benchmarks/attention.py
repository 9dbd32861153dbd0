"""Compare PyTorch's fused and plain attention kernels in a training step on this CPU, in alternating rounds.

    python -m experiments.benchmarks.attention --posts 16 --pieces 35

Prints the median CPU time in milliseconds of forward and backward pass together, and the ratio of the kernels.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {"fused": SDPBackend.FLASH_ATTENTION, "plain": SDPBackend.MATH}
HEADS, WIDTH = 12, 32


def time_kernel(kernel: SDPBackend, posts: int, pieces: int, dtype: torch.dtype, repeats: int) -> list[float]:
    """Seconds per forward and backward pass, without the first fifth; the last two pieces of each post are masked."""
    query, key, value = (torch.randn(posts, HEADS, pieces, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.arange(pieces)[None, None, None, :] < pieces - 2
    seconds = []
    with sdpa_kernel(kernel):
        for _ in range(repeats):
            started = time.process_time()
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()
            seconds.append(time.process_time() - started)
    return seconds[repeats // 5 :]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=16)
    parser.add_argument("--pieces", type=int, default=35)
    parser.add_argument("--repeats", type=int, default=40, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.bfloat16, torch.float32):
        times: dict[str, list[float]] = {name: [] for name in KERNELS}
        for _ in range(arguments.rounds):
            for name, kernel in KERNELS.items():
                times[name] += time_kernel(kernel, arguments.posts, arguments.pieces, dtype, arguments.repeats)
        fused, plain = (1e3 * statistics.median(times[name]) for name in KERNELS)
        print(f"{dtype!s:15} fused {fused:7.2f} ms, plain {plain:7.2f} ms, fused / plain {fused / plain:.2f}")


if __name__ == "__main__":
    main()
