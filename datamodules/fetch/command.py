"""The command `mmib fetch-data`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path, PurePosixPath

from mmib.base.argument_parser import CommandParser
from mmib.base.files import checksum, locked, replace_folder
from mmib.base.wording import counted
from mmib.datamodules.check import command as check_data
from mmib.datamodules.fetch.captions import write_captions
from mmib.datamodules.fetch.download import download, require_packages
from mmib.datamodules.fetch.manifest import READERS, DataSet, data_set
from mmib.datamodules.fetch.unpack import unpack_images
from mmib.schema import ConfigError, DataError

# Its value is a list of addresses, separated by spaces.
MIRROR_VARIABLE = "MMIB_DATA_MIRROR"
SPLITS = ("train", "val", "test")
DOWNLOADS = ".fetch-data"


def run(arguments: list[str]) -> int:
    """Download the missing files of a data set, and check it.

    Returns:
        The exit status of `mmib check-data`: 0 fine, 1 problems, 2 something cannot be read.

    Raises:
        ConfigError: the terms are not accepted, or a package is missing.
        DataError: a file cannot be downloaded or unpacked, or differs from the released one.
    """
    chosen = _parser().parse_args(arguments)
    require_packages()
    wanted, root = data_set(chosen.name), chosen.to
    _accept_terms(wanted, captions=chosen.captions, accepted=chosen.accept_terms)
    mirrors = chosen.mirror or os.environ.get(MIRROR_VARIABLE, "").split()
    downloads = root / DOWNLOADS
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{root} cannot be a folder of data: {error}; choose another with --to") from error
    with locked(root / f"{DOWNLOADS}.lock"):
        _fetch_texts(wanted, root, mirrors)
        if chosen.captions:
            _fetch_captions(wanted, root, mirrors)
        if not chosen.text_only:
            _fetch_images(wanted, root, mirrors)
        shutil.rmtree(downloads)
    images = ["--max-missing-images", "1"] if chosen.text_only else []
    side_texts = ["--side-text", str(_captions_of(wanted, root))] if chosen.captions else []
    return check_data.run([str(root), "--tokenizer", check_data.NO_TOKENIZER, *images, *side_texts])


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="mmib fetch-data",
        description="Download a data set from its authors' site, verify its texts, unpack its images safely, and check "
        "all of it. If interrupted, the same command resumes; complete files are not downloaded again.",
        epilog="exit status: that of check-data; 2 if something cannot be downloaded. Needs `pip install "
        "'mmib[data]'`. docs/how-to/data.md lists the sources and what to do if one no longer works.",
    )
    parser.add_argument("name", choices=READERS, help="data set: %(choices)s")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="root folder of the data set, for --data.root"
    )
    parser.add_argument("--text-only", action="store_true", help="do not download the images")
    parser.add_argument(
        "--captions",
        action="store_true",
        help="also download machine captions of the images, as DIR/captions/NAME.jsonl, and check them with the posts",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        metavar="ADDRESS",
        help="mirror with the file names of docs/how-to/data.md, tried before the authors' site; may be repeated "
        f"(default: those in the environment variable {MIRROR_VARIABLE}, separated by spaces)",
    )
    parser.add_argument(
        "--accept-terms", action="store_true", help="accept the terms of the data set without a prompt, for scripts"
    )
    return parser


def _accept_terms(wanted: DataSet, *, captions: bool, accepted: bool) -> None:
    """Show the terms, and prompt for their acceptance unless they were accepted on the command line.

    Raises:
        ConfigError: the terms are not accepted.
    """
    for terms in (wanted.terms, wanted.captions_terms)[: 1 + captions]:
        _report(terms)
    if accepted:
        return
    if sys.stdin.isatty():
        _report("accept these terms? [y/N]")
        accepted = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not accepted:
        raise ConfigError(
            f"nothing is downloaded until the terms of {wanted.title} are accepted: answer y, or add --accept-terms"
        )


def _fetch_texts(wanted: DataSet, root: Path, mirrors: list[str]) -> None:
    for text in wanted.texts:
        path = root / text.path
        if path.is_file() and checksum(path) == text.sha256:
            _report(f"{path} is there already")
            continue
        if path.exists():
            raise DataError(
                f"{path} is there and differs from the released file: move it away, or choose another folder with --to"
            )
        downloaded = download(text, root / DOWNLOADS, mirrors)
        path.parent.mkdir(parents=True, exist_ok=True)
        downloaded.chmod(0o666 & ~_umask())
        downloaded.replace(path)


def _umask() -> int:
    """The umask of the process, to give downloads the mode of new files: they start as more private temporary files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _captions_of(wanted: DataSet, root: Path) -> Path:
    return root / "captions" / f"{wanted.name}.jsonl"


def _fetch_captions(wanted: DataSet, root: Path, mirrors: list[str]) -> None:
    path = _captions_of(wanted, root)
    if path.is_file():
        _report(f"{path} is there already")
        return
    files = [download(captions, root / DOWNLOADS, mirrors) for captions in wanted.captions]
    sources = ((captions.model, captions.format, file) for captions, file in zip(wanted.captions, files, strict=True))
    _report(f"{path}: captions of {counted(write_captions(sources, path), 'images')}")


def _fetch_images(wanted: DataSet, root: Path, mirrors: list[str]) -> None:
    """Download the archive, and unpack the images that posts name into a folder that appears once it is complete."""
    targets = _images(wanted, root)
    folder = targets[0].parts[0]
    if (root / folder).exists():
        _report(f"{root / folder} is there already")
        return
    archive = download(wanted.images, root / DOWNLOADS, mirrors)
    unpacked = root / DOWNLOADS / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try:
        count = unpack_images(archive, targets, unpacked)
    except DataError as error:
        archive.unlink()
        shutil.rmtree(unpacked)
        raise DataError(
            f"{error}; it is deleted, and nothing of it is kept: run the command again, name another address with "
            "--mirror, or continue without images with --text-only"
        ) from error
    replace_folder(root / folder, unpacked / folder)
    _report(f"{root / folder}: {count:,} of {counted(len(targets), 'images')}")


def _images(wanted: DataSet, root: Path) -> list[PurePosixPath]:
    """The paths, below the root, at which readers look for the images of posts."""
    reader = wanted.reader(root)
    named = (
        PurePosixPath(reader.image_folder(split).relative_to(root), post.image)
        for split in SPLITS
        for post in reader.posts(split)
        if post.image
    )
    return list(dict.fromkeys(named))


def _report(message: str) -> None:
    print(f"mmib: {message}", file=sys.stderr, flush=True)  # noqa: T201
