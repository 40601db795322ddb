"""The moving average, against its closed form."""

import pytest
import torch

from reward_tuning.runs.ema import Ema


def test_closed_form() -> None:
    start = {"w": torch.tensor([8.0])}
    ema = Ema(start, 0.5)
    start["w"].zero_()  # the average has a copy
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    expected = 8.0
    for n, value in enumerate(values):
        ema.update({"w": torch.tensor([value])})
        decay = min(0.5, (1 + n) / (10 + n))  # 0.1, 0.18, ..., 0.5 from n = 8 on
        expected = decay * expected + (1 - decay) * value
    assert ema.updates == 12
    assert ema.state["w"].item() == pytest.approx(expected, rel=1e-6)


def test_the_zero_start_does_not_linger() -> None:
    """At a decay of 0.995 a plain average of 80 equal updates still has 67 % of its start."""
    ema = Ema({"w": torch.tensor([0.0])}, 0.995)
    for _ in range(80):
        ema.update({"w": torch.tensor([1.0])})
    assert ema.state["w"].item() > 0.99


def test_goes_on_from_a_saved_average() -> None:
    whole, parts = (Ema({"w": torch.tensor([0.3])}, 0.9) for _ in range(2))
    updates = torch.randn(9, 1, generator=torch.Generator().manual_seed(0))
    for value in updates[:4]:
        whole.update({"w": value})
        parts.update({"w": value})
    resumed = Ema({"w": torch.tensor([0.3])}, 0.9)
    resumed.load({name: t.clone() for name, t in parts.state.items()}, parts.updates)
    for value in updates[4:]:
        whole.update({"w": value})
        resumed.update({"w": value})
    assert torch.equal(whole.state["w"], resumed.state["w"])
