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
from base_model.sampling.guidance import Guidance, guided_velocity, mixed_branches
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
        return lambda latents: guided_velocity(
            generator, latents, 0.6, condition, Guidance(scale), mode
        )

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
    found = mixed_branches(negative, positive, Guidance(6.0, rescale))
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
    expected = mixed_branches(v_negative, v_positive, Guidance(6.0, 0.7))
    for mode in ("joint", "detached"):
        found = guided_velocity(generator, noise, 1.0, condition, Guidance(6.0, 0.7), mode)
        assert relative(found, expected) < 1e-5
    table = torch.tensor([1.0, 0.0])
    end = euler_sample(generator, condition, noise, table, Guidance(6.0, 0.7))
    assert relative(end, noise - expected) < 1e-5
    assert relative(end, euler_sample(generator, condition, noise, table, Guidance(6.0))) > 1e-4


@torch.no_grad()
def test_guidance_of_a_batch_with_a_sigma_each(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    pair = torch.cat([inputs["noise"], inputs["noise"].flip(-1)])
    sigma = torch.tensor([0.9, 0.2])
    for mode in ("joint", "detached"):
        both = guided_velocity(generator, pair, sigma, guided(inputs), Guidance(3.0), mode)
        for i in range(2):
            one = guided_velocity(
                generator, pair[i : i + 1], sigma[i], guided(inputs), Guidance(3.0), "detached"
            )
            assert relative(both[i : i + 1], one) < 1e-5


@torch.no_grad()
def test_scale_1_runs_one_branch(generator: Generator, inputs: dict[str, Tensor]) -> None:
    calls: list[int] = []
    generator.transformer.proj.register_forward_hook(lambda *_: calls.append(1))
    positive = generator.velocity(inputs["noise"], 0.5, Condition(inputs["text"]))
    value = guided_velocity(generator, inputs["noise"], 0.5, guided(inputs), Guidance(1.0), "joint")
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
        guided_velocity(generator, tensors["in.latents"], 0.4, condition, Guidance(5.0), mode)
        for mode in ("joint", "detached")
    ]
    assert relative(*values) < 1e-5


def test_a_wrong_mode_is_told(generator: Generator, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(GeneratorError, match="detached, joint or none, got 'off'"):
        guided_velocity(generator, inputs["noise"], 0.5, guided(inputs), 6.0, "off")  # type: ignore[arg-type]


# --- an interval of noise levels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_interval_includes_both_ends(dtype: torch.dtype) -> None:
    levels = [0.1999, 0.2, 0.5, 0.9, 0.9001, 1.0]
    inside = [False, True, True, True, False, False]
    some = Guidance(3.0, interval=(0.2, 0.9))
    assert some.applies(torch.tensor(levels, dtype=dtype)).tolist() == inside
    assert [bool(some.applies(level)) for level in levels] == inside
    assert Guidance(3.0).applies(torch.tensor(levels)).all()
    assert not Guidance(1.0).applies(torch.tensor(levels)).any()


@pytest.mark.parametrize("interval", [(0.9, 0.2), (-0.1, 0.5), (0.5, 1.5), (float("nan"), 1.0)])
def test_what_is_no_interval_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(GeneratorError, match="0 <= low <= high <= 1, got"):
        Guidance(3.0, interval=interval)


ROWS = torch.tensor([0.9, 0.2, 0.5])


@pytest.mark.parametrize(
    ("interval", "inside", "calls"),
    [
        ((0.4, 1.0), [True, False, True], {"joint": [5], "detached": [2, 3]}),
        ((0.0, 0.4), [False, True, False], {"joint": [4], "detached": [1, 3]}),
        ((0.6, 0.8), [False, False, False], {"joint": [3], "detached": [3]}),
        ((0.0, 1.0), [True, True, True], {"joint": [6], "detached": [3, 3]}),
    ],
)
@pytest.mark.parametrize("mode", ["joint", "detached"])
def test_rows_inside_and_outside_an_interval(
    generator: Generator,
    inputs: dict[str, Tensor],
    interval: tuple[float, float],
    inside: list[bool],
    calls: dict[str, list[int]],
    mode: Any,
) -> None:
    """Against each row alone, by the definition: value, gradients, and what the model ran."""
    noise = torch.cat([inputs["noise"], inputs["noise"].flip(-1), inputs["noise"].roll(1, -1)])
    own = torch.cat([inputs["text"], inputs["text"].flip(1), 0.5 * inputs["text"]])
    condition = GuidedCondition(Condition(own), Condition(inputs["negative_text"]))
    guidance = Guidance(3.0, interval=interval)

    def by_rows(latents: Tensor) -> Tensor:
        rows = []
        for i, guided_here in enumerate(inside):
            one, sigma = latents[i : i + 1], ROWS[i]
            positive = generator.velocity(one, sigma, Condition(own[i : i + 1]))
            negative = generator.velocity(one, sigma, Condition(inputs["negative_text"]))
            if mode == "joint":
                rows.append(negative + 3.0 * (positive - negative) if guided_here else positive)
            else:  # the derivative of 3 v_positive, whatever the value
                value = negative + 3.0 * (positive - negative) if guided_here else positive
                rows.append(value.detach() + 3.0 * (positive - positive.detach()))
        return torch.cat(rows)

    batches: list[int] = []
    hook = generator.transformer.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    with hook, torch.no_grad():
        found = guided_velocity(generator, noise, ROWS, condition, guidance, mode)
    assert batches == calls[mode]
    with torch.no_grad():
        assert relative(found, by_rows(noise)) < 1e-5
    wanted = parameter_gradient(generator, {"noise": noise}, by_rows)
    got = parameter_gradient(
        generator,
        {"noise": noise},
        lambda latents: guided_velocity(generator, latents, ROWS, condition, guidance, mode),
    )
    assert all(relative(a, b) < 1e-4 for a, b in zip(got, wanted, strict=True))


@torch.no_grad()
def test_the_sampler_leaves_the_negative_branch_out_outside_the_interval(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    condition, table = guided(inputs), torch.tensor([1.0, 0.8, 0.5, 0.1, 0.0])
    x = inputs["noise"]
    for i, inside in enumerate([False, True, True, False]):
        v = generator.velocity(x, table[i], condition.positive)
        if inside:
            negative = generator.velocity(x, table[i], condition.negative)
            v = negative + 6.0 * (v - negative)
        x = x + (table[i + 1] - table[i]) * v
    batches: list[int] = []
    hook = generator.transformer.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    with hook:
        some = Guidance(6.0, interval=(0.5, 0.8))
        end = euler_sample(generator, condition, inputs["noise"], table, some)
    assert batches == [1, 2, 2, 1]
    assert relative(end, x) < 1e-5
    assert (
        relative(end, euler_sample(generator, condition, inputs["noise"], table, Guidance(6.0)))
        > 1e-3
    )
