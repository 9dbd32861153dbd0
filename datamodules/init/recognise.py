"""Recognises the data in a folder or file, and the settings to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmib.base.files import parse_json
from mmib.datamodules.columns_files import ENDINGS as COLUMN_ENDINGS
from mmib.datamodules.columns_files import ColumnsReader
from mmib.datamodules.convert.formats import DOCCANO, LABEL_STUDIO
from mmib.datamodules.convert.formats import recognise as tool_of
from mmib.datamodules.files import Malformed, open_data, read_lines
from mmib.datamodules.init.sniffing import sniff
from mmib.datamodules.jsonl_files import ENDINGS as LINE_ENDINGS
from mmib.datamodules.jsonl_files import JSONLinesReader
from mmib.datamodules.jsonl_lines import parse_post
from mmib.datamodules.mnre_files import MNREReader
from mmib.datamodules.readers import Reader
from mmib.datamodules.schemes import Scheme
from mmib.datamodules.split_files import HoldOut, SplitFiles, files_in
from mmib.datamodules.twitter_files import YEARS, TwitterReader
from mmib.labels import LabelSet, shown
from mmib.schema import ConfigError, DataError

MNER, MRE = "mner", "mre"
SPLITS = ("train", "val", "test")
# Share of the posts to validate or to test on if there is no file for it; the large share if there are few posts.
SHARE, LARGE_SHARE, MANY_POSTS = 0.1, 0.2, 1_000
LAYOUT = "name a folder or a file of data"
TEXT_ENDINGS = (".json", ".jsonl", ".txt")
KNOWN = (
    "MNRE's layout, that of the Twitter files, JSON lines (.jsonl) and columns (.txt, .conll, .tsv, .bio), which "
    "docs/reference/formats.md shows; and mmib convert makes JSON lines of what Label Studio and doccano export"
)


@dataclass(frozen=True)
class Given:
    """Settings of the data given by the user; None for settings to detect.

    Attributes:
        task: `mner` or `mre`.
        image_folder: folder of the images.
        separator: column separator.
        word_column, tag_column: columns of words and tags.
        scheme: scheme of the tags.
    """

    task: str | None = None
    image_folder: Path | None = None
    separator: str | None = None
    word_column: int | None = None
    tag_column: int | None = None
    scheme: Scheme | None = None


@dataclass(frozen=True)
class Found:
    """Data that can be read.

    Attributes:
        title: description of the data, in the plural.
        task: name of its task.
        reader: returns its reader, given its label set.
        data_module: class path of its data module.
        settings: the data module's arguments, except the labels.
        remarks: the assumptions made, and the options that change them.
        makes_negatives: whether pairs of entities without a relation become rows if there is a negative class.
    """

    title: str
    task: str
    reader: Callable[[LabelSet | None], Reader]
    data_module: str
    settings: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    makes_negatives: bool = False


def find_data(path: Path, given: Given) -> Found:
    """Recognise the data in a folder or file.

    Raises:
        DataError: the path does not exist, cannot be read, or has no known format; the message lists the known formats.
        ConfigError: there are several data sets, or none for the given task.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: {LAYOUT}")
    found = [*_layouts(path, given)] or [*_json_lines(path, given), *_columns(path, given)]
    if not found:
        reason = _hint(path) or "; ".join(_faults(path))
        raise DataError(f"{path} holds no data that mmib can train on{reason and f': {reason}'}. It reads {KNOWN}")
    fitting = [data for data in found if given.task in (None, data.task)]
    if not fitting:
        titles = " and ".join(f"{data.title} (for {data.task})" for data in found)
        raise ConfigError(
            f"{path} holds {titles}, and nothing for --task {given.task}: leave it out, or name other data"
        )
    if len(fitting) > 1:
        titles = " and ".join(f"{data.title} (for {data.task})" for data in fitting)
        option = "choose with --task" if len({data.task for data in fitting}) > 1 else "name the folder or file of one"
        raise ConfigError(f"{path} holds {titles}: {option}")
    return fitting[0]


