"""The tracker for TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class TensorBoard:
    """Write the numbers of a run into `events.out.*` of its folder.

    Args:
        folder: The run folder.
        steps: Steps done so far; TensorBoard hides the events of later ones.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports

        self._writer = SummaryWriter(str(folder), purge_step=steps + 1 if steps else None)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what the writer's thread still holds."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
