import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator, GuidedCondition
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample, start_state, start_step
from base_model.sampling.sigmas import sigma_table
from tests.goldens import load_golden, relative


def condition(tensors: dict[str, Tensor]) -> GuidedCondition:
    return GuidedCondition(Condition(tensors["in.text"]), Condition(tensors["in.negative_text"]))


def test_sampling_golden(generator: Generator) -> None:
    golden = load_golden("sampling_7b_style")
    steps, tensors = int(golden.metadata["num_inference_steps"]), golden.tensors
    visited: list[tuple[int, Tensor]] = []
    latents = euler_sample(
        generator,
        condition(tensors),
        tensors["in.noise"],
        sigma_table(steps),
        Guidance(float(golden.metadata["guidance_scale"])),
        on_step=lambda i, x: visited.append((i, x)),
    )
    assert relative(latents, tensors["out.latents"]) < 1e-5
    torch.testing.assert_close(sigma_table(steps)[:-1] * 1000, tensors["out.timesteps"])
    assert [i for i, _ in visited] == list(range(steps))
    assert torch.equal(visited[-1][1], latents)


def test_a_batch_is_its_samples(generator: Generator) -> None:
    tensors = load_golden("sampling_7b_style").tensors
    sigmas = sigma_table(3)
    noise = generator.initial_noise((2, 16, 2, 4, 8), [3, 4])
    both = euler_sample(generator, condition(tensors), noise, sigmas, Guidance(4.0))
    for i in range(2):
        one = euler_sample(generator, condition(tensors), noise[i : i + 1], sigmas, Guidance(4.0))
        assert relative(both[i : i + 1], one) < 1e-5


def test_the_state_stays_in_float32_and_has_no_gradient(generator: Generator) -> None:
    """In bfloat16 the last step (0.0027 v) would be lost: it is below the state's 8 bits."""
    tensors = load_golden("sampling_7b_style").tensors
    generator.transformer.requires_grad_(True).to(torch.bfloat16)
    states: list[Tensor] = []
    latents = euler_sample(
        generator,
        condition(tensors),
        tensors["in.noise"],
        sigma_table(4),
        Guidance(6.0),
        on_step=lambda _, x: states.append(x),
    )
    assert latents.dtype == torch.float32
    assert not latents.requires_grad
    moved = (states[-1] - states[-2]).abs()
    assert (moved > 0).float().mean() > 0.99
    assert (latents != latents.to(torch.bfloat16).float()).float().mean() > 0.9


def test_the_noise_is_not_rounded_to_the_weights(generator: Generator) -> None:
    tensors = load_golden("sampling_7b_style").tensors
    generator.transformer.to(torch.bfloat16)
    guided = condition(tensors)
    sigmas = torch.tensor([0.5, 0.5 - 1e-5])
    moved = (
        euler_sample(generator, guided, tensors["in.noise"], sigmas, Guidance(1.0))
        - tensors["in.noise"]
    )
    velocity = generator.velocity(tensors["in.noise"], 0.5, guided.positive)
    assert relative(moved, velocity * sigmas.diff()) < 0.05  # bfloat16 noise: 100 and more


@pytest.mark.parametrize(("steps", "strength"), [(50, 0.7), (10, 0.29), (6, 1.0), (25, 0.04)])
def test_sampling_from_a_video_starts_where_the_published_pipeline_does(
    steps: int, strength: float
) -> None:
    from diffusers import EasyAnimateInpaintPipeline, FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(steps, mu=1)
    holder = type("Pipeline", (), {"scheduler": scheduler})()
    timesteps, run = EasyAnimateInpaintPipeline.get_timesteps(holder, steps, strength, "cpu")
    first = start_step(steps, strength)
    assert steps - first == run == len(timesteps)
    sigma = sigma_table(steps)[first]
    assert float(timesteps[0]) == pytest.approx(1000 * float(sigma), rel=1e-6)

    draw = torch.Generator().manual_seed(1)
    clip, noise = torch.randn(2, 1, 16, 2, 4, 4, generator=draw)
    expected = scheduler.scale_noise(clip, timesteps[:1], noise)
    torch.testing.assert_close(start_state(clip, noise, sigma), expected)


def test_a_strength_or_video_that_does_not_fit_is_told() -> None:
    for strength in (0.0, 1.2, -1.0):
        with pytest.raises(GeneratorError, match=r"above 0 and at most 1, got"):
            start_step(10, strength)
    with pytest.raises(GeneratorError, match=r"0\.05 of 10 steps is less than one step.*0\.1"):
        start_step(10, 0.05)
    noise = torch.zeros(1, 16, 2, 4, 4)
    with pytest.raises(GeneratorError, match="must have the frames and size of the clip"):
        start_state(noise[:, :, :1], noise, 0.5)
