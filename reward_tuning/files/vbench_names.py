"""File names under which VBench's own tool finds the clips of its prompts."""

from __future__ import annotations

import unicodedata

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import MAX_SHOWN
from reward_tuning.files.file_names import file_name_fault

VBENCH_2_CHARACTERS = 180
"""VBench-2.0 looks for the first so many characters of a prompt; VBench 1 for all of it."""
VBENCH_2_DIMENSIONS = frozenset(
    (
        "Camera_Motion",
        "Complex_Landscape",
        "Complex_Plot",
        "Composition",
        "Diversity",
        "Dynamic_Attribute",
        "Dynamic_Spatial_Relationship",
        "Human_Anatomy",
        "Human_Clothes",
        "Human_Identity",
        "Human_Interaction",
        "Instance_Preservation",
        "Material",
        "Mechanics",
        "Motion_Order_Understanding",
        "Motion_Rationality",
        "Multi-View_Consistency",
        "Thermotics",
    )
)


def vbench_clips(category: str | None = None) -> int:
    """Return how many clips of a prompt VBench reads: index 0 to one less.

    Args:
        category: Category of the prompt; VBench-2.0 reads other counts than VBench.
    """
    if category == "Diversity":
        return 20
    return 3 if category in VBENCH_2_DIMENSIONS else 5


def vbench_name(prompt: str, index: int, category: str | None = None) -> str:
    """Return the name of a prompt's clip for VBench: `PROMPT-INDEX.mp4`.

    The name must hold the prompt letter by letter, or VBench finds no clip, so a prompt that cannot
    be part of a file name is refused and not changed.

    Args:
        prompt: Text of the prompt, as VBench lists it.
        index: Number of the clip, counted from 0.
        category: Category of the prompt. A dimension of VBench-2.0 cuts the prompt as VBench-2.0
            does.

    Raises:
        TuningError: The prompt is too long, or has a character that no portable file name has: a
            slash or a control character.
    """
    assert index >= 0, index
    text = prompt[:VBENCH_2_CHARACTERS] if category in VBENCH_2_DIMENSIONS else prompt
    name = f"{text}-{index}.mp4"
    odd = [letter for letter in text if letter == "/" or unicodedata.category(letter) == "Cc"]
    fault = f"it contains {odd[0]!a}" if odd else file_name_fault(name)
    if fault:
        raise TuningError(
            f"prompt {prompt[:MAX_SHOWN]!r} cannot be a file name, by which VBench finds its "
            f"clips: {fault}; leave it out of the prompts for VBench"
        )
    return name
