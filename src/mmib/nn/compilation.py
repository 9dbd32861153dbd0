"""Compiling the parts of the network that repeat, with `torch.compile`."""

from __future__ import annotations

import os
import shlex
import shutil

import torch
from torch import nn

from mmib.nn.attention import AttentionBlock
from mmib.schema import ConfigError


def compile_blocks(backbone: nn.Module, layers: list[nn.Module]) -> None:
    """Let `torch.compile` compile attention blocks and the text encoder's layers, in place, when they are first called.

    Code that repeats is compiled once, so that the warm-up is that of one layer and one block, whatever the depth.
    Sizes are symbols in the compiled code, so that batches of other lengths use it too. Names of parameters do not
    change.

    Args:
        backbone: holds the attention blocks.
        layers: of the text encoder.

    Raises:
        ConfigError: there is no C++ compiler, which is needed for GPUs, too.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise ConfigError(
            f"compile is on and there is no C++ compiler {compiler[0]!r} here: install one, name yours in the "
            "environment variable CXX, or leave compile off"
        )
    # A block is smaller than a bucket of DDP: it need not be split to overlap computing and sending.
    torch._dynamo.config.optimize_ddp = False
    # The monitor's gradient norms go backward through the same graph several times.
    torch._functorch.config.donated_buffer = False
    for block in [*layers, *(module for module in backbone.modules() if isinstance(module, AttentionBlock))]:
        block.compile(dynamic=True)
