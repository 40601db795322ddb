"""Change the input channels of a transformer: from text to video to inpainting, control, camera."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from base_model.core.kinds import kind_of


def with_input_channels(transformer: Any, channels: int) -> Any:
    """Give a transformer more or fewer input channels, in place.

    New channels of the patch embedding start at 0, so that the model is the same function as before
    for a zero condition; channels beyond the new number are removed. The published stages change
    the kind of checkpoint in this way.

    Args:
        transformer: `EasyAnimateTransformer3DModel`, frozen or not.
        channels: 16, 33, 38 or 48.

    Returns:
        The transformer.

    Raises:
        GeneratorError: No kind of checkpoint has this number.
    """
    kind_of(channels)
    old = transformer.proj
    if old.in_channels == channels:
        return transformer
    kernel, stride = old.kernel_size, old.stride
    with torch.device("meta"):
        new = nn.Conv2d(channels, old.out_channels, kernel, stride, bias=old.bias is not None)
    weight = old.weight.new_zeros(new.weight.shape)
    shared = min(channels, old.in_channels)
    weight[:, :shared] = old.weight.detach()[:, :shared]
    new.weight = nn.Parameter(weight, requires_grad=old.weight.requires_grad)
    new.bias = old.bias
    transformer.proj = new
    transformer.register_to_config(in_channels=channels)
    return transformer
