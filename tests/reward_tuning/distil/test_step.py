"""One batch of a distillation on a real generator, against its loss written out."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.distil.parts import DistilParts, load_distil_parts
from reward_tuning.distil.step import distil_batch
from reward_tuning.lora.adapter import adapted_layers, scaled
from reward_tuning.progress import silent
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import TRAIN, write_world

SEEDS = (5, 6)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> DistilParts:
    world = write_world(tmp_path_factory.mktemp("world"))
    found = load_distil_parts(small_recipe(world, world / "run"), torch.device("cpu"), 5, silent)
    draw = torch.Generator().manual_seed(0)
    for parameter in found.trained.parameters:  # an adapter that does something
        with torch.no_grad():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return found


def test_the_gradient_is_that_of_the_loss_written_out(parts: DistilParts) -> None:
    generator, condition = parts.teacher.generator, parts.teacher.condition(TRAIN[:2])
    parameters, table = parts.trained.parameters, parts.table
    for parameter in parameters:
        parameter.grad = None
    found = distil_batch(parts, TRAIN[:2], SEEDS, share=0.5)
    got = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    assert len(got) == len(parameters)

    x, losses = parts.teacher.noise(SEEDS), []
    for k in range(2):
        target = x
        with torch.no_grad(), scaled(generator.transformer, 0.0):
            for j in range(2):
                a, b = table.inner[k, j], table.inner[k, j + 1]
                positive = generator.velocity(target, a, condition.positive)
                negative = generator.velocity(target, a, condition.negative)
                target = target + (b - a) * (negative + 3.0 * (positive - negative))
        width = table.sigmas[k + 1] - table.sigmas[k]
        v = generator.velocity(x, table.sigmas[k], condition.positive)
        losses.append(((x + width * v - target) / width).square().mean())
        x = (x + width * v).detach()
    wanted = torch.autograd.grad(0.5 * sum(losses, torch.zeros(())) / 2, parameters)
    assert found == pytest.approx([float(loss.detach()) for loss in losses], rel=1e-4)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-5)


def test_only_the_adapter_has_a_gradient(parts: DistilParts) -> None:
    transformer = parts.teacher.generator.transformer
    transformer.zero_grad(set_to_none=True)
    distil_batch(parts, TRAIN[:1], SEEDS[:1], share=1.0)
    with_gradient = {name for name, p in transformer.named_parameters() if p.grad is not None}
    assert len(with_gradient) == 2 * len(adapted_layers(transformer))
    assert all("lora_" in name for name in with_gradient)


def test_the_student_samples_as_its_loss_steps(parts: DistilParts) -> None:
    """The plain sampler with as many steps and no guidance is the student's own rollout."""
    generator, condition = parts.teacher.generator, parts.teacher.condition(TRAIN[:1])
    x = parts.teacher.noise(SEEDS[:1])
    with torch.no_grad():
        for a, b in zip(parts.table.sigmas[:-1], parts.table.sigmas[1:], strict=True):
            x = x + (b - a) * generator.velocity(x, a, condition.positive)
    sampled = parts.student.latents(TRAIN[:1], SEEDS[:1], parts.table.sigmas)
    assert torch.equal(sampled, x)
