"""torch.compile of the transformer for calls without gradient, with a message where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reward_tuning.errors import TuningError


def compiled(transformer: Any) -> Any:
    """Return the same weights behind a compiled forward; the model itself is unchanged.

    A small function is compiled first, so that a machine without a compiler fails before anything
    is trained; the transformer itself is compiled at its first call.

    Raises:
        TuningError: torch.compile does not work here.
    """
    require_compilation(next(transformer.parameters()).device)
    return torch.compile(transformer)


def require_compilation(device: torch.device) -> None:
    """Compile a small function, so that a missing compiler is reported before anything is loaded.

    Raises:
        TuningError: torch.compile does not work on this device.
    """
    x = torch.linspace(0.0, 1.0, 64, device=device)
    with reported_compilation(), torch.no_grad():
        torch.compile(lambda x: (x * 2.0).sin().sum())(x)


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
            "rollout.compile=false in a recipe, or omit --compile of generate"
        ) from error
