"""Export of networks to ONNX, and onnxruntime sessions. The packages are an extra, and are imported on use."""

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
    """Return the required packages that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def exported(
    network: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[str],
    output: str,
    free: Mapping[str, Mapping[int, str]],
) -> bytes:
    """Export a network, and return the content of the ONNX file.

    Args:
        network: network from tensors to one tensor, in evaluation mode.
        example: example inputs for tracing.
        inputs: names of its arguments, in order.
        output: name of its result.
        free: by argument, the axes of variable size, with a name for each.

    Raises:
        ExportError: If an operation cannot be exported.
    """
    import onnx  # noqa: PLC0415 - an extra

    # At its first backward pass autograd starts a thread for each device, and a process with such threads cannot be
    # forked. The exporter registers a fake device, so a backward pass is run before it does, which starts no thread.
    torch.zeros(1, requires_grad=True).backward()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # on internals of the exporter
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
    # The type of error depends on the step of the exporter that fails.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"the network cannot be exported to ONNX ({type(error).__name__}: {reason[:300]})") from error
    proto = program.model_proto
    _forget_sources(proto.graph)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def _forget_sources(graph: Any) -> None:
    """Remove the source locations of operations, which contain paths of this machine."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_sources(attribute.g)


def open_session(model: bytes | Path) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU, with as many threads as PyTorch.

    Raises:
        Exception: If onnxruntime cannot run the model; its errors have no other common base class.
    """
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # By default its threads spin while they wait for the next run, on cores that PyTorch needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
