"""GPUs by name and by size."""

from __future__ import annotations

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.estimate.cards import CARDS, card_of


def test_a_name_and_a_size() -> None:
    assert card_of("H100") is CARDS["h100"]
    card = card_of("24 gb")
    assert (card.name, card.memory, card.tflops) == ("", 24e9, None)
    assert card_of("11.5GB").memory == 11.5e9
    assert 21e9 < card.usable < 23e9


@pytest.mark.parametrize("text", ["", "24", "0GB", "rtx", "-1GB", "24TB"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(
        TuningError, match=r"--gpu: got .*; allowed: a size such as 24GB, or one of"
    ):
        card_of(text)


def test_names_as_people_type_them() -> None:
    assert card_of("RTX4090") == card_of("rtx 4090") == card_of("rtx-4090")
    assert card_of("a100 80gb").memory == 80e9
    with pytest.raises(TuningError, match="did you mean 24GB"):
        card_of("24")
