"""Push exports to a model hub in one commit, and pull them into the cache of the hub's library.

A pulled model is untrusted: only the files of an export are downloaded, so no pickle and no run configuration, and
they are read with the checks of `mmib.export.foreign`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from mmib.export.folder import CARD, CONFIG, TEXT_ENCODER, WEIGHTS, files_of, read_export
from mmib.export.int8 import INT8_MODEL
from mmib.export.onnx_model import CRF_CODE, CRF_SCORES, MODEL
from mmib.schema import ExportError

# Files that are downloaded.
FILES = ("*.json", "*.safetensors", "*.txt", "*.codes", "*.model", "*.onnx", f"*{CRF_CODE}", f"*{CARD}")
# Files of a model, besides those of its text encoder.
NAMES = frozenset({CARD, CONFIG, WEIGHTS, MODEL, INT8_MODEL, CRF_SCORES, CRF_CODE})
NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")
# Status codes of a hub, and what to do about them.
ANSWERS = {
    401: "authentication failed (401), or the model does not exist: check the name, or log in with hf auth login",
    403: "access denied (403): ask its owner for access, and check the permissions of your token",
    404: "the model or revision does not exist (404), or is private: check the name, or log in with hf auth login",
    429: "too many requests (429): wait some minutes, then try again",
}


def is_hub_name(source: Path | str) -> bool:
    """Whether a source is `USER/NAME` or `USER/NAME@REVISION`, and not a path on this machine.

    If a local folder USER exists, the source is a mistyped path, which must not be looked up on the hub.
    """
    text = str(source)
    return bool(NAME.fullmatch(text)) and not Path(text).exists() and not Path(text).parent.is_dir()


def located(source: Path | str) -> Path:
    """Return the folder of a source: the source itself, or the downloaded folder if it names a model on the hub.

    Raises: see `pull`.
    """
    return pull(str(source)) if is_hub_name(source) else Path(source)


def pull(source: str) -> Path:
    """Return the folder of a model on the hub, and download it unless it is cached.

    Args:
        source: `USER/NAME`, or `USER/NAME@REVISION` for a branch, a tag or a commit.

    Raises:
        ExportError: it cannot be downloaded, or it is not an export.
    """
    found = NAME.fullmatch(source)
    if found is None:
        raise ExportError(f"{source!r} is no name of a model on the hub: write USER/NAME or USER/NAME@REVISION")
    with _answers(f"the model {source} cannot be pulled"):
        folder = Path(snapshot_download(found["name"], revision=found["revision"], allow_patterns=list(FILES)))
    # Another program may have cached it: a run would be read by the classes that its configuration names.
    if (folder / "config.yaml").exists():
        raise ExportError(f"the model {source} of the hub is a run and no export: ask its author for mmib export")
    return folder


def push(folder: Path, name: str, public: bool = False) -> str:
    """Upload an export to the hub in one commit, so that no partial export can be pulled, and return its address.

    The commit deletes files of an earlier export that this one does not have, and no others.

    Args:
        folder: the export, which is first read with the checks for untrusted exports.
        name: `USER/NAME`; created if it does not exist.
        public: create it as a public model.

    Raises:
        ExportError: the folder is not an export, the model exists and is not as public as requested, or the hub
            refuses it.
        TaskError: its task is not registered.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ExportError(f"{name!r} is no name for a model on the hub: write USER/NAME")
    read_export(folder)
    paths = files_of(folder)
    added = [CommitOperationAdd(path, folder / path) for path in paths]
    hub = HfApi(library_name="mmib")
    with _answers(f"{folder} cannot be pushed to {name}"):
        address = hub.create_repo(name, private=not public, exist_ok=True)
        found = hub.model_info(name)
        if found.private is public:  # the hub ignores the request for a model that exists
            visibility, remedy = ("private", "leave out") if public else ("public", "add")
            raise ExportError(
                f"{name} exists and is {visibility}: {remedy} --public to push to it, change it on the hub, or choose "
                "another name"
            )
        there = {file.rfilename for file in found.siblings or ()}
        deleted = [CommitOperationDelete(path) for path in sorted(there - set(paths)) if _is_of_export(path)]
        hub.create_commit(name, [*added, *deleted], commit_message="mmib push")
    return str(address)


def _is_of_export(path: str) -> bool:
    """Whether mmib writes a file of this path: of a model, or of a model in the folder of its task."""
    *folders, name = PurePosixPath(path).parts
    if folders[-1:] == [TEXT_ENCODER]:
        return len(folders) <= 2
    return len(folders) <= 1 and name in NAMES


@contextmanager
def _answers(what: str) -> Iterator[None]:
    """Turn refusals of the hub and network failures into one-line errors.

    Raises:
        ExportError: the hub refuses the request, or cannot be reached.
    """
    try:
        yield
    except HFValidationError as error:
        raise ExportError(f"{what}: the name is not valid on the hub, {_line(error)}") from error
    # The hub's library wraps the original error in others, and the transport's errors differ between versions.
    except Exception as error:
        refusal = next((cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError)), None)
        if refusal is not None:
            status = refusal.response.status_code
            raise ExportError(f"{what}: {ANSWERS.get(status, f'the hub answers {status}: try again later')}") from error
        if any(isinstance(cause, OfflineModeIsEnabled) for cause in _causes(error)):
            raise ExportError(
                f"{what}: HF_HUB_OFFLINE is set, and it is not in the cache: unset it, or name a folder"
            ) from error
        if isinstance(error, OSError) or any(_is_of_transport(cause) for cause in _causes(error)):
            raise ExportError(
                f"{what}: the hub cannot be reached, and it is not in the cache ({_line(error)}): check network, or "
                "name a folder"
            ) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_transport(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests")


def _line(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
