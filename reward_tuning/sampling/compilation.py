"""torch.compile of the transformer's blocks, with and without gradient, and a cache on the disk.

Block by block (PyTorch's "regional compilation"): blocks of one kind share their code, so that a
transformer of 48 blocks compiles as fast as one of 6. The price is half a millisecond a block and
call, in which it checks that its code still fits: 0.85 of the plain time on the embedded generator,
where the whole transformer in one piece takes 0.71.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from base_model.core.family import FAMILY
from base_model.files.cache_folder import cache_folder
from reward_tuning.errors import TuningError

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Where PyTorch's compiler keeps its code."""
MOST_GRAPHS = 64
"""Of all kinds of block: each size of a batch, each strength of an adapter, with and without
gradient. A run needs up to about 30; PyTorch gives up at 8."""


def compile_blocks(transformer: Any) -> None:
    """Compile each block of a transformer in place, at its first call.

    Weights, their names and everything attached to the blocks stay; `uncompiled` switches it off.
    A small function is compiled first, so that a machine without a compiler fails before anything
    is trained.

    Args:
        transformer: An `EasyAnimateTransformer3DModel`, with its adapters.

    Raises:
        TuningError: torch.compile does not work here, or its cache cannot be written.
    """
    require_compilation(transformer.proj.weight.device)
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_GRAPHS)
    # Several plans go backward through one kept graph, whose buffers must outlive the first.
    torch._functorch.config.donated_buffer = False
    for block in getattr(transformer, FAMILY.blocks):
        # Batches have few sizes, and code for one size is faster than code for all.
        block.compile(fullgraph=True, dynamic=False)


@contextmanager
def uncompiled(transformer: Any) -> Iterator[None]:
    """Run a transformer's blocks as they are within the context, whether compiled or not."""
    blocks = list(getattr(transformer, FAMILY.blocks))
    own = [block._compiled_call_impl for block in blocks]
    try:
        for block in blocks:
            block._compiled_call_impl = None
        yield
    finally:
        for block, call in zip(blocks, own, strict=True):
            block._compiled_call_impl = call


def require_compilation(device: torch.device) -> None:
    """Compile a small function, so that a missing compiler is reported before anything is loaded.

    Raises:
        TuningError: torch.compile does not work on this device, or its cache cannot be written.
    """
    keep_compiled_code()
    x = torch.linspace(0.0, 1.0, 64, device=device)
    with reported_compilation(), torch.no_grad():
        torch.compile(lambda x: (x * 2.0).sin().sum())(x)


def keep_compiled_code() -> None:
    """Let PyTorch keep compiled code in the user's cache folder, for later processes.

    Its own default is a temporary folder, which a restart empties; importing it may already have
    put that folder's name into the environment. Another folder in `TORCHINDUCTOR_CACHE_DIR` is the
    user's, and stays.

    Raises:
        TuningError: The folder cannot be written.
    """
    given = Path(os.environ.get(CACHE_VARIABLE, ""))
    default = given.parent == Path(tempfile.gettempdir()) and given.name.startswith(
        "torchinductor_"
    )
    if given.name and not default:
        return
    folder = cache_folder("inductor")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TuningError(
            f"the folder of compiled code {folder} could not be created: "
            f"{error.strerror or error}; set REWARD_TUNING_CACHE or {CACHE_VARIABLE} to a folder "
            "that can be written"
        ) from error
    os.environ[CACHE_VARIABLE] = str(folder)


@contextmanager
def reported_compilation() -> Iterator[None]:
    """Turn an error of torch.compile within the context into a message with the next step.

    Raises:
        TuningError: Compilation failed.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise TuningError(
            f"torch.compile does not work here ({first.strip()}). It needs a C++ compiler (g++ or "
            "clang++, or the one that CXX names) on a CPU and Triton on a GPU; without them set "
            "train.compile=false in a recipe, or omit --compile of generate"
        ) from error
