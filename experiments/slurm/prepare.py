"""Prepare the files that all ranks of a job read: the demo corpus and the features of all images.

    python experiments/slurm/prepare.py --config mre-demo ...

Takes the options of `mmib fit`, but does not train and creates no run folder.
"""

from __future__ import annotations

import sys
from typing import Any

from pytorch_lightning import Trainer

from mmib.configs import expand_configs
from mmib.schema import MMIBError
from mmib.training.cli import MMIBCommand, run


class Preparation(MMIBCommand):
    """`mmib fit` without the training."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create a trainer that writes nothing and uses the CPU: the configured devices are for the ranks."""
        return Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )

    def _run_subcommand(self, subcommand: str) -> None:
        self.datamodule.prepare_data()
        for stage in ("fit", "test"):
            if stage == "fit" or self.datamodule.has_split("test"):
                self.datamodule.setup(stage)


def main() -> int:
    """Prepare the files; a known error is printed as one message, as in `mmib`."""
    try:
        return run(expand_configs(["fit", *sys.argv[1:]]), Preparation)
    except MMIBError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
