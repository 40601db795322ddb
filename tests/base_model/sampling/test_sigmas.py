import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from base_model.errors import GeneratorError
from base_model.sampling.sigmas import shift_time, sigma_table
from tests.goldens import load_golden


@pytest.mark.parametrize(("steps", "name"), [(6, ""), (10, "_10"), (25, "_25"), (50, "_50")])
def test_the_published_tables(steps: int, name: str) -> None:
    expected = load_golden("sampling_7b_style").tensors[f"out.sigmas{name}"]
    torch.testing.assert_close(sigma_table(steps), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 7, 16, 33])
def test_diffusers_scheduler_gives_the_same_table(steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(steps, mu=1.0)
    torch.testing.assert_close(sigma_table(steps), scheduler.sigmas, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 6, 25, 50])
def test_the_last_interval_is_narrow_whatever_the_number_of_steps(steps: int) -> None:
    table = sigma_table(steps)
    assert table.dtype == torch.float32
    assert table[0] == 1
    assert table[-1] == 0
    assert (table.diff() < 0).all()
    # e / (e + 999): why the last step alone carries no gradient.
    assert table[-2].item() == pytest.approx(0.0027137, abs=1e-7)


def test_one_step_goes_all_the_way() -> None:
    assert sigma_table(1).tolist() == [1.0, 0.0]


def test_no_shift_is_the_identity() -> None:
    times = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(shift_time(times, mu=0.0), times)


@pytest.mark.parametrize("steps", [0, -3, 2.0, True, "25"])
def test_a_wrong_number_of_steps_is_told(steps: object) -> None:
    with pytest.raises(GeneratorError, match=r"integer of at least 1, got .*sampling\.steps"):
        sigma_table(steps)  # type: ignore[arg-type]


def test_another_shift_is_diffusers_with_that_mu() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    for mu in (-1.0, 0.0, 0.5, 2.0):
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        times = torch.linspace(1.0, 0.001, 12, dtype=torch.float64).tolist()
        scheduler.set_timesteps(sigmas=times, mu=mu)
        torch.testing.assert_close(sigma_table(12, mu), scheduler.sigmas, rtol=1e-6, atol=1e-7)
    assert torch.equal(sigma_table(12, 1.0), sigma_table(12))
    assert bool((sigma_table(12, 2.0)[1:-1] > sigma_table(12)[1:-1]).all())


def test_more_steps_than_memory_are_refused() -> None:
    assert len(sigma_table(10_000)) == 10_001
    with pytest.raises(
        GeneratorError, match="sampling steps must be at most 10000, got 1000000000"
    ):
        sigma_table(10**9)
