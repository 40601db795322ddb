"""The device of `--device`."""

from typing import TYPE_CHECKING

from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    import torch

KINDS = ("cpu", "cuda")


def chosen_device(asked: str | None) -> "torch.device":
    """The device that a person asked for, or the GPU where there is one.

    Args:
        asked: `cpu`, `cuda` or `cuda:N`.

    Raises:
        TuningError: It is none of them, or this machine has no such GPU.
    """
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is None:
        return torch.device("cuda" if there else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise TuningError(f"--device: got {asked!r}; allowed: cpu, cuda, cuda:1")
    if device.type == "cuda" and (device.index or 0) >= there:
        raise TuningError(
            f"--device: got {asked!r}; this machine has {there} GPUs that PyTorch can use; take "
            "cpu or another one"
        )
    return device
