"""A frozen image encoder in onnxruntime: exported once, compared with PyTorch, and kept by its fingerprint."""

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
# Of the features' norm; beyond it the two runtimes would need caches of their own.
TOLERANCE = 1e-3
OTHERWISE = "choose runtime: torch"


def require_onnx() -> None:
    """Raise unless what `runtime: onnx` needs is installed.

    Raises:
        EncoderError: a package is missing.
    """
    if missing := missing_packages():
        raise EncoderError(f"runtime: onnx needs {', '.join(missing)}: {INSTALL}, or {OTHERWISE}")


def network_file(encoder: nn.Module, name: str, fingerprint: str, input_size: tuple[int, int, int]) -> Path:
    """The ONNX file of an image encoder, written first where it is not there yet, or is damaged.

    Args:
        encoder: from pixels (N, 3, height, width) to features (N, G, V), in evaluation mode.
        name: of the encoder, for messages.
        fingerprint: equal for encoders of equal features.
        input_size: 3, height and width.

    Raises:
        EncoderError: it cannot be exported or written, or gives other features in onnxruntime than in PyTorch.
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
    """Read an encoder's ONNX file, so that `run` need not."""
    _session(path, torch.get_num_threads())


def run(path: Path, pixels: Tensor) -> Tensor:
    """Features (N, G, V) of pixels (N, 3, height, width), by the encoder in an ONNX file."""
    (features,) = _session(path, torch.get_num_threads()).run([FEATURES], {PIXELS: pixels.contiguous().numpy()})
    return torch.from_numpy(features)


# Not in the encoder, which may be copied and sent to other processes, as a session may not.
@lru_cache(maxsize=4)
def _session(path: Path, threads: int) -> Any:
    """The session of a file; with another number of threads it is another one."""
    del threads
    return open_session(path)


def _compared(encoder: nn.Module, name: str, input_size: tuple[int, int, int]) -> bytes:
    """The content of the file, whose features are those of PyTorch."""
    pixels = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        content = exported(encoder, [pixels[:2]], [PIXELS], FEATURES, {PIXELS: {0: "pictures"}})
    except ExportError as error:
        raise EncoderError(f"the image encoder {name} cannot run in onnxruntime: {error}; {OTHERWISE}") from error
    with torch.no_grad():
        expected = encoder(pixels)
    try:
        (features,) = open_session(content).run([FEATURES], {PIXELS: pixels.numpy()})
    # onnxruntime's own errors share no base but Exception.
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
    """Whether the file is there, as it was written; its checksum was written last."""
    expected = _checksum_file(path)
    return path.is_file() and expected.is_file() and expected.read_text(encoding="utf-8") == checksum(path)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
