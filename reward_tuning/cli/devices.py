"""The `--device` option."""

from typing import TYPE_CHECKING

from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    import torch

KINDS = ("cpu", "cuda")


def chosen_device(name: str | None) -> "torch.device":
    """Return the device of a name; the first GPU if there is one, else the CPU, without a name.

    Args:
        name: `cpu`, `cuda` or `cuda:N`; None chooses.

    Raises:
        TuningError: The name is not one of these, or this machine has no such GPU.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise TuningError(f"--device: got {name!r}; allowed: cpu, cuda, cuda:1")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise TuningError(
            f"--device: got {name!r}; this machine has {gpus} GPUs that PyTorch can use; give cpu "
            "or another GPU"
        )
    return device
