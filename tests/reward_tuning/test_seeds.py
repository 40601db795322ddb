"""Seeds by name: fixed for ever, or old runs would not resume and goldens would not hold."""

import pytest
import torch

from reward_tuning.seeds import derive_generator, derive_seed


@pytest.mark.parametrize(
    ("seed", "purpose", "expected"),
    [
        # the first 63 bits of sha256("3/noise/17"), as `printf 3/noise/17 | sha256sum` gives them
        (3, ("noise", 17), int("a5145f5bbd504e31", 16) >> 1),
        (0, ("epoch", 0), int("5f63ed2464d3fe8d", 16) >> 1),
    ],
)
def test_a_seed_is_a_hash_of_its_name(
    seed: int, purpose: tuple[str | int, ...], expected: int
) -> None:
    assert derive_seed(seed, *purpose) == expected
    torch.Generator().manual_seed(derive_seed(seed, *purpose))  # fits a signed 64-bit integer


def test_other_purposes_draw_other_numbers() -> None:
    def draw(seed: int, *purpose: str | int) -> list[float]:
        return torch.randn(4, generator=derive_generator(seed, *purpose)).tolist()

    assert draw(3, "noise", 17) == draw(3, "noise", 17)
    others = [draw(4, "noise", 17), draw(3, "noise", 18), draw(3, "plan", 17), draw(3, "noise")]
    assert all(other != draw(3, "noise", 17) for other in others)
    assert len({tuple(other) for other in others}) == 4
