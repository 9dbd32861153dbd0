"""Compilation of the repeated parts of the network with `torch.compile`."""

from __future__ import annotations

import os
import shlex
import shutil

import torch
from torch import nn

from mmib.nn.attention import AttentionBlock
from mmib.schema import ConfigError


def compile_blocks(backbone: nn.Module, layers: list[nn.Module]) -> None:
    """Compile attention blocks and the text encoder's layers with `torch.compile`, in place, on their first call.

    Repeated code is compiled once, so that the warm-up is that of one layer and one block, for any depth. Shapes are
    dynamic, so that batches of other lengths use the same code. Parameter names do not change.

    Args:
        backbone: module that contains the attention blocks.
        layers: layers of the text encoder.

    Raises:
        ConfigError: If there is no C++ compiler, which is also needed for GPUs.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise ConfigError(
            f"compile is on and there is no C++ compiler {compiler[0]!r} here: install one, name yours in the "
            "environment variable CXX, or leave compile off"
        )
    # A block is smaller than a DDP bucket, so it need not be split to overlap computation and communication.
    torch._dynamo.config.optimize_ddp = False
    # The monitor computes gradient norms with several backward passes through the same graph.
    torch._functorch.config.donated_buffer = False
    for block in [*layers, *(module for module in backbone.modules() if isinstance(module, AttentionBlock))]:
        block.compile(dynamic=True)
