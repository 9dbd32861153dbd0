"""`mmib fit`, `validate`, `test` and `predict`: the Lightning CLI with a run folder and a summary."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shlex
import signal
import sys
import threading
from argparse import ArgumentError
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.types import LRSchedulerTypeUnion
from torch.optim import Optimizer

from mmib.base.files import read_yaml, write_text
from mmib.base.lightning_internals import callbacks_of, set_callbacks
from mmib.base.revision import revision
from mmib.base.seeding import seeded
from mmib.base.timing import clock
from mmib.callbacks.bottleneck import BottleneckRecord
from mmib.callbacks.checkpointing import LastCheckpoint
from mmib.callbacks.finite import FiniteCheck
from mmib.callbacks.history import CommandHistory
from mmib.callbacks.phases import PhaseTimes
from mmib.callbacks.predictions import PredictionCollector
from mmib.callbacks.progress import with_defaults
from mmib.callbacks.shutdown import LostRank, OrderlyEnd
from mmib.configs import TOP_LEVEL
from mmib.datamodules.base import PostDataModule
from mmib.datamodules.labels import label_set
from mmib.encoders.pixels_and_texts import PixelsAndTextsEncoder
from mmib.encoders.pretrained import weightless
from mmib.encoders.side_text import SideTextEncoder
from mmib.labels import LabelSet
from mmib.modules import ExtractionModule
from mmib.optim import keep_group_settings
from mmib.records import Record, TrainingItems
from mmib.runs.checkpoint_io import WholeCheckpoints
from mmib.runs.checkpoints import check_labels, open_checkpoint, run_of
from mmib.runs.folder import shared_run_folder, slurm_job, slurm_run_folders, started_by_first_rank, training
from mmib.runs.loggers import WandbUse, make_loggers, started_loggers
from mmib.runs.reader import dotted, read_training
from mmib.runs.resumption import LAST, PREVIOUS, resumable
from mmib.schema import CheckpointError, ConfigError, MMIBError, Task, task_named
from mmib.training.constructors import parameters_of
from mmib.training.parser_errors import in_one_sentence
from mmib.training.quiet import quiet_libraries
from mmib.training.summary import (
    Predictions,
    describe_results,
    describe_slices,
    print_summary,
    readable_predictions,
    versions,
    write_predictions,
    write_summary,
    write_training,
)
from mmib.training.trainer_checks import (
    REFUSED,
    check_loggers,
    refused_by_lightning,
    rehearsed_trainer,
    supported_precision,
)
from mmib.training.untyped import check_untyped

# Parts of the model that the data module also uses.
SHARED = ("text_encoder", "image_encoder")
# Whether to score the selected checkpoint after fitting: on all splits, not at all, or on validation only.
Evaluated = bool | Literal["val"]
SIDE_TEXT, PIXELS_AND_TEXTS = (
    f"{encoder.__module__}.{encoder.__name__}" for encoder in (SideTextEncoder, PixelsAndTextsEncoder)
)
# A requeued job may have other nodes, each with its own disk.
CHANGED_BY_REQUEUE = ("trainer.num_nodes", "trainer.devices", "data.init_args.cache_dir")
CHECKPOINT_KEYWORDS = ("best", "last", "hpc", "registry")


def run(arguments: list[str], command: type[MMIBCommand] | None = None, called_as: str | None = None) -> int:
    """Run a trainer command on expanded arguments, and return the exit status 0; see `execute`."""
    execute(arguments, command, called_as)
    return 0


def execute(
    arguments: list[str], command: type[MMIBCommand] | None = None, called_as: str | None = None
) -> MMIBCommand:
    """Run a trainer command on expanded arguments, with another class of command if one is given.

    Args:
        arguments: the arguments, without the name of the program.
        command: the class.
        called_as: the call that the run records; by default the command line of this process.

    Raises:
        MMIBError: If the configuration or the data is invalid, or the command fails.
        SystemExit: If SIGTERM ends it.
    """
    quiet_libraries()
    clock.restart()
    revision()  # cached now, as files may change during the run
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Parser errors are converted to a `ConfigError`; by default the parser prints sixty lines of usage and exits.
    ours: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    held = contextlib.ExitStack()
    try:
        return (command or MMIBCommand)(
            ExtractionModule,
            PostDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=1,
            parser_kwargs={"prog": "mmib", **ours, **dict.fromkeys(LightningCLI.subcommands(), ours)},
            args=arguments,
            held=held,
            called_as=called_as or shlex.join(["mmib", *sys.argv[1:]]),
        )
    except ArgumentError as error:
        options = [*TOP_LEVEL, *(f"trainer.{name}" for name in parameters_of("pytorch_lightning.Trainer"))]
        raise ConfigError(f"the configuration is not valid: {in_one_sentence(str(error), options)}") from error
    except MisconfigurationException as error:
        raise ConfigError(f"{REFUSED}{error}") from error
    except ValueError as error:
        if not refused_by_lightning(error):
            raise
        raise ConfigError(f"{REFUSED}{str(error).strip()}") from error
    except SIGTERMException as error:
        # Lightning would exit with status 0, which a job script would take for a completed run. If Lightning started
        # the ranks, the first one's status counts, and it would be killed if another rank's status were not 0.
        raise SystemExit(0 if started_by_first_rank() else os.EX_TEMPFAIL) from error
    finally:
        held.close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)


class SaveRunConfig(SaveConfigCallback):
    """Saves the composed configuration to the run's folder.

    With W&B, Lightning's callback would write it to the working directory, where a second run fails. A resumed run
    keeps its old file until its checkpoint has been accepted, so that its folder never has a rejected configuration.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration of a new run."""
        if self.config["run"] is None:
            super().setup(trainer, pl_module, stage)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Save the configuration of a resumed run, after all callbacks have seen the checkpoint."""
        if not self.already_saved and trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")
        self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, and log it; called on rank 0."""
        config = saved_config(self.config)
        write_text(Path(trainer.default_root_dir) / "config.yaml", self.parser.dump(config, skip_none=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(config.as_dict())


class MMIBCommand(LightningCLI):
    """The Lightning CLI of mmib. This class is not a public interface; the command `mmib` is.

    Args:
        arguments: see `LightningCLI`.
        held: contexts that are held until the command ends, such as the lock of the run folder.
        called_as: the command line or call, as the run records it.
        options: see `LightningCLI`.

    Attributes:
        summary: the run's summary, on the first rank; None if nothing was scored.
    """

    summary: dict[str, Any] | None = None

    def __init__(self, *arguments: Any, held: contextlib.ExitStack, called_as: str, **options: Any) -> None:
        self._held = held
        self._called_as = called_as
        self._begun: Path | None = None
        super().__init__(*arguments, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options beside trainer, model and data."""
        parser.add_argument("--include", type=list[str], default=[], help="configuration files merged before this one")
        parser.add_argument("--name", type=str, default="run", help="name of the experiment, a folder in --runs")
        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument(
            "--run", type=str | None, default=None, help="folder of a run to resume, with --ckpt_path last"
        )
        parser.add_argument(
            "--wandb",
            type=WandbUse,
            default="auto",
            help="auto: online if a key is set, off if trainer.logger is set; WANDB_MODE may be offline or disabled",
        )
        parser.add_argument(
            "--plugins",
            type=list[str],
            default=[],
            help="modules to import first, for example one that registers a task",
        )
        parser.add_argument(
            "--evaluate",
            type=Evaluated,
            default=True,
            help="after fit, score the selected checkpoint; val: only on validation",
        )
        # Tokenizer, transform and features come from the model's encoders, so that they always agree.
        for encoder in SHARED:
            parser.link_arguments(f"model.{encoder}", f"data.init_args.{encoder}", apply_on="instantiate")
        # The label set comes from the data set, and determines the width of the head.
        parser.link_arguments("data.init_args.labels", "model.init_args.labels", apply_on="parse")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and check the checkpoint before Lightning reads hyperparameters from it."""
        # Not super(), which warns if arguments are passed while the process has others on its command line.
        self.config = parser.parse_args(args)
        command = self.config["subcommand"]
        config = self.config[command]
        _name_side_text_encoder(config["model"])
        if config.get("weights_only") is None:
            config["weights_only"] = True
        if command == "fit" and config["run"] is None and "SLURM_RESTART_COUNT" in os.environ:
            self._go_on_after_requeue(self._parser(command), config)
        run, checkpoint = config["run"], config.get("ckpt_path")
        if run is not None and (command != "fit" or checkpoint is None):
            raise ConfigError(
                f"--run {run} resumes the training of this run: mmib fit --run {run} --ckpt_path last. "
                f"To score it: mmib test --config {run}/config.yaml --ckpt_path {run}/checkpoints/best.ckpt"
            )
        if run is not None and checkpoint == "last":
            config["ckpt_path"] = checkpoint = str(last_checkpoint(Path(run)))
        if checkpoint in CHECKPOINT_KEYWORDS:
            raise ConfigError(
                f"--ckpt_path {checkpoint} names no file: resume a run with mmib fit --run RUN --ckpt_path last, or "
                f"name RUN/checkpoints/best.ckpt"
            )
        if checkpoint is None and command != "fit":
            raise ConfigError(
                f"mmib {command} needs a trained model: --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt"
            )
        for part, given in (("model", ()), ("data", SHARED), ("trainer", ())):
            check_untyped(config[part].as_dict(), part, given)
        task = _task_of(config["model"]["class_path"])
        if checkpoint is not None:
            source = config["data"]["init_args"].get("labels")  # a custom data module may have no such argument
            labels = None if source is None else label_set(source)
            check_checkpoint(Path(checkpoint), task, labels, command == "fit")
        check_loggers(config["trainer"].as_dict()["logger"], config["wandb"])

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; an `MMIBError` that jsonargparse has wrapped is unwrapped."""
        try:
            self._rehearse()
            super().instantiate_classes()
        except Exception as error:
            own = _own_error(error)
            if own is None:
                raise
            raise own from error

    def _rehearse(self) -> None:
        """Build everything without weights, to find errors of a configuration before weights and data are read.

        Raises:
            MMIBError: If the configuration is invalid.
        """
        # Lightning logs the hardware each time that a trainer is built.
        said = logging.getLogger("pytorch_lightning.utilities.rank_zero")
        level = said.level
        try:
            said.setLevel(logging.ERROR)
            with seeded("rehearsal"), weightless():
                built = self.parser.instantiate_classes(self.config)
                model = self._get(built, "model")
                model.check_data(self._get(built, "data"))
                model.parameter_groups()
                fits = self.subcommand == "fit"
                trainer = rehearsed_trainer(self.trainer_class, self._get(built, "trainer"), fits)
                if fits:
                    self._get(built, "data").check_ranks(trainer.world_size)
        except Exception as error:
            # Other errors may be due to the missing weights. If not, building with weights raises them again.
            if _own_error(error) is not None:
                raise
        finally:
            said.setLevel(level)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, and create the run folder, as model and data have been built without errors."""
        self.datamodule.check_files(self.subcommand)
        config = self._own_config()
        options = self._get(self.config_init, "trainer")
        chosen = options["logger"]
        loggers = started_loggers(chosen)
        seed = config.get("seed_everything")
        if config["run"] is not None:
            self.run_folder = Path(config["run"])
        elif self._begun is not None:
            self.run_folder = self._begun
        else:
            seed = seed if type(seed) is int else None
            self.run_folder = shared_run_folder(Path(config["runs"]), config["name"], seed)
        if self.subcommand == "fit":
            self._held.enter_context(training(self.run_folder))
        self.collector = PredictionCollector()
        self.bottleneck = BottleneckRecord()
        self.history = CommandHistory(self._called_as)
        if chosen is not False:
            wandb: WandbUse = "off" if loggers and config["wandb"] == "auto" else config["wandb"]
            loggers = [*make_loggers(self.run_folder, config["name"], wandb), *loggers]
        precision = supported_precision(options["precision"], options["accelerator"])
        trainer = super().instantiate_trainer(
            precision=precision,
            callbacks=with_defaults(
                options["callbacks"], options["enable_progress_bar"], options["enable_model_summary"]
            ),
            default_root_dir=self.run_folder,
            logger=loggers,
            **kwargs,
        )
        added = [FiniteCheck(), self.collector, self.bottleneck, self.history, OrderlyEnd(), LostRank(), PhaseTimes()]
        callbacks = [*callbacks_of(trainer), *added]
        # `LastCheckpoint` comes last, so that it saves the final state of the other callbacks.
        set_callbacks(trainer, sorted(callbacks, key=lambda callback: isinstance(callback, LastCheckpoint)))
        trainer.strategy.checkpoint_io = WholeCheckpoints()
        if precision != options["precision"] and trainer.is_global_zero:
            reason = "this CPU has no instructions for bf16, and emulating them would be far slower"
            print(f"precision: {trainer.precision} instead of {options['precision']}: {reason}")  # noqa: T201
        return trainer

    def _go_on_after_requeue(self, parser: LightningArgumentParser, config: Any) -> None:
        """Continue the run of this configuration that the job began before SLURM requeued it, if there is one.

        It is resumed from its last checkpoint, or begun again in its folder if it saved none. A job may have other
        runs, of other commands.
        """
        settings = _settings(yaml.safe_load(parser.dump(saved_config(config), skip_none=False)))
        folders = slurm_run_folders(Path(config["runs"]), config["name"])
        for folder in folders:
            saved = folder / "config.yaml"
            if saved.is_file() and _settings(read_yaml(saved)) == settings:
                self._begun = folder
                break
        if self._begun is None:
            action = "none of its runs has this configuration, so a new one starts" if folders else ""
        elif resumable(self._begun):
            config["run"], config["ckpt_path"] = str(self._begun), "last"
            action = f"resuming {self._begun}"
        else:
            action = f"beginning {self._begun} again"
        if action and os.environ.get("SLURM_PROCID", "0") == "0":
            print(f"job {slurm_job()} was requeued: {action}")  # noqa: T201

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerTypeUnion | None = None
    ) -> Any:
        """Return the optimiser and schedule of `--optimizer` and `--lr_scheduler`, which replace the model's."""
        keep_group_settings(optimizer, other_schedule=lr_scheduler is not None)
        return LightningCLI.configure_optimizers(lightning_module, optimizer, lr_scheduler)

    def after_fit(self) -> None:
        """Score the selected checkpoint on validation and once on test, as far as `evaluate` requests it."""
        if not self.history.took_over and self.trainer.is_global_zero:
            print(f"training of {self.run_folder} was already complete: nothing was trained")  # noqa: T201
        if self.trainer.is_global_zero:
            write_training(self.run_folder, TrainingItems.of(self.datamodule.items("train")))
        best = cast(ModelCheckpoint | None, self.trainer.checkpoint_callback)
        evaluated = self._own_config()["evaluate"]
        if not evaluated:
            return
        if best is None or not best.best_model_path:
            if self.trainer.is_global_zero:
                print(f"no checkpoint was selected, so nothing is scored; the run: {self.run_folder}")  # noqa: T201
            return
        selected = {
            "split": "val",
            "metric": best.monitor,
            "value": None if best.best_model_score is None else float(best.best_model_score),
            "epoch": _epoch_of(Path(best.best_model_path)),
            "checkpoint": best.best_model_path,
        }
        options: Any = {"ckpt_path": best.best_model_path, "verbose": False, "weights_only": True}
        self.trainer.validate(self.model, datamodule=self.datamodule, **options)
        if evaluated != "val" and self.datamodule.has_split("test"):
            self.trainer.test(self.model, datamodule=self.datamodule, **options)
        self._finish(selected)

    def after_validate(self) -> None:
        """Write summary and predictions."""
        self._finish(None)

    def after_test(self) -> None:
        """Write summary and predictions."""
        self._finish(None)

    def after_predict(self) -> None:
        """Write the predictions."""
        self.collector.gather()
        if self.trainer.is_global_zero:
            write_predictions(self.run_folder, self.model.labels, self._records())
            print(f"predictions: {self.run_folder / 'predictions'}")  # noqa: T201

    def _finish(self, selected: dict[str, Any] | None) -> None:
        self.collector.gather()
        if not self.trainer.is_global_zero:
            return
        config = self._own_config()
        checkpoint = config.get("ckpt_path") if selected is None else selected["checkpoint"]
        source = self.run_folder if selected is not None else run_of(Path(checkpoint))
        trained_on = read_training(source)
        if trained_on is not None and selected is None:
            write_training(self.run_folder, trained_on)
        records = self._records()
        summary = {
            "task": self.model.task,
            "labels": self.model.labels.to_dict(),
            "plugins": list(config["plugins"]),
            "corpus": self.datamodule.corpus,
            "experiment": config["name"],
            "data": {split: self.datamodule.fingerprint(split) for split in self.datamodule.examples},
            "images": {split: str(report) for split, report in self.datamodule.image_reports.items()},
            "seed": config.get("seed_everything"),
            "command": self.history.command,
            "commands": self.history.commands,
            "versions": versions(),
            "precision": self.trainer.precision,
            "selected": selected,
            "checkpoint": checkpoint,
            **describe_results(*self._predicted()),
            "slices": describe_slices(*self._predicted()[:2], records, trained_on, self.datamodule.images == "own"),
            "bottleneck": self.bottleneck.summary(),
            "seconds": {name: rounded for name, spent in clock.seconds().items() if (rounded := round(spent, 1))},
        }
        write_predictions(self.run_folder, self.model.labels, records)
        write_summary(self.run_folder, summary)
        self.summary = summary
        print_summary(summary, self.run_folder)

    def _predicted(self) -> tuple[Task, LabelSet, PostDataModule, dict[str, Predictions]]:
        """Return the arguments for prediction files and the summary."""
        return task_named(self.model.task), self.model.labels, self.datamodule, self.collector.predictions

    def _records(self) -> dict[str, list[Record]]:
        """Return the records for prediction files."""
        return readable_predictions(*self._predicted())

    def _own_config(self) -> Any:
        return self.config[self.subcommand]


