"""The command `mmib demo-data`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.datamodules.demo import NOISE_KINDS, DemoSettings, read_ceilings, write_demo_corpus

SPLITS = ("train", "val", "test")
UNITS: dict[str, str] = {"mre": "rows", "mner": "posts"}


def run(arguments: list[str]) -> int:
    """Write the demo corpus unless it exists already, and print its ceilings."""
    defaults = DemoSettings()
    parser = CommandParser(
        prog="mmib demo-data", description="Generate the demo corpus in the formats of MNRE and Twitter-2017."
    )
    parser.add_argument("root", nargs="?", default="data/demo", type=Path, help="folder to create (default: data/demo)")
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="random seed of the corpus (default: %(default)s)"
    )
    parser.add_argument(
        "--size", default=defaults.size, help="size of the corpus: default, study or tiny (default: %(default)s)"
    )
    parser.add_argument("--noise", type=float, default=defaults.noise, help="share of irrelevant images (%(default)s)")
    parser.add_argument(
        "--noise-kinds",
        nargs="+",
        type=_weight,
        default=list(defaults.noise_kinds.items()),
        metavar="NAME[=WEIGHT]",
        help=f"kinds of irrelevant images, with weights: {', '.join(NOISE_KINDS)} (default: scene, "
        "detectable only by the words)",
    )
    parser.add_argument(
        "--test-noise", type=float, help="share of irrelevant images in the test split (default: --noise)"
    )
    parser.add_argument(
        "--test-noise-kinds",
        nargs="+",
        type=_weight,
        metavar="NAME[=WEIGHT]",
        help="kinds of irrelevant images in the test split (default: --noise-kinds)",
    )
    parser.add_argument("--missing", type=float, default=defaults.missing, help="share of missing images (%(default)s)")
    parser.add_argument(
        "--hard-share", type=float, default=defaults.hard_share, help="share of hard training rows (%(default)s)"
    )
    parser.add_argument(
        "--posts-per-image",
        type=int,
        default=defaults.posts_per_image,
        help="number of training posts per image (%(default)s)",
    )
    chosen = vars(parser.parse_args(arguments))
    root: Path = chosen.pop("root")
    for option in ("noise_kinds", "test_noise_kinds"):
        chosen[option] = None if chosen[option] is None else dict(chosen[option])
    built = write_demo_corpus(root, DemoSettings(**chosen))
    print(f"{root}: {'written' if built else 'there already'}")  # noqa: T201
    for task, unit in UNITS.items():
        for split in SPLITS:
            for level, described in (read_ceilings(root, split, task) or {}).get("levels", {}).items():
                ceiling = described["ceiling"]
                print(  # noqa: T201
                    f"  {task:4} {split:5} {level:4} {described['rows']:6,} {unit}, best possible F1: "
                    f"text {ceiling['text']:.3f}, text and image {ceiling['multimodal']:.3f}"
                )
    return 0


def _weight(text: str) -> tuple[str, float]:
    """Parse `meme=2`, or `meme`, which means `meme=1`."""
    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=WEIGHT, such as meme=2") from error