def _layouts(path: Path, given: Given) -> Iterator[Found]:
    """Yield MNRE and the Twitter data sets; the path may be their root or their folder of texts."""
    root = path.parent if path.name == "txt" else path
    if _has_any(MNREReader(root)):
        yield Found(
            "rows in MNRE's layout",
            MRE,
            _always(MNREReader(root)),
            "mmib.datamodules.mnre.MNREDataModule",
            {"root": str(root)},
            _unused(given, "MNRE's layout"),
        )
    for year in YEARS:
        above = path.parent if path.name == f"twitter{year}" else path
        if _has_any(TwitterReader(above, year)):
            yield Found(
                f"posts in the layout of Twitter-{year}",
                MNER,
                _always(TwitterReader(above, year)),
                "mmib.datamodules.twitter.TwitterDataModule",
                {"root": str(above), "year": year},
                _unused(given, f"the layout of Twitter-{year}"),
            )


def _always(reader: Reader) -> Callable[[LabelSet | None], Reader]:
    """Return a function for a reader that does not depend on the labels."""
    return lambda labels: reader


def _has_any(reader: Reader) -> bool:
    return any(reader.has_split(split) for split in SPLITS)


def _unused(given: Given, layout: str) -> list[str]:
    return [f"--images is not used: {layout} says where images are"] if given.image_folder is not None else []


def _json_lines(path: Path, given: Given) -> Iterator[Found]:
    file = _train_file(path, LINE_ENDINGS)
    if file is None or not _holds_posts(file):
        return
    hold_out, settings, remarks = _held_out(path, LINE_ENDINGS, lambda: sum(1 for _ in read_lines(file, LAYOUT)))
    images = given.image_folder

    def reader(task: str, labels: LabelSet | None) -> Reader:
        return JSONLinesReader(path, task, labels, images=images, hold_out=hold_out)

    task = given.task or _task_of(file, reader(MNER, None))
    yield Found(
        "posts as JSON lines",
        task,
        lambda labels: reader(task, labels),
        "mmib.datamodules.jsonl.JSONLinesDataModule",
        {"root": str(path), "task": task, **_images(given), **settings},
        remarks,
        makes_negatives=task == MRE,
    )


def _holds_posts(file: Path) -> bool:
    """Whether the first line of a file is a post as `mmib.datamodules.jsonl` reads it."""
    try:
        first = next((line for line in read_lines(file, LAYOUT) if line.strip()), "")
        row = parse_json(first)
    except ValueError:
        return False
    return isinstance(row, dict) and bool(row.keys() & {"text", "tokens"}) and not _hint(file)


def _task_of(file: Path, reader: JSONLinesReader | Reader) -> str:
    """Return the task of a JSON lines file.

    Raises:
        ConfigError: the file has relations, and so suits both tasks.
    """
    entries = reader.entries(file) if isinstance(reader, JSONLinesReader) else ()
    if any(entry.relations for entry in entries if not isinstance(entry, Malformed)):
        raise ConfigError(f"{file} holds entities and relations: choose with --task {MNER} or --task {MRE}")
    return MNER


def _columns(path: Path, given: Given) -> Iterator[Found]:
    file = _train_file(path, COLUMN_ENDINGS)
    if file is None or _first_byte(file) in (b"{", b"["):
        return
    columns = sniff(file, given.separator, given.word_column, given.tag_column)
    if columns is None:
        return
    hold_out, settings, remarks = _held_out(path, COLUMN_ENDINGS, lambda: _blank_lines(file))
    chosen = {
        "separator": columns.separator,
        "word_column": columns.word,
        "tag_column": columns.tag,
        "scheme": None if given.scheme is None else given.scheme.value,
    }
    yield Found(
        "posts in columns",
        MNER,
        _always(
            ColumnsReader(
                path, columns.separator, columns.word, columns.tag, given.scheme, given.image_folder, hold_out
            )
        ),
        "mmib.datamodules.columns.ColumnsDataModule",
        {"root": str(path), **chosen, **_images(given), **settings},
        [f"read as {columns}: --separator, --word-column and --tag-column change it", *remarks],
    )


