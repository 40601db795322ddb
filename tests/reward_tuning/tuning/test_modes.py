"""Every mode of the generator: differentiable through the engine, and a batch is its clips.

Small random weights of the published classes, one checkpoint of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.conditions.inpainting import extended
from base_model.generator import Generator, GuidedCondition, TextCondition, load_generator
from base_model.sampling.guidance import Guidance, guided_velocity
from base_model.sampling.sample import euler_sample, start_state, start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, chain_weights
from reward_tuning.lora.adapter import LoraSpec, attach
from tests.goldens import write_checkpoint
from tests.reward_tuning.float64 import Float64

CHECKPOINTS = {
    16: "sampling_7b_style",
    33: "transformer_inpaint_7b_style",
    48: "transformer_control_7b_style",
    38: "transformer_camera_all_mmdit",
}
SIZE = (5, 16, 32)
STEPS, GUIDANCE_SCALE = 3, 3.0


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def clip(seed: int, frames: int = SIZE[0]) -> Tensor:
    return drawn(4, frames, 3, *SIZE[1:], seed=seed)


def right_half() -> Tensor:
    """A mask of another place in each of 4 clips."""
    mask = torch.zeros(4, 1, 1, *SIZE[1:])
    for i in range(4):
        mask[i, ..., 4 + 6 * i :] = 1
    return mask


RAYS = drawn(4, 6, *SIZE, seed=4) - 0.5
VIDEO = clip(1)
FIRST, LAST, REFERENCE = VIDEO[:, 0], VIDEO[:, -1], clip(2)[:, 0]
LONGER, UNKNOWN = extended(clip(3, frames=1), SIZE[0])


@dataclass(frozen=True)
class Mode:
    """Four clips of one mode."""

    channels: int
    inputs: dict[str, Tensor] = field(default_factory=dict)
    frames: int = SIZE[0]
    strength: float = 1.0


MODES = {
    "text to video": Mode(16),
    "text to image": Mode(16, frames=1),
    "text to video with an inpaint model": Mode(33),
    "start image": Mode(33, {"image": FIRST}),
    "end image": Mode(33, {"end_image": LAST}),
    "both images": Mode(33, {"image": FIRST, "end_image": LAST}),
    "video to video": Mode(33, {"video": VIDEO}, strength=0.7),
    "masked edit": Mode(33, {"video": VIDEO, "mask": right_half()}),
    "masked edit with strength": Mode(33, {"video": VIDEO, "mask": right_half()}, strength=0.7),
    "prolongation": Mode(33, {"video": LONGER, "mask": UNKNOWN}),
    "control": Mode(48, {"control": VIDEO}),
    "control with reference": Mode(48, {"control": VIDEO, "reference": REFERENCE}),
    "camera": Mode(38, {"camera": RAYS}),
    "camera with reference": Mode(38, {"camera": RAYS, "reference": REFERENCE}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {
        channels: write_checkpoint(tmp_path_factory.mktemp(str(channels)), name)
        for channels, name in CHECKPOINTS.items()
    }


@pytest.fixture(scope="module")
def generators(folders: dict[int, Path]) -> dict[int, Generator]:
    return {
        channels: load_generator(folder, text_encoder=False) for channels, folder in folders.items()
    }


def prepared(
    generator: Generator, mode: Mode, rows: slice
) -> tuple[GuidedCondition, Tensor, Tensor]:
    """Condition, first state and table of some of a mode's clips."""
    inputs = {name: value[rows].to(generator.state_dtype) for name, value in mode.inputs.items()}
    seeds = list(range(4))[rows]
    text = torch.randn(5, 10, 48, generator=torch.Generator().manual_seed(9))
    condition = generator.condition(
        TextCondition(text[:4][rows], text[4:]),
        **inputs,  # type: ignore[arg-type]
        frames=mode.frames,
        noise_seeds=[seed + 100 for seed in seeds],
    )
    shape = generator.latent_shape(len(seeds), mode.frames, *SIZE[1:])
    noise = generator.initial_noise(shape, seeds)
    first = start_step(STEPS, mode.strength)
    sigmas = sigma_table(STEPS)[first:].to(generator.state_dtype)
    if first:
        noise = start_state(generator.encode(inputs["video"]), noise, sigmas[0])
    return condition, noise, sigmas


