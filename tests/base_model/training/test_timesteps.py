import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)

from base_model.sampling.sigmas import shift_time
from base_model.training.timesteps import (
    Scheme,
    TimestepDensity,
    draw_levels,
    draw_places,
    level_at,
    level_weight,
)

SCHEMES: tuple[Scheme, ...] = ("none", "sigma_sqrt", "logit_normal", "mode", "cosmap")


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_places_are_those_of_diffusers(scheme: Scheme) -> None:
    density = TimestepDensity(scheme, logit_mean=-0.4, logit_std=1.3, mode_scale=1.1)
    expected = compute_density_for_timestep_sampling(
        scheme, 4000, logit_mean=-0.4, logit_std=1.3, mode_scale=1.1, generator=seeded()
    )
    assert torch.equal(draw_places(density, 4000, seeded()), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_are_those_of_diffusers(scheme: Scheme) -> None:
    sigmas = torch.linspace(0.001, 1, 50)
    expected = compute_loss_weighting_for_sd3(scheme, sigmas)
    torch.testing.assert_close(level_weight(scheme, sigmas), expected, rtol=1e-6, atol=0)


def test_levels_are_the_unshifted_table_of_the_published_scheduler() -> None:
    """The published trainer looks up timesteps[int(1000 u)] of a scheduler that is not shifted."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True
    )
    u = torch.rand(500, generator=seeded())
    expected = scheduler.timesteps[(u * 1000).long()] / 1000
    torch.testing.assert_close(level_at(u), expected, rtol=0, atol=1e-6)
    assert level_at(torch.tensor([0.0, 0.9995, 1.0])).tolist() == pytest.approx([1, 0.001, 0.001])


def test_a_shift_moves_the_drawn_levels_as_the_samplers() -> None:
    plain = draw_levels(TimestepDensity("logit_normal"), 100, seeded())
    shifted = draw_levels(TimestepDensity("logit_normal", shift=1.0), 100, seeded())
    torch.testing.assert_close(shifted, shift_time(plain, 1.0))
    assert (shifted >= plain).all()


def test_a_negative_logit_mean_favours_high_noise() -> None:
    low = draw_levels(TimestepDensity("logit_normal", logit_mean=1.0), 5000, seeded())
    high = draw_levels(TimestepDensity("logit_normal", logit_mean=-1.0), 5000, seeded())
    # sigmoid of N(1, 1) has mean 0.697 (numerical integral); sigma is 1 - u
    assert low.mean().item() == pytest.approx(0.303, abs=0.01)
    assert high.mean().item() == pytest.approx(0.697, abs=0.01)
