"""Compare our CRF with pytorch-crf, torch-struct and a plain vectorised loop: loss with gradients, and decoding.

    python -m experiments.benchmarks.crf --shapes 64x64 256x24

The implementations take turns. For each number of posts and words, with all posts of full length, prints the median
milliseconds with their quartiles (CPU time of one thread, or time until a GPU is done), the time relative to our CRF,
and the largest difference from its loss and gradients in float64, relative to the largest value. Packages that are not
installed are skipped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.recipe import PackagedCRF
from mmib.base.revision import revision
from mmib.datamodules.released import TWITTER
from mmib.nn.crf import LinearChainCRF
from mmib.tagging import bio_tags

OWN = "mmib"
A_TURN = 5

TAGS = len(bio_tags(TWITTER.names))


class Posts(NamedTuple):
    """Emissions (B, W, K), tags (B, W) and mask (B, W)."""

    emissions: Tensor
    tags: Tensor
    mask: Tensor


class Chain(nn.Module):
    """Start, end and transition scores of K tags, all 0."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))
        self.transition = nn.Parameter(torch.zeros(tags, tags))


class Implementation(NamedTuple):
    """A module with start, end and transition scores; its loss, summed over posts; and its decoder."""

    module: nn.Module
    loss: Callable[[Posts], Tensor]
    decode: Callable[[Posts], object]


class PlainLoop(Chain):
    """The forward recursion, word by word over all posts at once, with gradients by autograd."""

    def loss(self, posts: Posts) -> Tensor:
        """Negative log-likelihood, summed over posts."""
        emissions, tags, mask = posts
        reached = self.start + emissions[:, 0]
        for emission, word in zip(emissions.unbind(1)[1:], mask[:, 1:, None].unbind(1), strict=True):
            onwards = (reached[:, :, None] + self.transition).logsumexp(dim=1) + emission
            reached = torch.where(word, onwards, reached)
        last = tags.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        words = emissions.gather(2, tags[:, :, None]).squeeze(2) * mask
        steps = self.transition[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]
        gold = self.start[tags[:, 0]].sum() + words.sum() + steps.sum() + self.end[last].sum()
        return (reached + self.end).logsumexp(dim=1).sum() - gold

    @torch.no_grad()
    def decode(self, posts: Posts) -> Tensor:
        """Return the best tags (B, W)."""
        best = self.start + posts.emissions[:, 0]
        stay = torch.arange(len(self.start), device=best.device)
        came_from = []
        for emission, word in zip(posts.emissions.unbind(1)[1:], posts.mask[:, 1:, None].unbind(1), strict=True):
            reached, before = (best[:, :, None] + self.transition).max(dim=1)
            best = torch.where(word, reached + emission, best)
            came_from.append(torch.where(word, before, stay))
        path = [(best + self.end).argmax(dim=1, keepdim=True)]
        for before in reversed(came_from):
            path.append(before.gather(1, path[-1]))
        return torch.cat(path[::-1], dim=1)


class TorchStruct(Chain):
    """torch-struct: a parallel scan over the scores of all pairs of neighbours, with gradients by autograd."""

    def loss(self, posts: Posts) -> Tensor:
        """Negative log-likelihood, summed over posts."""
        following, before = (posts.tags[:, place].unsqueeze(-1) for place in (slice(1, None), slice(None, -1)))
        tags = torch.arange(len(self.start), device=following.device)
        pairs = (following == tags)[..., :, None] & (before == tags)[..., None, :]
        gold = (pairs & posts.mask[:, 1:, None, None]).to(posts.emissions.dtype)
        return -self._distribution(posts).log_prob(gold).sum()

    def decode(self, posts: Posts) -> Tensor:
        """Return the best tags (B, W); undefined where masked."""
        best = self._distribution(posts).argmax.detach()  # (B, W - 1, next tag, previous tag)
        first = best[:, :1].sum(dim=-2).argmax(dim=-1)
        return torch.cat([first, best.sum(dim=-1).argmax(dim=-1)], dim=1)

    def _distribution(self, posts: Posts) -> Any:
        """Distribution over the tags of posts with at least two words, the longest of which has W."""
        import torch_struct  # noqa: PLC0415 - optional

        emissions, mask = posts.emissions, posts.mask
        lengths = mask.sum(dim=1)
        scores = self.transition.T + emissions[:, 1:, :, None]
        scores = scores + F.pad((self.start + emissions[:, 0])[:, None, None, :], (0, 0, 0, 0, 0, scores.shape[1] - 1))
        last = torch.arange(1, mask.shape[1], device=mask.device) == lengths[:, None] - 1
        scores = (scores + last[:, :, None, None] * self.end[:, None]).contiguous()
        return torch_struct.LinearChainCRF(scores, lengths=lengths)


