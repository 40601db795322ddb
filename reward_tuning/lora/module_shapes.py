"""Build a generator's transformer without weights, for the names and sizes of its modules."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def transformer_shapes(checkpoint: str | Path) -> "nn.Module":
    """Build a generator's transformer on the meta device.

    Args:
        checkpoint: Shipped name, folder, or hub id, of which only the configuration is downloaded.

    Raises:
        GeneratorError: The checkpoint does not exist or is not an EasyAnimateV5.1, or its
            configuration cannot be downloaded.
    """
    from diffusers import EasyAnimateTransformer3DModel

    from base_model.files.hub import download
    from base_model.files.shipped import resolve_checkpoint
    from base_model.loading.checkpoint import empty_model
    from base_model.loading.model_configs import transformer_arguments

    found = resolve_checkpoint(checkpoint)
    if not isinstance(found, Path):
        found = download(found, ["transformer/config.json"])
    part = found / "transformer"
    model: nn.Module = empty_model(
        EasyAnimateTransformer3DModel, transformer_arguments(part, EasyAnimateTransformer3DModel)
    )
    return model
