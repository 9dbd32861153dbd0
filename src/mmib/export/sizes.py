"""Compare the sizes that an export describes with those of its weights before anything is built."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from mmib.encoders.pretrained import weightless
from mmib.schema import ExportError

MOST_TENSORS = 50_000
# Limits as multiples of the stored weights: some modules are built and dropped again, such as the decoder of T5 and the
# image tower of CLIP.
TENSORS_LEFT_OUT, SIZE_LEFT_OUT = 4, 8
# Limit for buffers that are computed and not stored, such as attention masks: number of values, in total.
LARGEST_TABLES = 2**28

Shapes = dict[str, tuple[int, ...]]


def check_sizes(build: Callable[[], Mapping[str, nn.Module]], weights: Path) -> None:
    """Build the encoders without memory for weights, and refuse them if the shapes of the weights differ.

    Args:
        build: builds the encoders, keyed by the prefixes of their weights.
        weights: the safetensors file.

    Raises:
        ExportError: the file has other tensors for them, or the description asks for far more than it has.
        SafetensorError: it is not a safetensors file.
    """
    found = _shapes(weights)
    try:
        with bounded(weights), weightless():
            built = build()
    except ExportError:
        raise
    # An operation needs values. Any other error is raised again when the encoders are built with values.
    except Exception:
        return
    for prefix, encoder in built.items():
        expected = {f"{prefix}.{name}": tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
        stored = {name: shape for name, shape in found.items() if name.startswith(f"{prefix}.")}
        wrong = [name for name in sorted({**stored, **expected}) if stored.get(name) != expected.get(name)]
        if wrong:
            raise ExportError(
                f"the weights of {weights} do not fit its description: {wrong[0]} is {_shown(stored, wrong[0])} and "
                f"should be {_shown(expected, wrong[0])}; copy the folder again"
            )


@contextmanager
def bounded(weights: Path) -> Iterator[None]:
    """A context in which this thread can build at most a few times the content of a safetensors file.

    A description may ask for any number of layers of any width; without a limit they would be built before the mismatch
    with the file is noticed.

    Raises:
        ExportError: the limit is exceeded.
        SafetensorError: it is not a safetensors file.
    """
    found = _shapes(weights)
    thread = threading.get_ident()
    left = {
        "tensors": TENSORS_LEFT_OUT * len(found),
        "values": SIZE_LEFT_OUT * sum(map(prod, found.values())),
        "values of tables": LARGEST_TABLES,
    }

    def count(what: str, number: int) -> None:
        left[what] -= number
        if left[what] < 0:
            raise _TooLargeError

    def count_parameter(_module: nn.Module, _name: str, parameter: Any) -> None:
        if isinstance(parameter, Tensor) and threading.get_ident() == thread:
            count("tensors", 1)
            count("values", parameter.numel())

    def count_buffer(_module: nn.Module, _name: str, buffer: Any) -> None:
        if isinstance(buffer, Tensor) and threading.get_ident() == thread:
            count("values of tables", buffer.numel())

    handles = [
        hooks.register_module_parameter_registration_hook(count_parameter),
        hooks.register_module_buffer_registration_hook(count_buffer),
    ]
    try:
        yield
    except Exception as error:
        for what, number in left.items():  # libraries replace the error of the hook with others
            if number < 0:
                raise ExportError(
                    f"the weights of {weights} do not fit its description, which asks for far more {what} than there "
                    "are: do not use this folder unless you trust who made it"
                ) from error
        raise
    finally:
        for handle in handles:
            handle.remove()


class _TooLargeError(Exception):
    """The description asks for more than the limits allow."""


def _shapes(weights: Path) -> Shapes:
    """Read the shapes in a safetensors file; only its header is read."""
    with safe_open(weights, "pt") as file:
        names = list(file.keys())
        if len(names) > MOST_TENSORS:
            raise ExportError(f"{weights} holds {len(names):,} tensors: {MOST_TENSORS:,} at most are read")
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def _shown(shapes: Shapes, name: str) -> str:
    return "missing" if name not in shapes else str(shapes[name])
