"""Prepare a bundle for `experiments.benchmarks.gpu` on a GPU machine without network and without our packages.

    python -m experiments.benchmarks.bundle .gpu

Run it where a package index is available. It fills the folder with wheels of the packages that such a machine may lack
(pure Python, for any version and system), the tokenizer with the vocabulary of bert-base-uncased, and the text of the
training splits of the available real sets. It prints the size, and the commands for the GPU machine. Packages with
compiled parts (torch, transformers' tokenizers, timm's torchvision) must be installed there; wandb is not needed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.benchmarks.corpus import DATA_ROOT, SETS, SPLIT, reader_of
from experiments.benchmarks.recipe import copy_tokenizer
from mmib.encoders.pretrained import packaged_file
from mmib.schema import ConfigError, MMIBError

WHEELS, TOKENIZER, TEXT = "wheels", "tokenizer", "text"
# seqeval is required by mmib; the others are compared with our CRF.
PACKAGES = ("seqeval==1.2.2", "pytorch-crf==0.7.2", "torch-struct==0.5")
MB = 1e6
LIMIT = 60.0  # megabytes that can be transferred, besides the repository's own five

COMMAND = """python3 -m pip install --quiet --no-index --no-deps --upgrade --target {folder}/site \\
    {folder}/wheels/*.whl && \\
PYTHONUNBUFFERED=1 PYTHONPATH=src:.:{folder}/site \\
    python3 -m experiments.benchmarks.gpu --bundle {folder} --output $OUT"""


def fill(folder: Path, data_root: Path) -> float:
    """Fill a folder, and return its size in megabytes.

    Raises:
        ConfigError: a wheel is specific to a system, or the total size exceeds the limit.
        subprocess.CalledProcessError: pip failed, and printed why.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / TOKENIZER).mkdir(parents=True)
    copy_tokenizer(packaged_file("pip:minilm-l6").parent, folder / TOKENIZER)
    for name, posts in SETS.items():
        root = Path(name) if posts.task == "mre" else Path()
        real = reader_of(data_root / root, name)
        if real.has_split(SPLIT):
            copy = reader_of(folder / TEXT / root, name).text_file(SPLIT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(real.text_file(SPLIT), copy)
    wheels = folder / WHEELS
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", wheels, *PACKAGES], check=True)
    if bound := [wheel.name for wheel in wheels.iterdir() if not wheel.stem.endswith("-none-any")]:
        raise ConfigError(f"{bound[0]} is for one system only: leave it out of the bundle")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MB
    if size > LIMIT:
        raise ConfigError(f"{folder} has {size:.0f} MB, and {LIMIT:.0f} can be carried: leave sets out of --data-root")
    return size


def main(arguments: list[str] | None = None) -> None:
    """Fill the folder, and print how to use it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is emptied first")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else the demo's serve")
    chosen = parser.parse_args(arguments)
    try:
        size = fill(chosen.folder, chosen.data_root)
    except (MMIBError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{chosen.folder}: {size:.1f} MB. In the repository's root on the GPU machine, with this folder:\n")
    print(COMMAND.format(folder=chosen.folder))


if __name__ == "__main__":
    main()
