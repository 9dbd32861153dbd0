"""The command `mmib demo-data`."""

from __future__ import annotations

from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.datamodules.demo import DemoSettings, read_ceilings, write_demo_corpus

SPLITS = ("train", "val", "test")
UNITS: dict[str, str] = {"mre": "rows", "mner": "posts"}


def run(arguments: list[str]) -> int:
    """Write the demo corpus unless it is there already, and print its ceilings."""
    defaults = DemoSettings()
    parser = CommandParser(
        prog="mmib demo-data", description="Write the demo corpus in the formats of MNRE and Twitter-2017."
    )
    parser.add_argument("root", nargs="?", default="data/demo", type=Path, help="folder to make (default: data/demo)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the corpus (default: %(default)s)")
    parser.add_argument("--size", default=defaults.size, help="default, study or tiny (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=defaults.noise, help="share of irrelevant images (%(default)s)")
    parser.add_argument("--missing", type=float, default=defaults.missing, help="share of missing images (%(default)s)")
    parser.add_argument(
        "--hard-share", type=float, default=defaults.hard_share, help="share of hard training rows (%(default)s)"
    )
    parser.add_argument(
        "--posts-per-image",
        type=int,
        default=defaults.posts_per_image,
        help="training posts that show the same image (%(default)s)",
    )
    chosen = vars(parser.parse_args(arguments))
    root: Path = chosen.pop("root")
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
