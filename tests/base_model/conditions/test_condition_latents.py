"""Encoded conditions: gradients in the pixels, and the embedded architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.conditions.conditions import ConditionInputs
from base_model.generator import Generator, TextCondition, load_generator
from tests.base_model.conditions.small_conditions import (
    NAMES,
    SIZE,
    clips,
    half_mask,
)
from tests.goldens import load_golden, relative, write_checkpoint


def test_pixels_get_gradient(tmp_path: Path) -> None:
    """Finite differences of the channels in float64, along one direction."""
    generator = load_generator(
        write_checkpoint(tmp_path, NAMES["inpaint"]), dtype=torch.float64, text_encoder=False
    )
    video = clips().double() * 0.8 + 0.1
    target = torch.randn(17, 3, 4, 6, generator=torch.Generator().manual_seed(1)).double()

    def read(video: Tensor) -> Tensor:
        found = generator.encode_condition(ConditionInputs(video=video, mask=half_mask()))
        assert found is not None
        return (found * target).sum()

    direction = torch.randn(video.shape, generator=torch.Generator().manual_seed(2)).double()
    leaf = video.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(read(leaf), leaf)
    eps = 1e-6
    slope = (read(video + eps * direction) - read(video - eps * direction)) / (2 * eps)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert gradient[:, 0, :, :, 20:].abs().max() == 0  # what is generated anyway
    assert load_golden(NAMES["inpaint"]).config["in_channels"] == 33


@pytest.mark.parametrize(
    ("channels", "inputs"),
    [
        (33, {"image": clips()[:, 0], "frames": 5}),
        (48, {"control": clips(frames=5), "reference": clips()[:, 0]}),
        (38, {"camera": torch.ones(1, 6, 5, *SIZE[1:])}),
    ],
)
@torch.no_grad()
def test_the_embedded_architecture_takes_them(channels: int, inputs: dict[str, Any]) -> None:
    from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel

    from base_model.tiny.configs import TEXT_WIDTH, TRANSFORMER, VAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = EasyAnimateTransformer3DModel(**{**TRANSFORMER, "in_channels": channels})
        generator = Generator(transformer.eval(), AutoencoderKLMagvit(**VAE).eval())
        states = torch.randn(1, 6, TEXT_WIDTH)
    noise = generator.initial_noise(generator.latent_shape(1, 5, *SIZE[1:]), [1])
    found = [
        generator.velocity(noise, 0.5, condition.positive)
        for condition in (
            generator.condition(TextCondition(states, states), **inputs),
            generator.condition(TextCondition(states, states)),
        )
    ]
    assert found[0].shape == noise.shape
    assert relative(*found) > 1e-4
