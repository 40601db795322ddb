"""Numbers that a step reports, read from the device together and not one by one.

Each reading of a value makes the host wait until the device has computed it, and then the device
wait for the host's next kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def read_together(numbers: Sequence[Tensor | float]) -> list[float]:
    """Return scalars as Python numbers, with one wait for each dtype.

    Args:
        numbers: Scalar tensors of one device, and numbers that are known already.
    """
    found = [0.0 if isinstance(number, Tensor) else number for number in numbers]
    places: dict[torch.dtype, list[int]] = {}
    for place, number in enumerate(numbers):
        if isinstance(number, Tensor):
            places.setdefault(number.dtype, []).append(place)
    for own in places.values():
        values = torch.stack([torch.as_tensor(numbers[place]).detach() for place in own]).tolist()
        for place, value in zip(own, values, strict=True):
            found[place] = value
    return found
