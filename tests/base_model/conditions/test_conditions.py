"""Conditions of every kind of checkpoint, against diffusers' pipelines and against themselves."""

from typing import Any

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.generator import Generator
from tests.base_model.conditions.small_conditions import SIZE, clips, half_mask, text

INPUTS: dict[str, dict[str, Any]] = {
    "image": {"image": clips()[:, 0], "frames": 9},
    "end image": {"end_image": clips()[:, 0], "frames": 9},
    "mask": {"mask": half_mask()},
    "control": {"control": clips()},
    "reference": {"reference": clips()[:, 0], "frames": 9},
    "camera": {"camera": torch.zeros(1, 6, *SIZE)},
    "video": {"video": clips()},
}


@pytest.mark.parametrize(
    ("kind", "name", "needed"),
    [
        ("text-to-video", "image", r"16 .* text-to-video .* take the image\. Use the inpaint .*33"),
        ("text-to-video", "end image", r"the end image\. Use the inpaint checkpoint \(33 channels"),
        ("text-to-video", "mask", r"inpaint checkpoint .*-InP\)"),
        ("text-to-video", "control", r"control checkpoint \(48 channels, EasyAnimateV5\.1-\*-Con"),
        ("text-to-video", "camera", r"camera checkpoint \(38 channels"),
        ("inpaint", "control", r"33 input channels, the inpaint kind, .* Use the control"),
        ("inpaint", "reference", r"control checkpoint .* or camera checkpoint"),
        ("control", "image", r"48 input channels, the control kind, .* Use the inpaint"),
        ("control", "camera", r"Use the camera checkpoint"),
        ("control", "video", r"Use the inpaint checkpoint"),
        ("camera", "control", r"38 input channels, the camera kind, .* Use the control"),
    ],
)
def test_a_checkpoint_that_cannot_take_it_is_told(
    generators: dict[str, Generator], kind: str, name: str, needed: str
) -> None:
    with pytest.raises(GeneratorError, match=needed):
        generators[kind].condition(text(), **INPUTS[name])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": clips()[:, 0]}, "has image, which does not give the number of frames"),
        ({"image": clips()}, r"image has shape \(1, 9, 3, 32, 48\); expected \(batch, 3, height"),
        ({"image": clips()[:, 0], "frames": 8}, r"4k \+ 1 frames"),
        ({"video": clips(), "mask": half_mask(5)}, "mask has frames 5 and its video 9"),
        ({"video": clips(), "mask": half_mask()[..., 1:]}, "mask has width 47 and its video 48"),
        ({"video": clips(), "frames": 5}, "video has 9 frames, but frames=5"),
        ({"mask": half_mask()}, "a mask but no video"),
        ({"video": clips(), "image": clips()[:, 0]}, "a video and the image, which both define"),
        ({"end_image": clips()[:, 0], "frames": 1}, "1 frame has no end image"),
        ({"image": clips(2)[:, 0], "end_image": clips()[:, 0]}, "batch 1 and its image 2"),
    ],
)
def test_inputs_that_do_not_fit_are_told(
    generators: dict[str, Generator], inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeneratorError, match=message):
        generators["inpaint"].condition(text(), **inputs)


def test_more_that_does_not_fit_is_told(generators: dict[str, Generator]) -> None:
    image = clips()[:, 0]
    with pytest.raises(GeneratorError, match="single frame takes no reference image"):
        generators["control"].condition(text(), reference=image, frames=1)
    with pytest.raises(GeneratorError, match="text states for 3 samples and a condition for 2"):
        generators["inpaint"].condition(text(3), image=clips(2)[:, 0], frames=9)


@torch.no_grad()
def test_one_condition_serves_all_samples(generators: dict[str, Generator]) -> None:
    from base_model.sampling.guidance import both_branches

    generator = generators["inpaint"]
    condition = generator.condition(text(), image=clips()[:, 0], frames=9)
    noise = generator.initial_noise(generator.latent_shape(2, *SIZE), [1, 2])
    for velocity in both_branches(generator, noise, 0.5, condition):
        assert velocity.shape == noise.shape
    two = generator.condition(text(2), image=clips()[:, 0], frames=9)
    assert torch.equal(
        generator.velocity(noise, 0.5, condition.positive),
        generator.velocity(noise, 0.5, two.positive),
    )
