"""The published implementation's numbers: its LoRA, its velocity, its reward gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from base_model.generator import Generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, chain_weights
from reward_tuning.lora.adapter import scaled
from tests.goldens import load_golden, relative
from tests.reward_tuning.golden_model import (
    CASES,
    GRADIENTS,
    GUIDANCE_SCALE,
    adapter_gradients,
    expected_gradients,
    golden_condition,
    golden_generator,
    golden_reward,
    golden_velocity,
    with_golden_lora,
)
from tests.reward_tuning.toy_flow import relative_error

SAMPLING = load_golden("sampling_7b_style").tensors
SIGMAS = sigma_table(6)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return with_golden_lora(golden_generator(tmp_path_factory.mktemp("golden")))


def test_velocity_with_the_golden_lora(generator: Generator) -> None:
    condition = golden_condition().positive
    expected = GRADIENTS["out.velocity_with_lora"]
    with torch.no_grad():
        got = generator.velocity(SAMPLING["in.noise"], 0.5, condition)
        with scaled(generator.transformer, 0.0):
            base = generator.velocity(SAMPLING["in.noise"], 0.5, condition)
    assert relative(got, expected) <= 1e-5
    assert relative(base, expected) > 1e-2  # the LoRA is no rounding matter


def test_latents_with_the_golden_lora(generator: Generator) -> None:
    """By the sampler of the generator and by the engine's rollout; without it, the base's."""
    expected = GRADIENTS["out.latents_with_lora"]
    sampled = euler_sample(
        generator, golden_condition(), SAMPLING["in.noise"], SIGMAS, Guidance(GUIDANCE_SCALE)
    )
    assert relative(sampled, expected) <= 1e-5
    velocity = golden_velocity(generator, SIGMAS, "detached")
    assert relative(rollout(velocity, SAMPLING["in.noise"], SIGMAS, 6)[-1], expected) <= 1e-5
    with scaled(generator.transformer, 0.0):
        base = rollout(velocity, SAMPLING["in.noise"], SIGMAS, 6)[-1]
    assert relative(base, SAMPLING["out.latents"]) <= 1e-5
    assert relative(base, expected) > 1e-2


def swept(generator: Generator, case: str, *, cut: bool = True) -> tuple[float, dict[str, Tensor]]:
    """Reward and its gradient by original tensor name."""
    active, nested, decoded = CASES[case]
    through = active if cut else None
    plan = Plan(6, 6, "end", active, chain_weights(SIGMAS), nested=nested, through=through)
    velocity = golden_velocity(generator, SIGMAS, "joint")
    generator.transformer.zero_grad()
    states = rollout(velocity, SAMPLING["in.noise"], SIGMAS, plan.stop)
    reward, g = reward_gradient(
        lambda x: golden_reward(generator.decode(x, slice(0, 4 * (decoded - 1) + 1))),
        read_reward_input(velocity, states, plan),
    )
    adjoint_sweep(velocity, states, SIGMAS, plan, g)
    return float(reward), adapter_gradients(generator)


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_every_tensor_equals_the_published_scripts(
    generator: Generator, case: str
) -> None:
    reward, got = swept(generator, case)
    name = "out.reward_3_latents" if case == "tail3_all_frames" else "out.reward_1_latent"
    assert reward == pytest.approx(float(GRADIENTS[name]), rel=1e-5)
    expected = expected_gradients(case)
    assert relative_error(got, expected) <= 1e-5
    for key, tensor in expected.items():
        assert relative(got[key], tensor) <= 1e-4, key  # the small ones, one by one


def test_the_published_script_detaches_inactive_steps(generator: Generator) -> None:
    """Passing through them is the exact derivative, and another number by far."""
    _, passed = swept(generator, "uniform_1_3_5", cut=False)
    assert relative_error(passed, expected_gradients("uniform_1_3_5")) > 1e-2


def test_cases_are_told_apart(generator: Generator) -> None:
    _, got = swept(generator, "tail3")
    for case in CASES:
        if case != "tail3":
            assert relative_error(got, expected_gradients(case)) > 1e-3, case
