"""Compare the rank that a run gives each post's own image with the best rank that the text of the post allows.

    python -m experiments.own_image runs/mre-demo/...

For runs on the demo corpus; reads their saved latents of validation posts. A share is the rank divided by the number
of candidates.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.measure import table
from mmib.datamodules.demo.corpus import read_manifest
from mmib.datamodules.demo.posts import LEVELS, Post, draw_posts
from mmib.datamodules.demo.retrieval import best_image_ranks
from mmib.datamodules.demo.settings import DemoSettings
from mmib.geometry import PairedLatents
from mmib.runs.reader import read_run
from mmib.schema import MMIBError, RunError

SPLIT = "val"
ALL = "all"
Array = NDArray[np.float64]


def best_shares(settings: DemoSettings) -> dict[str, Array]:
    """Best possible share of each validation post whose image matches, by level."""
    shown, ranks = best_image_ranks(draw_posts(settings, SPLIT), settings.hidden_noise(SPLIT))
    return _by_level([(post, rank / len(shown)) for post, rank in zip(shown, ranks, strict=True)])


def reached_shares(folder: Path, settings: DemoSettings) -> dict[str, Array]:
    """Share that a run reaches for each validation post with saved latents, by level.

    Raises:
        RunError: the run saved no latents, or is not a run.
    """
    from safetensors.numpy import load_file  # noqa: PLC0415 - `--help` need not load it

    path = folder / "latents" / "selected.safetensors"
    if not path.is_file():
        raise RunError(f"{folder} kept no latents: train with the callback mmib.callbacks.LatentSpace")
    kept = load_file(path)
    posts = draw_posts(settings, SPLIT)
    rows = posts if read_run(folder).task == "mner" else [post for post in posts for _ in post.pairs]
    ranks, candidates = PairedLatents(kept["text"], kept["image"], kept["image_ids"]).ranks
    return _by_level([(rows[row], share) for row, share in zip(kept["rows"], ranks / candidates, strict=True)])


def _by_level(shares: Sequence[tuple[Post, float]]) -> dict[str, Array]:
    fitting = [(post.level, share) for post, share in shares if post.clauses and post.noise is None]
    levels = {level: [share for found, share in fitting if found == level] for level in LEVELS}
    return {name: np.array(found) for name, found in {ALL: [s for _, s in fitting], **levels}.items() if found}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of the demo corpus")
    options = parser.parse_args(arguments)
    try:
        roots = [Path(read_run(folder).config()["data"]["init_args"]["root"]) for folder in options.runs]
        for folder, root in zip(options.runs, roots, strict=True):
            manifest = read_manifest(root)
            if manifest is None:
                raise RunError(f"{folder} was not trained on a demo corpus: {root} is none")
            settings = DemoSettings(**manifest["settings"])
            best, reached = best_shares(settings), reached_shares(folder, settings)
            lines = [[name, len(found), *_percent(found, best[name])] for name, found in reached.items()]
            print(f"{folder.name}\n{table(['posts', 'number', 'reached, %', 'best possible, %'], lines)}\n")
    except MMIBError as error:
        raise SystemExit(str(error)) from error


def _percent(*shares: Array) -> list[str]:
    return [f"{100 * np.median(share):.1f}" for share in shares]


if __name__ == "__main__":
    main()
