"""Classifier-free guidance: values, gradients of each treatment of the negative branch, rescale."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import (
    Condition,
    Generator,
    GuidedCondition,
    load_generator,
)
from base_model.sampling.guidance import guided_velocity, mixed_branches
from base_model.sampling.sample import euler_sample
from tests.goldens import load_golden, relative, write_checkpoint


def guided(inputs: dict[str, Tensor]) -> GuidedCondition:
    return GuidedCondition(Condition(inputs["text"]), Condition(inputs["negative_text"]))


def parameter_gradient(
    generator: Generator, inputs: dict[str, Tensor], compute: Any
) -> tuple[Tensor, Tensor]:
    """Gradient of a fixed linear reward with respect to one weight and to the latents."""
    weight = generator.transformer.transformer_blocks[1].attn1.to_q.weight.requires_grad_()
    latents = inputs["noise"].clone().requires_grad_()
    target = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    of_weight, of_latents = torch.autograd.grad(
        (compute(latents) * target).sum(), (weight, latents)
    )
    return of_weight, of_latents


def test_guidance_value_and_gradient(generator: Generator, inputs: dict[str, Tensor]) -> None:
    scale, condition = 6.0, guided(inputs)

    def branch(which: Condition) -> Any:
        return lambda latents: generator.velocity(latents, 0.6, which)

    def guide(mode: Any) -> Any:
        return lambda latents: guided_velocity(generator, latents, 0.6, condition, scale, mode)

    with torch.no_grad():
        negative = branch(condition.negative)(inputs["noise"])
        positive = branch(condition.positive)(inputs["noise"])
        value = negative + scale * (positive - negative)
        assert relative(guide("joint")(inputs["noise"]), value) < 1e-5
        assert relative(guide("detached")(inputs["noise"]), value) < 1e-6
        assert torch.equal(guide("none")(inputs["noise"]), positive)

    gradients = {
        "positive": parameter_gradient(generator, inputs, branch(condition.positive)),
        "negative": parameter_gradient(generator, inputs, branch(condition.negative)),
        "joint": parameter_gradient(generator, inputs, guide("joint")),
        "detached": parameter_gradient(generator, inputs, guide("detached")),
        "none": parameter_gradient(generator, inputs, guide("none")),
    }
    for i in range(2):
        of = {name: pair[i] for name, pair in gradients.items()}
        assert relative(of["detached"], scale * of["positive"]) < 1e-5
        assert relative(of["joint"], scale * of["positive"] + (1 - scale) * of["negative"]) < 1e-4
        assert relative(of["none"], of["positive"]) < 1e-6
        assert relative(of["joint"], of["detached"]) > 0.1


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_guidance_rescale_is_that_of_diffusers(rescale: float) -> None:
    from diffusers.pipelines.easyanimate.pipeline_easyanimate import rescale_noise_cfg

    draw = torch.Generator().manual_seed(2)
    negative, positive = torch.randn((2, 3, 16, 2, 4, 4), generator=draw)
    found = mixed_branches(negative, positive, 6.0, rescale)
    plain = negative + 6.0 * (positive - negative)
    torch.testing.assert_close(found, rescale_noise_cfg(plain, positive, rescale))
    if rescale == 1.0:
        torch.testing.assert_close(found.flatten(1).std(dim=1), positive.flatten(1).std(dim=1))


@torch.no_grad()
def test_guided_velocity_and_the_sampler_take_the_rescale(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    noise, condition = inputs["noise"], guided(inputs)
    v_negative = generator.velocity(noise, 1.0, condition.negative)
    v_positive = generator.velocity(noise, 1.0, condition.positive)
    expected = mixed_branches(v_negative, v_positive, 6.0, 0.7)
    for mode in ("joint", "detached"):
        found = guided_velocity(generator, noise, 1.0, condition, 6.0, mode, 0.7)
        assert relative(found, expected) < 1e-5
    table = torch.tensor([1.0, 0.0])
    end = euler_sample(generator, condition, noise, table, 6.0, guidance_rescale=0.7)
    assert relative(end, noise - expected) < 1e-5
    assert relative(end, euler_sample(generator, condition, noise, table, 6.0)) > 1e-4


@torch.no_grad()
def test_guidance_of_a_batch_with_a_sigma_each(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    pair = torch.cat([inputs["noise"], inputs["noise"].flip(-1)])
    sigma = torch.tensor([0.9, 0.2])
    for mode in ("joint", "detached"):
        both = guided_velocity(generator, pair, sigma, guided(inputs), 3.0, mode)
        for i in range(2):
            one = guided_velocity(
                generator, pair[i : i + 1], sigma[i], guided(inputs), 3.0, "detached"
            )
            assert relative(both[i : i + 1], one) < 1e-5


@torch.no_grad()
def test_scale_1_runs_one_branch(generator: Generator, inputs: dict[str, Tensor]) -> None:
    calls: list[int] = []
    generator.transformer.proj.register_forward_hook(lambda *_: calls.append(1))
    positive = generator.velocity(inputs["noise"], 0.5, Condition(inputs["text"]))
    value = guided_velocity(generator, inputs["noise"], 0.5, guided(inputs), 1.0, "joint")
    assert torch.equal(value, positive)
    assert len(calls) == 2


def test_joint_guidance_of_conditions_with_and_without_channels(tmp_path: Path) -> None:
    name = "transformer_inpaint_7b_style"
    tensors = load_golden(name).tensors
    generator = load_generator(write_checkpoint(tmp_path, name), text_encoder=False)
    condition = GuidedCondition(
        Condition(tensors["in.text"], inpaint_latents=tensors["in.inpaint_latents"]),
        Condition(tensors["in.text"]),
    )
    values = [
        guided_velocity(generator, tensors["in.latents"], 0.4, condition, 5.0, mode)
        for mode in ("joint", "detached")
    ]
    assert relative(*values) < 1e-5


def test_a_wrong_mode_is_told(generator: Generator, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(GeneratorError, match="detached, joint or none, got 'off'"):
        guided_velocity(generator, inputs["noise"], 0.5, guided(inputs), 6.0, "off")  # type: ignore[arg-type]
