"""The replay's loss: its value and its gradient against autograd of the definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.generator import load_generator
from reward_tuning.lora.adapter import scaled
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import ReplayDraw
from reward_tuning.tuning.replay import ReplayClips, replay_step, velocity_error
from tests.goldens import write_checkpoint
from tests.reward_tuning.double_sampler import double_sampler

PROMPTS = ("a red ball", "a cat", "a dog")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def sampler(checkpoint: Path) -> ClipSampler:
    return double_sampler(checkpoint, PROMPTS)


@pytest.fixture(scope="module")
def clips(sampler: ClipSampler) -> ReplayClips:
    shape = sampler.generator.latent_shape(3, *sampler.size)
    return ReplayClips(PROMPTS, torch.randn(shape, generator=torch.Generator().manual_seed(1)))


DRAW = ReplayDraw((2, 0), torch.tensor([0.25, 0.75]), (11, 12))


def parameters(sampler: ClipSampler) -> list[Tensor]:
    return [p for p in sampler.generator.transformer.parameters() if p.requires_grad]


def step(
    sampler: ClipSampler, clips: ReplayClips, *, weight: float, share: float = 1.0
) -> tuple[float, list[Tensor | None]]:
    own = parameters(sampler)
    for parameter in own:
        parameter.grad = None
    loss = replay_step(sampler, clips, DRAW, weight=weight, share=share)
    return loss, [parameter.grad for parameter in own]


def reference(sampler: ClipSampler, clips: ReplayClips) -> Tensor:
    """The definition, clip by clip, with the transformer called by hand."""
    transformer, total = sampler.generator.transformer, torch.zeros((), dtype=torch.float64)
    for index, sigma, seed in zip((2, 0), (0.25, 0.75), (11, 12), strict=True):
        x = clips.latents[index].double()
        e = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).double()
        v = transformer(
            ((1 - sigma) * x + sigma * e)[None],
            torch.tensor([1000 * sigma], dtype=torch.float64),
            encoder_hidden_states=sampler.states[PROMPTS[index]][None],
            return_dict=False,
            **extra_inputs(sampler, x),
        )[0][0]
        total = total + (v - (e - x)).square().mean() / 2
    return total


def extra_inputs(sampler: ClipSampler, x: Tensor) -> dict[str, Tensor]:
    channels = sampler.generator.transformer.config.in_channels - x.shape[0]
    name = {0: "", 17: "inpaint_latents", 32: "control_latents"}[channels]
    return {name: x.new_zeros((1, channels, *x.shape[1:]))} if name else {}


def relative(got: list[Tensor | None], expected: list[Tensor]) -> float:
    pairs = [(a, b) for a, b in zip(got, expected, strict=True) if a is not None]
    assert len(pairs) == len(expected)
    gap = sum(float((a - b).square().sum()) for a, b in pairs)
    return (gap / sum(float(b.square().sum()) for b in expected)) ** 0.5


def test_loss_and_gradient_are_those_of_the_definition(
    sampler: ClipSampler, clips: ReplayClips
) -> None:
    expected = reference(sampler, clips)
    loss, got = step(sampler, clips, weight=0.5, share=0.25)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-7)
    grads = torch.autograd.grad(0.125 * expected, parameters(sampler))
    # The model's norms work in float32, and a batch rounds otherwise than a clip alone.
    assert relative(got, list(grads)) <= 1e-6
    assert float(grads[1].norm()) > 0


def test_gradient_is_added_to_what_is_there(sampler: ClipSampler, clips: ReplayClips) -> None:
    _, grads = step(sampler, clips, weight=0.5)
    once = [grad.clone() for grad in grads if grad is not None]
    replay_step(sampler, clips, DRAW, weight=0.5)
    assert relative(grads, [2 * grad for grad in once]) <= 1e-12


def test_weight_0_measures_and_leaves_no_gradient(sampler: ClipSampler, clips: ReplayClips) -> None:
    loss, grads = step(sampler, clips, weight=0.0)
    assert loss == step(sampler, clips, weight=1.0)[0]
    assert grads == [None] * len(grads)


def test_without_the_adapter_it_is_the_loss_of_the_base(
    sampler: ClipSampler, clips: ReplayClips, checkpoint: Path
) -> None:
    bare = load_generator(checkpoint, dtype=torch.float64, text_encoder=False)
    base = replay_step(replace(sampler, generator=bare), clips, DRAW, weight=0.0)
    tuned, _ = step(sampler, clips, weight=0.0)
    with scaled(sampler.generator.transformer, 0.0):
        off, _ = step(sampler, clips, weight=0.0)
    assert off == base
    assert abs(tuned - base) > 1e-4


def test_a_perfect_velocity_has_no_error(sampler: ClipSampler, clips: ReplayClips) -> None:
    """For the model that answers e - x the loss is 0 at every sigma."""
    x = clips.latents
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    sigmas = torch.tensor([0.1, 0.5, 0.9])

    class Perfect:
        def velocity(self, noised: Tensor, s: Tensor, condition: object) -> Tensor:
            s = s[:, None, None, None, None]
            return (noised - x) / s  # x + s (e - x), less x, over s

    condition = sampler.condition(list(PROMPTS)).positive
    assert float(velocity_error(Perfect(), x, e, sigmas, condition)) < 1e-10  # type: ignore[arg-type]
