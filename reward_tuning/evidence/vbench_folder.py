"""Clips of an evaluation under the names by which VBench's own tool finds them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.evidence.request import Setup
from reward_tuning.files.clips import write_clip
from reward_tuning.files.vbench_names import vbench_clips, vbench_name
from reward_tuning.inputs.prompts import Prompt


def check_names(setup: Setup) -> str:
    """Check that each clip of each prompt can have a name of its own.

    Returns:
        A note where VBench reads more clips of a prompt than there will be; empty for none.

    Raises:
        TuningError: A prompt cannot be a file name, or two prompts have one name.
    """
    seen: dict[str, str] = {}
    for prompt in setup.prompts:
        name = vbench_name(prompt.text, 0, prompt.category)
        if name in seen:
            raise TuningError(
                f"--vbench-folder: two prompts would have the file {name!r}: {seen[name]!r} and "
                f"{prompt.text!r}; leave one of them out of the prompts for VBench"
            )
        seen[name] = prompt.text
    most = max(vbench_clips(prompt.category) for prompt in setup.prompts)
    if setup.seeds < most:
        return (
            f"VBench reads {most} clips of a prompt, and --vbench-folder writes {setup.seeds}; "
            f"--seeds {most} writes all"
        )
    return ""


def write_vbench_clip(folder: Path, prompt: Prompt, index: int, clip: Tensor) -> Path:
    """Write a clip `(f, 3, H, W)` in its own size.

    Raises:
        TuningError: The disk is full.
    """
    path = folder / vbench_name(prompt.text, index, prompt.category)
    write_clip(clip, path)
    return path
