"""The loss of a batch against the formula of flow matching, with a generator that is a function."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from base_model.generator import Condition
from base_model.training.timesteps import draw_levels
from reward_tuning.finetune.encoding import EncodedBatch
from reward_tuning.finetune.sections import FlowSection
from reward_tuning.finetune.step import (
    HELD_OUT_LEVELS,
    autocast,
    density,
    held_out_loss,
    sample_losses,
    training_loss,
)
from reward_tuning.seeds import derive_generator

SHAPE = (3, 16, 2, 4, 4)
PLAIN = FlowSection(most_error=None)


class Generator(SimpleNamespace):
    """Its velocity is half of the state: what training asks it for is kept."""

    device = torch.device("cpu")

    def velocity(self, state: Tensor, sigmas: Tensor, condition: Condition) -> Tensor:
        self.asked = (state, sigmas)
        return self.scale * state


@pytest.fixture
def generator() -> Generator:
    return Generator(scale=torch.tensor(0.5, requires_grad=True))


@pytest.fixture
def batch() -> EncodedBatch:
    draw = torch.Generator().manual_seed(1)
    return EncodedBatch(torch.randn(SHAPE, generator=draw), Condition(torch.zeros(3, 1, 8)))


def test_the_loss_is_the_square_of_velocity_less_target(
    generator: Generator, batch: EncodedBatch
) -> None:
    noise, sigmas = torch.randn(SHAPE), torch.tensor([0.1, 0.5, 1.0])
    found = sample_losses(generator, batch, sigmas, noise, PLAIN)  # type: ignore[arg-type]
    s = sigmas.view(3, 1, 1, 1, 1)
    state = (1 - s) * batch.latents + s * noise
    expected = (0.5 * state - (noise - batch.latents)).square().mean(dim=(1, 2, 3, 4))
    assert torch.allclose(found, expected)
    assert torch.allclose(generator.asked[0], state)
    weight = torch.tensor([1.0, 2.0, 3.0])
    weighed = sample_losses(generator, batch, sigmas, noise, PLAIN, weight)  # type: ignore[arg-type]
    assert torch.allclose(weighed, weight * expected)


def test_levels_and_noise_are_drawn_by_seed_and_number(
    generator: Generator, batch: EncodedBatch
) -> None:
    flow = FlowSection(scheme="sigma_sqrt", most_error=None)
    found = training_loss(generator, batch, flow, seed=3, number=7)  # type: ignore[arg-type]
    sigmas = draw_levels(density(flow), 3, derive_generator(3, "levels", 7))
    noise = torch.randn(SHAPE, generator=derive_generator(3, "noise", 7))
    own = sample_losses(generator, batch, sigmas, noise, PLAIN)  # type: ignore[arg-type]
    assert torch.allclose(found, (own / sigmas**2).mean())
    found.backward()
    assert generator.scale.grad is not None
    other = training_loss(generator, batch, flow, seed=3, number=8)  # type: ignore[arg-type]
    assert not torch.equal(found, other)


def test_large_errors_are_masked_and_motion_counts(
    generator: Generator, batch: EncodedBatch
) -> None:
    noise, sigmas = torch.randn(SHAPE), torch.tensor([0.1, 0.5, 1.0])
    errors = 0.5 * _state(batch, noise, sigmas) - (noise - batch.latents)
    flow = FlowSection(most_error=1.0, motion_share=0.25)
    found = sample_losses(generator, batch, sigmas, noise, flow)  # type: ignore[arg-type]
    kept = (errors.square() * (errors.abs() <= 1.0)).mean(dim=(1, 2, 3, 4))
    motion = (errors[:, :, 1:] - errors[:, :, :-1]).square().mean(dim=(1, 2, 3, 4))
    assert torch.allclose(found, 0.75 * kept + 0.25 * motion)


def _state(batch: EncodedBatch, noise: Tensor, sigmas: Tensor) -> Tensor:
    s = sigmas.view(3, 1, 1, 1, 1)
    return (1 - s) * batch.latents + s * noise


def test_held_out_clips_are_measured_at_fixed_levels_with_the_same_noise(
    generator: Generator, batch: EncodedBatch
) -> None:
    def measure(number: int = 0) -> list[float]:
        return held_out_loss(generator, batch, PLAIN, seed=3, number=number)  # type: ignore[arg-type]

    first = measure()
    assert len(first) == len(HELD_OUT_LEVELS)
    assert measure() == first
    assert measure(1) != first
    noise = torch.randn(SHAPE, generator=derive_generator(3, "held-out noise", 0, 9))
    sigmas = torch.full((3,), 0.9)
    own = sample_losses(generator, batch, sigmas, noise, PLAIN)  # type: ignore[arg-type]
    assert first[-1] == pytest.approx(float(own.detach().mean()))


def test_the_density_is_the_recipes() -> None:
    flow = FlowSection(scheme="mode", logit_mean=1.0, logit_std=2.0, mode_scale=0.5, shift=1.0)
    found = density(flow)
    values = (found.scheme, found.logit_mean, found.logit_std, found.mode_scale, found.shift)
    assert values == ("mode", 1.0, 2.0, 0.5, 1.0)


def test_autocast_is_half_precision_where_the_recipe_wants_it(generator: Generator) -> None:
    one = torch.ones(2, 2)
    with autocast(generator, None):  # type: ignore[arg-type]
        assert (one @ one).dtype == torch.float32
    with autocast(generator, "bfloat16"):  # type: ignore[arg-type]
        assert (one @ one).dtype == torch.bfloat16
