"""The table of memory modes: its names, and what the rest of the project reads from it."""

from typing import get_args

import pytest

from base_model.memory.modes import MODES, Memory
from reward_tuning.schema.sections import GeneratorSection


def test_every_name_has_an_entry_and_is_a_recipe_value() -> None:
    assert tuple(MODES) == get_args(Memory)
    assert get_args(GeneratorSection.model_fields["memory"].annotation) == get_args(Memory)


@pytest.mark.parametrize(
    ("memory", "parts", "blocks"),
    [("resident", False, False), ("offload", True, False), ("block-offload", True, True)],
)
def test_what_rests(memory: Memory, parts: bool, blocks: bool) -> None:
    assert (MODES[memory].parts_rest, MODES[memory].blocks_rest) == (parts, blocks)
