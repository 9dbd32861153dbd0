"""Networks as ONNX files, and onnxruntime, which runs them. The packages are an extra and imported where used."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmib.schema import ExportError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'mmib[onnx]'"
OPSET = 20


def missing_packages() -> list[str]:
    """The packages that are needed and not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def exported(
    network: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[str],
    output: str,
    free: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The content of an ONNX file.

    Args:
        network: from tensors to one tensor, in evaluation mode.
        example: what it is traced with.
        inputs: names of its arguments, in order.
        output: name of its result.
        free: by argument, the axes whose size may differ from the example's, and a name for each.

    Raises:
        ExportError: an operation that ONNX has no words for.
    """
    import onnx  # noqa: PLC0415 - an extra

    # Autograd starts a thread for each device at its first backward pass, and a process with such threads cannot be
    # forked. The exporter registers a device that is not there: let them start, as none, before it does.
    torch.zeros(1, requires_grad=True).backward()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about the exporter's own insides
            program: Any = torch.onnx.export(
                network,
                tuple(example),
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dict(free),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    # Which error it is depends on the step of the exporter that a custom network does not pass.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"the network cannot be exported to ONNX ({type(error).__name__}: {reason[:300]})") from error
    proto = program.model_proto
    _forget_sources(proto.graph)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def _forget_sources(graph: Any) -> None:
    """Take out where in which source file each operation was, which names places on this machine."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_sources(attribute.g)


def open_session(model: bytes | Path) -> Any:
    """An `onnxruntime.InferenceSession` on the processor, with as many threads as PyTorch has.

    Raises:
        Exception: onnxruntime cannot run the model; its errors share no other base.
    """
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would wait in a loop for the next run, on cores that PyTorch is using by then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
