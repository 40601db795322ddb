"""LAION's aesthetic head on CLIP image features."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

WIDTHS = (1024, 128, 64, 16, 1)  # layers of the published head


def build_head(features: int) -> nn.Sequential:
    """Build the published head: `layers.{0,2,4,6,7}` with dropout at 1, 3 and 5.

    Args:
        features: Width of the image features (768 for ViT-L-14).

    Returns:
        `(n, features)` of length 1 -> `(n, 1)`, about 1 to 10.
    """
    w = (features, *WIDTHS)
    linear = [nn.Linear(w[i], w[i + 1]) for i in range(5)]
    layers = nn.Sequential(
        linear[0], nn.Dropout(0.2), linear[1], nn.Dropout(0.2), linear[2], nn.Dropout(0.1),
        linear[3], linear[4],
    )  # fmt: skip
    return nn.Sequential(OrderedDict(layers=layers))
