"""Condition channels of one model call: zeros for what is not given, refusals of the others."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import (
    Condition,
    Generator,
    TextCondition,
    load_generator,
)
from tests.goldens import load_golden, relative, write_checkpoint


@pytest.mark.parametrize(
    ("name", "field", "channels"),
    [
        ("transformer_inpaint_7b_style", "inpaint_latents", 17),
        ("transformer_control_7b_style", "control_latents", 32),
        ("transformer_camera_all_mmdit", "control_latents", 22),
    ],
)
@torch.no_grad()
def test_text_to_video_with_other_models_is_zero_channels(
    name: str, field: str, channels: int, tmp_path: Path
) -> None:
    tensors = load_golden(name).tensors
    latents, text = tensors["in.latents"], tensors["in.text"]
    generator = load_generator(write_checkpoint(tmp_path, name), text_encoder=False)
    condition = generator.condition(TextCondition(text, text)).positive
    zeros = torch.zeros(2, channels, *latents.shape[2:])
    explicit = generator.velocity(latents, 0.5, Condition(text, **{field: zeros}))
    assert torch.equal(generator.velocity(latents, 0.5, condition), explicit)
    ones = generator.velocity(latents, 0.5, Condition(text, **{field: zeros + 1}))
    assert relative(ones, explicit) > 1e-3

    with pytest.raises(GeneratorError, match=rf"{field} have shape .* need \(2, {channels}, "):
        generator.velocity(latents, 0.5, Condition(text, **{field: zeros[:, 1:]}))
    other = {"inpaint_latents", "control_latents"}.difference({field}).pop()
    with pytest.raises(GeneratorError, match=rf"has {other}, which a transformer with"):
        generator.velocity(latents, 0.5, Condition(text, **{other: zeros}))


def test_text_only_models_take_no_further_channels(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    condition = Condition(inputs["text"], inpaint_latents=torch.zeros(1, 17, 3, 8, 8))
    with pytest.raises(GeneratorError, match=r"has inpaint_latents, which .* 16 input channels"):
        generator.velocity(inputs["noise"], 1.0, condition)
