"""Float64 in earnest: diffusers' layers cast to float32, which hides small differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """Inside, a cast to float32 gives float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        if func is torch.Tensor.to:
            args = [torch.float64 if one is torch.float32 else one for one in args]
            kwargs = {
                key: torch.float64 if one is torch.float32 else one
                for key, one in (kwargs or {}).items()
            }
        return func(*args, **(kwargs or {}))
