"""The command `mmib report`: one page about one or several runs, from the files in their folders."""

from __future__ import annotations

from pathlib import Path

from mmib.analysis.report import comparison, single, study
from mmib.analysis.report.page import page
from mmib.base.argument_parser import CommandParser
from mmib.base.files import check_output, write_text
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.plugins import task_of
from mmib.runs.reader import STUDY, FinishedRun, find_runs, newest_first, trained_runs
from mmib.schema import RunError

RUNS = Path("runs")
NAME = "report.html"
POSTS = 60


def run(arguments: list[str]) -> int:
    """Write the page and print its path.

    Raises:
        DataError: the relevance file cannot be read, or is about other images.
        RunError: there is no run, a run is unfinished or damaged, or the runs cannot be compared.
        TaskError: the task of a run is not registered.
        PluginError: a module to import is missing, or its import fails.
    """
    parser = CommandParser(
        prog="mmib report",
        description="Write a self-contained HTML report on a run, several runs side by side, or a study.",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="folders of runs or of studies (default: the newest run in runs/)",
    )
    parser.add_argument("--output", type=Path, help="HTML file to write (default: report.html in the folder)")
    parser.add_argument("--posts", type=int, metavar="N", help=f"number of posts of one run to show (default: {POSTS})")
    parser.add_argument(
        "--data.root",
        type=Path,
        dest="data_root",
        metavar="FOLDER",
        help="folder of the data of one run, if it was moved",
    )
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE",
        help="JSON lines of image relevance, to split scores by (default: the alignment score)",
    )
    chosen = parser.parse_args(arguments)
    if chosen.posts is not None and chosen.posts < 0:
        parser.error("--posts must be 0 or more")
    folders = chosen.runs or [newest_run(RUNS)]
    output = chosen.output or (folders[0] if len(folders) == 1 else Path()) / NAME
    # The report may overwrite an older report, but no other file of a run.
    inputs = (file for folder in folders for file in folder.rglob("*") if file.suffix != ".html")
    check_output(output, [*inputs, *filter(None, [chosen.relevance])])
    relevance = None if chosen.relevance is None else ImageRelevance(chosen.relevance)
    text = make_page(folders, chosen.data_root, chosen.posts, relevance)
    try:
        write_text(output, text)
    except OSError as error:
        raise RunError(f"the report cannot be written: {error}; choose another place with --output") from error
    print(output)  # noqa: T201
    return 0


def newest_run(folder: Path) -> Path:
    """Return the folder of the run that finished last.

    Raises:
        RunError: there is no finished run.
    """
    runs = newest_first(trained_runs(folder))
    if not runs:
        raise RunError(f"there is no finished run below {folder}/: name one, or make one with mmib fit")
    return runs[0].folder


def make_page(
    folders: list[Path],
    data_root: Path | None = None,
    posts: int | None = None,
    relevance: ImageRelevance | None = None,
) -> str:
    """Return the report on runs or on a study as HTML.

    Args:
        folders: folders of runs, or of one study.
        data_root: folder of a single run's images, if not the one in its configuration.
        posts: how many posts of a single run to show, if not `POSTS`.
        relevance: relevance of the posts' images, by which scores of runs are split.

    Raises:
        RunError, TaskError, DataError: see `run`.
    """
    studies = [study.read_study(folder) for folder in folders if (folder / STUDY).is_file()]
    if studies:
        if len(folders) > 1:
            raise RunError("a report shows one study or several runs, not both: name one study, or only runs")
        if relevance is not None:
            raise RunError("mmib study computes the slices of a study: pass --relevance to mmib study")
        _check_unused(data_root, posts)
        (only,) = studies
        task = task_of(str(only.content["task"]), only.folder, only.content.get("plugins") or ())
        return page(only.name, f"study, {task.title}", study.sections(only))
    runs = find_runs(folders)
    if len(runs) == 1:
        parts = single.sections(runs[0], data_root, POSTS if posts is None else posts, relevance)
        return page(f"{runs[0].name}, seed {runs[0].seed}", _subtitle(runs[0]), parts)
    _check_unused(data_root, posts)
    names = list(dict.fromkeys(run.name for run in runs))
    title = " · ".join(names) if len(names) <= 3 else f"{len(names)} experiments"
    return page(title, f"{len(runs)} runs, {_subtitle(runs[0])}", comparison.sections(runs, relevance))


def _check_unused(data_root: Path | None, posts: int | None) -> None:
    """Refuse options of the page about one run for another page."""
    for option, value in (("--posts", posts), ("--data.root", data_root)):
        if value is not None:
            raise RunError(f"only the report on one run shows a sample of posts: leave out {option}, or name one run")


def _subtitle(run: FinishedRun) -> str:
    return f"{run.registered_task().title} on {run.summary.get('corpus', 'an unnamed corpus')}"
