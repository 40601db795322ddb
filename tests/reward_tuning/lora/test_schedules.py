"""Strength by noise level: its forms, and each call of the transformer under a schedule."""

from __future__ import annotations

import math

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import scaled
from reward_tuning.lora.schedules import factor_at, noise_level, schedule_of, scheduled
from tests.reward_tuning.lora.test_export import tuned
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

LEVELS = (1.0, 0.9, 0.7, 0.5, 0.1, 0.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("annealed", [0.0, 0.01, 0.09, 0.25, 0.81, 1.0]),
        ("annealed:1", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
        ("below:0.7", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        (lambda sigma: 2 * sigma, [2.0, 1.8, 1.4, 1.0, 0.2, 0.0]),
    ],
)
def test_forms(given: object, expected: list[float]) -> None:
    schedule = schedule_of(given)  # type: ignore[arg-type]
    assert schedule is not None
    assert [factor_at(schedule, level) for level in LEVELS] == pytest.approx(expected)


def test_a_constant_strength_is_none() -> None:
    assert schedule_of(None) is schedule_of("constant") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "late", "constant:1", "annealed:", "annealed:0", "annealed:-1", "annealed:nan"),
        *("annealed:inf", "below", "below:", "below:0", "below:1", "below:x"),
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(TuningError, match=r"allowed: constant, annealed, annealed:POWER, below"):
        schedule_of(text)


def test_a_function_must_give_numbers() -> None:
    with pytest.raises(TuningError, match=r"gives nan at noise level 0\.5"):
        factor_at(lambda sigma: math.nan, 0.5)


def test_the_noise_level_of_a_call() -> None:
    latents = torch.zeros(2)
    assert noise_level((latents, torch.tensor([700.0, 700.0])), {}) == pytest.approx(0.7)
    assert noise_level((latents,), {"timestep": torch.tensor(250)}) == 0.25
    assert noise_level((latents, torch.tensor([1004.0])), {}) == 1.0
    with pytest.raises(TuningError, match="one noise level in a batch"):
        noise_level((latents, torch.tensor([700.0, 600.0])), {})


def test_each_call_has_the_strength_of_its_noise_level() -> None:
    transformer, _ = tuned("attention")
    trained = [p.requires_grad for p in transformer.parameters()]
    base = tiny_transformer()
    with scheduled(transformer, schedule_of("annealed"), 0.8):
        for sigma in (1.0, 0.5, 0.25, 1.0):
            got = velocity(transformer, *inputs(), sigma=sigma)
            if sigma == 1.0:  # the base, bit for bit
                assert torch.equal(got, velocity(base, *inputs(), sigma=sigma))
                continue
            factor = 0.8 * (1 - sigma) ** 2
            other, _ = tuned("attention")
            with scaled(other, factor):
                assert torch.equal(got, velocity(other, *inputs(), sigma=sigma))
    again, _ = tuned("attention")
    assert torch.equal(velocity(transformer, *inputs()), velocity(again, *inputs()))
    assert [p.requires_grad for p in transformer.parameters()] == trained


def test_without_a_schedule_the_strength_is_constant() -> None:
    transformer, _ = tuned("attention")
    other, _ = tuned("attention")
    with scheduled(transformer, None, 0.5), scaled(other, 0.5):
        assert torch.equal(velocity(transformer, *inputs()), velocity(other, *inputs()))


def test_an_error_restores_the_adapter() -> None:
    transformer, _ = tuned("attention")
    before = velocity(transformer, *inputs())
    with (
        pytest.raises(TuningError, match="gives inf"),
        scheduled(transformer, lambda sigma: math.inf if sigma < 0.5 else 0.0, 1.0),
    ):
        velocity(transformer, *inputs(), sigma=1.0)
        velocity(transformer, *inputs(), sigma=0.1)
    assert torch.equal(velocity(transformer, *inputs()), before)
