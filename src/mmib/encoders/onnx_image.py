"""Frozen image encoders in onnxruntime: exported once, compared with PyTorch, and cached by fingerprint."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmib.base.files import atomic_file, checksum, locked, user_cache, write_text
from mmib.base.onnx_files import INSTALL, exported, missing_packages, open_session
from mmib.schema import EncoderError, ExportError

FORMAT = 1
PIXELS, FEATURES = "pixels", "features"
# Allowed difference relative to the features' norm; beyond it the two runtimes could not share a feature cache.
TOLERANCE = 1e-3
OTHERWISE = "choose runtime: torch"


def require_onnx() -> None:
    """Check that the packages of `runtime: onnx` are installed.

    Raises:
        EncoderError: If a package is missing.
    """
    if missing := missing_packages():
        raise EncoderError(f"runtime: onnx needs {', '.join(missing)}: {INSTALL}, or {OTHERWISE}")


def network_file(encoder: nn.Module, name: str, fingerprint: str, input_size: tuple[int, int, int]) -> Path:
    """Return the ONNX file of an image encoder; write it first if it is missing or damaged.

    Args:
        encoder: network from pixels (N, 3, height, width) to features (N, G, V), in evaluation mode.
        name: name of the encoder, for messages.
        fingerprint: fingerprint shared by encoders with equal features.
        input_size: 3, height and width.

    Raises:
        EncoderError: If it cannot be exported or written, or its features differ between onnxruntime and PyTorch.
    """
    key = hashlib.sha256(f"{FORMAT} {torch.__version__} {input_size} {fingerprint}".encode()).hexdigest()[:32]
    path = user_cache() / "onnx" / f"{key}.onnx"
    try:
        if not _is_intact(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")):
                if not _is_intact(path):
                    _write(path, _compared(encoder, name, input_size))
    except OSError as error:
        raise EncoderError(
            f"the ONNX file of the image encoder {name} cannot be kept: {error}; set XDG_CACHE_HOME to another folder, "
            f"or {OTHERWISE}"
        ) from error
    return path


def load(path: Path) -> None:
    """Load an encoder's ONNX file in advance of `run`."""
    _session(path, torch.get_num_threads())


def run(path: Path, pixels: Tensor) -> Tensor:
    """Compute features (N, G, V) of pixels (N, 3, height, width) with the encoder in an ONNX file."""
    (features,) = _session(path, torch.get_num_threads()).run([FEATURES], {PIXELS: pixels.contiguous().numpy()})
    return torch.from_numpy(features)


# Not an attribute of the encoder, which may be copied or sent to other processes, unlike a session.
@lru_cache(maxsize=4)
def _session(path: Path, threads: int) -> Any:
    """Return the session of a file; the number of threads is part of the cache key."""
    del threads
    return open_session(path)


def _compared(encoder: nn.Module, name: str, input_size: tuple[int, int, int]) -> bytes:
    """Export the encoder, and return the content of the file after comparing its features with PyTorch's."""
    pixels = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        content = exported(encoder, [pixels[:2]], [PIXELS], FEATURES, {PIXELS: {0: "pictures"}})
    except ExportError as error:
        raise EncoderError(f"the image encoder {name} cannot run in onnxruntime: {error}; {OTHERWISE}") from error
    with torch.no_grad():
        expected = encoder(pixels)
    try:
        (features,) = open_session(content).run([FEATURES], {PIXELS: pixels.numpy()})
    # onnxruntime's errors have no common base class but Exception.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"onnxruntime cannot run the image encoder {name}: {reason}; {OTHERWISE}") from error
    apart = float((torch.from_numpy(features) - expected).norm() / expected.norm())
    if not apart <= TOLERANCE:
        raise EncoderError(
            f"the image encoder {name} has other features in onnxruntime than in PyTorch, by {apart:.1e} of their "
            f"norm: {OTHERWISE}"
        )
    return content


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)
    write_text(_checksum_file(path), hashlib.sha256(content).hexdigest())


def _is_intact(path: Path) -> bool:
    """Whether the file exists and matches its checksum, which is written last."""
    expected = _checksum_file(path)
    return path.is_file() and expected.is_file() and expected.read_text(encoding="utf-8") == checksum(path)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
