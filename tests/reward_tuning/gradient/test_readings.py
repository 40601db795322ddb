"""Numbers read together are those read one by one."""

from __future__ import annotations

import math

import torch

from reward_tuning.gradient.readings import read_together


def test_the_same_numbers_in_their_order() -> None:
    third = torch.tensor(1.0) / 3
    numbers = [third, 2.5, third.double() / 7, torch.tensor(math.nan), third.bfloat16(), third * 5]
    found = read_together(numbers)
    assert math.isnan(found[3])
    for place in (0, 1, 2, 4, 5):
        assert found[place] == float(numbers[place])
    assert read_together([]) == []


def test_a_number_with_a_graph() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    assert read_together([x * 2]) == [6.0]