def saved_config(config: Any) -> Any:
    """Return a configuration as a run saves it, for new runs and to score any checkpoint: it names no run to resume."""
    config = config.clone()
    config.pop("include", None)
    config["run"] = config["ckpt_path"] = None
    return config


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a saved configuration that are the same when SLURM requeues a job."""
    return {name: value for name, value in dotted(config) if name not in CHANGED_BY_REQUEUE}


def _name_side_text_encoder(model: Any) -> None:
    """Set the encoder of side texts to a frozen copy of the model's text encoder, unless another one is configured."""
    backbone = model["init_args"].get("backbone")
    encoders = [] if backbone is None else [backbone["init_args"].get(name) for name in SHARED]
    if len(encoders) < len(SHARED) or not all(encoders):
        return
    text, image = encoders
    texts = image["init_args"]["texts"] if image["class_path"] == PIXELS_AND_TEXTS else image
    if texts["class_path"] == SIDE_TEXT and not texts["init_args"]["shared"]:
        texts["init_args"]["text_encoder"] = texts["init_args"]["text_encoder"] or text["init_args"].get("name")


def last_checkpoint(run: Path) -> Path:
    """Return the newest checkpoint from which a run can be resumed.

    Raises:
        CheckpointError: If there is none.
    """
    if found := resumable(run):
        return found[0]
    raise CheckpointError(
        f"the run {run} has no checkpoint to resume from: there is no {run / 'checkpoints' / LAST}; begin anew with "
        f"mmib fit --config {run / 'config.yaml'}"
    )