@pytest.mark.parametrize("name", MODES)
@torch.no_grad()
def test_a_batch_is_its_clips(generators: dict[int, Generator], name: str) -> None:
    mode = MODES[name]
    generator = generators[mode.channels]

    def sampled(rows: slice) -> Tensor:
        condition, noise, sigmas = prepared(generator, mode, rows)
        return generator.decode(
            euler_sample(generator, condition, noise, sigmas, Guidance(GUIDANCE_SCALE))
        )

    together = sampled(slice(0, 4))
    assert together.shape == (4, mode.frames, 3, *SIZE[1:])
    for i in range(4):
        assert float((together[i : i + 1] - sampled(slice(i, i + 1))).abs().max()) < 1e-4
    assert float((together[:1] - together[1:]).abs().amax(dim=(1, 2, 3, 4)).min()) > 1e-2


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if mode.inputs])
@torch.no_grad()
def test_a_condition_changes_the_clip(generators: dict[int, Generator], name: str) -> None:
    mode = MODES[name]
    generator = generators[mode.channels]
    condition, start, sigmas = prepared(generator, mode, slice(0, 1))
    found = euler_sample(generator, condition, start, sigmas, Guidance(GUIDANCE_SCALE))
    free, noise, table = prepared(generator, Mode(mode.channels), slice(0, 1))
    without = euler_sample(generator, free, noise, table, Guidance(GUIDANCE_SCALE))
    assert float((found - without).norm() / without.norm()) > 1e-3


@pytest.mark.parametrize("name", MODES)
def test_gradients_are_finite_differences(folders: dict[int, Path], name: str) -> None:
    """Reward on decoded frames, whole chain, every LoRA tensor, along one direction in float64."""
    mode = MODES[name]
    generator = load_generator(
        folders[mode.channels], dtype=torch.float64, text_encoder=False, fp32_timesteps=True
    )
    parameters = attach(generator.transformer, LoraSpec(2, 2, "attention"), seed=1)
    generator.transformer.to(torch.float64)
    draw = torch.Generator().manual_seed(2)
    for parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=draw).double() * 0.2
    start = [parameter.data.clone() for parameter in parameters]
    direction = [torch.randn(p.shape, generator=draw).double() for p in parameters]
    condition, noise, sigmas = prepared(generator, mode, slice(0, 1))
    steps = len(sigmas) - 1
    plan = Plan(steps, steps, "end", tuple(range(steps)), chain_weights(sigmas), 1.0)

    def velocity(x: Tensor, i: int) -> Tensor:
        return guided_velocity(
            generator, x, sigmas[i], condition, Guidance(GUIDANCE_SCALE), "joint"
        )

    def loss_fn(latents: Tensor) -> Tensor:
        frames = generator.decode(latents)
        return (frames * torch.linspace(-1, 1, frames.shape[-1], dtype=frames.dtype)).mean()

    def loss_at(step: float) -> float:
        for parameter, value, part in zip(parameters, start, direction, strict=True):
            parameter.data = value + step * part
        with torch.no_grad():
            return float(loss_fn(rollout(velocity, noise, sigmas, steps)[-1]))

    with Float64():
        states = rollout(velocity, noise, sigmas, steps)
        _, g = reward_gradient(loss_fn, read_reward_input(velocity, states, plan))
        adjoint_sweep(velocity, states, sigmas, plan, g, parameters=parameters)
        eps = 1e-5
        slope = (loss_at(eps) - loss_at(-eps)) / (2 * eps)
    found = sum(
        float((parameter.grad * part).sum())
        for parameter, part in zip(parameters, direction, strict=True)
        if parameter.grad is not None
    )
    assert abs(slope) > 1e-6
    assert found == pytest.approx(slope, rel=1e-5)