def _train_file(path: Path, endings: tuple[str, ...]) -> Path | None:
    """The file of the training posts in one of the formats with free file names."""
    file = SplitFiles(path, endings, HoldOut(0.0)).file("train")
    return file if file.is_file() else None


def _held_out(
    path: Path, endings: tuple[str, ...], count: Callable[[], int]
) -> tuple[HoldOut, dict[str, float], list[str]]:
    """Return the shares for the splits that have no file, the settings of the data module for them, and remarks."""
    files = SplitFiles(path, endings, HoldOut(0.0))
    if files.file("val").is_file():
        return HoldOut(0.0), {}, []
    share = SHARE if count() >= MANY_POSTS else LARGE_SHARE
    test = 0.0 if files.file("test").is_file() else share
    hold_out = HoldOut(share, test)
    splits = ("val", "test") if test else ("val",)
    purpose = " and ".join(f"{share:.0%} for {split}" for split in splits)
    wanted = " and ".join(f"{split}{endings[0]}" for split in splits)
    remark = (
        f"held out of the training posts: {purpose}; {wanted} beside {files.file('train').name} would be used instead"
    )
    return hold_out, {"holdout": share, "test_holdout": test}, [remark]


def _images(given: Given) -> dict[str, str]:
    return {} if given.image_folder is None else {"image_folder": str(given.image_folder)}


def _blank_lines(file: Path) -> int:
    return sum(not line.strip() for line in read_lines(file, LAYOUT))


def _first_byte(file: Path) -> bytes:
    with open_data(file, LAYOUT) as stream:
        return stream.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _hint(path: Path) -> str:
    """A hint on files of a known format that have to be converted or moved first; empty if there are none."""
    for file in [path] if path.is_file() else sorted(_texts_in(path)):
        if _is_list_of_posts(file):
            return f"{file} is one JSON list of posts: write each post as one object in one line"
        tool = _tool(file)
        if tool:
            return f"{file} is an export of {tool}: mmib convert {file} -o posts.jsonl makes posts of it"
        if _first_byte(file) == b"{" and "'img_id'" in next(read_lines(file, LAYOUT)).replace('"', "'"):
            return f"{file} holds rows of MNRE: mmib check-data {file.parent} says where they go"
    return ""


def _faults(path: Path) -> Iterator[str]:
    """Yield the reasons why the files of a format with free file names are no posts to train on."""
    for endings, fault in ((LINE_ENDINGS, _line_fault), (COLUMN_ENDINGS, _column_fault)):
        file = _train_file(path, endings)
        if file is None:
            names = [file.name for file in files_in(path, endings)]
            if names:
                yield (
                    f"no file is called train, only {shown(names)}: name the file to train on, or call the files "
                    "train, val and test"
                )
        elif file.suffix.lower() in endings:
            yield fault(file)


def _line_fault(file: Path) -> str:
    """The error of the first line that is no post."""
    for number, line in enumerate(read_lines(file, LAYOUT), start=1):
        if line.strip():
            try:
                parse_post(line, f"{file}:{number}", ())
            except DataError as error:
                return str(error)
    return f"{file} is empty"


def _column_fault(file: Path) -> str:
    if _first_byte(file) in (b"{", b"["):
        return f"{file} holds JSON, which is read from files that end in {LINE_ENDINGS[0]}"
    return f"{file} has no column of tags, such as O and B-TEAM"


def _texts_in(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix in TEXT_ENDINGS and file.is_file()]


def _is_list_of_posts(file: Path) -> bool:
    """Whether a file is a JSON list whose items are posts; the tasks of Label Studio have no entities."""
    if _first_byte(file) != b"[":
        return False
    try:
        rows = parse_json(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "entities" in rows[0]


def _tool(file: Path) -> str:
    names = {LABEL_STUDIO: "Label Studio", DOCCANO: "doccano"}
    try:
        return names.get(tool_of(file), "") if _first_byte(file) in (b"{", b"[") else ""
    except DataError:
        return ""