def check_checkpoint(path: Path, task: str, labels: LabelSet | None, resume: bool = False) -> None:
    """Check a checkpoint's task and label set, without running any code in it.

    The label set is not checked if `labels` is None.

    Raises:
        CheckpointError: If it is missing, damaged, or of another task or label set; with `resume` also if it only
            contains weights.
    """
    content = open_checkpoint(path, task, lambda: _one_before(path, task, labels) if path.name == LAST else "")
    if labels is not None:
        check_labels(content, labels, str(path))
    if resume and "optimizer_states" not in content:
        raise CheckpointError(f"{path} contains weights only: resume the run from its last.ckpt")


def _one_before(path: Path, task: str, labels: LabelSet | None) -> str:
    """Return the advice for a damaged last checkpoint: the previous one, if the run can be resumed from it."""
    before = path.with_name(PREVIOUS)
    try:
        check_checkpoint(before, task, labels, resume=True)
    except CheckpointError:
        return ""
    return f"; resume from the one before it: mmib fit --run {path.parents[1]} --ckpt_path {before}"


def _own_error(error: BaseException | None) -> MMIBError | None:
    """Return the `MMIBError` among an exception and its causes, or None."""
    while error is not None and not isinstance(error, MMIBError):
        error = error.__cause__ or error.__context__
    return error


def _task_of(class_path: str) -> str:
    """Return the task of a configured model class.

    Raises:
        ConfigError: If it has none.
    """
    module, _, name = class_path.rpartition(".")
    task = getattr(getattr(importlib.import_module(module), name), "task", None)
    if not isinstance(task, str):
        raise ConfigError(
            f"{class_path} has no task: give the class an attribute `task`, the name of the task that its network "
            "is for, or choose a subclass that has one"
        )
    return task


def _epoch_of(checkpoint: Path) -> int:
    """Return the epoch, from 0, after which a checkpoint was written."""
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["epoch"])