def implementations(device: torch.device) -> dict[str, Implementation]:
    """Create the installed implementations, with equal scores."""
    reference, plain = LinearChainCRF(TAGS), PlainLoop(TAGS)
    for score in reference.parameters():
        nn.init.normal_(score)
    plain.load_state_dict(reference.state_dict())
    ways = {
        OWN: Implementation(
            reference,
            lambda posts: reference(*posts).sum(),
            lambda posts: reference.viterbi(posts.emissions, posts.mask),
        ),
        "plain loop": Implementation(plain, plain.loss, plain.decode),
    }
    if installed("torchcrf"):
        library = PackagedCRF(reference).package
        ways["pytorch-crf"] = Implementation(
            library, lambda posts: -library(*posts), lambda posts: library.decode(posts.emissions, posts.mask)
        )
    if installed("torch_struct"):
        struct = TorchStruct(TAGS)
        struct.load_state_dict(reference.state_dict())
        ways["torch-struct"] = Implementation(struct, struct.loss, struct.decode)
    for way in ways.values():
        way.module.to(device)
    return ways


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def gradients(implementation: Implementation, posts: Posts) -> list[Tensor]:
    """Return the loss and its gradients with respect to emissions and transition scores."""
    emissions = posts.emissions.detach().requires_grad_()
    loss = implementation.loss(posts._replace(emissions=emissions))
    by_emissions, *by_scores = torch.autograd.grad(loss, [emissions, *implementation.module.parameters()])
    # The modules order their scores differently; the transitions are the largest tensor.
    return [loss.detach(), by_emissions, max(by_scores, key=Tensor.numel)]


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference of two lists of values, each relative to the largest value of the tensor."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(one, other, strict=True))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, until the device is done."""
    if device.type == "cpu":
        started = time.process_time()
        call()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(calls: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of calls, `A_TURN` at a time in turns; the first of a turn is dropped, as its caches are cold."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += [1e3 * seconds(call, device) for _ in range(A_TURN)][1:]
    return times


def print_rows(what: str, times: dict[str, list[float]], differences: dict[str, float]) -> None:
    """Print a line per implementation."""
    reference = statistics.median(times[OWN])
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        spread = f"{middle:8.2f} ({low:.2f} to {high:.2f})"
        differs = f"{differences[name]:.0e}" if name in differences else ""
        print(f"  {what:16} {name:12} {spread:28} {middle / reference:6.2f}  {differs}".rstrip())


class Comparison(NamedTuple):
    """Milliseconds of each call by implementation, and differences of the others from ours in float64."""

    training: dict[str, list[float]]
    decoding: dict[str, list[float]]
    differences: dict[str, float]


def compare(posts: int, words: int, device: torch.device, rounds: int) -> Comparison:
    """Compare all implementations on posts of this length."""
    shape = posts, words
    batch = Posts(
        torch.randn(*shape, TAGS, device=device),
        torch.randint(TAGS, shape, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
    )
    ways = implementations(device)
    training = measure({name: lambda way=way: gradients(way, batch) for name, way in ways.items()}, device, rounds)
    decoding = measure({name: lambda way=way: way.decode(batch) for name, way in ways.items()}, device, rounds)
    # In float64, so that rounding in the others is not taken for an error.
    batch = batch._replace(emissions=batch.emissions.double())
    values = {name: gradients(way._replace(module=way.module.double()), batch) for name, way in ways.items()}
    differences = {name: difference(values[OWN], value) for name, value in values.items() if name != OWN}
    return Comparison(training, decoding, differences)


def processor() -> str:
    """Name of this machine's processor, if the system provides it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def shape(text: str) -> tuple[int, int]:
    """Parse posts and words, such as `64x64`."""
    posts, words = text.split("x")
    return int(posts), int(words)


def main() -> None:
    """Run the comparison, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="+", type=shape, metavar="POSTSxWORDS", default=[(64, 64), (8, 24), (256, 24), (64, 256)]
    )
    parser.add_argument("--rounds", type=int, default=10, help=f"of {A_TURN} calls each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Allocate a large tensor once, as training does; otherwise the system would map new memory at every call.
    torch.zeros(2**22)
    packages = {"torch": "torch", "torchcrf": "pytorch-crf", "torch_struct": "torch-struct"}
    named = [name for package, name in packages.items() if installed(package)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in named)
    devices = [torch.device("cpu")]
    print(f"{processor()}, one thread; {versions}, mmib {revision()}")
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
        print(torch.cuda.get_device_name())
    for device in devices:
        for posts, words in arguments.shapes:
            found = compare(posts, words, device, arguments.rounds)
            print(f"{device}: {posts} posts of {words} words, {TAGS} tags: ms (quartiles), times as long, difference")
            print_rows("loss + gradients", found.training, found.differences)
            print_rows("decoding", found.decoding, {})


if __name__ == "__main__":
    main()
