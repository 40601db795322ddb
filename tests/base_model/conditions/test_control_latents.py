"""Control and camera conditions against diffusers' pipeline, channel by channel."""

import pytest
import torch

from base_model.conditions.conditions import ConditionInputs
from base_model.generator import Generator
from tests.base_model.conditions.small_conditions import SIZE, TEXT, clips, published_layout, text
from tests.base_model.published_pipelines import seen_by_the_transformer
from tests.goldens import relative


@pytest.mark.parametrize(("control", "reference"), [(True, True), (True, False), (False, True)])
def test_control_is_that_of_the_published_pipeline(
    generators: dict[str, Generator], control: bool, reference: bool
) -> None:
    generator = generators["control"]
    clip = clips() if control else None
    image = clips(seed=2)[:, 0] if reference else None
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        control_video=None if clip is None else published_layout(clip),
        ref_image=None if image is None else image[:, :, None],
    )
    condition = generator.condition(text(), control=clip, reference=image, frames=9)
    for branch, rows in ((condition.negative, slice(0, 1)), (condition.positive, slice(1, 2))):
        assert branch.control_latents is not None
        assert branch.control_latents.shape == (1, 32, 3, 4, 6)
        assert relative(branch.control_latents, seen["control_latents"][rows]) < 1e-6


@pytest.mark.parametrize("reference", [False, True])
def test_camera_is_that_of_the_published_pipeline(
    generators: dict[str, Generator], reference: bool
) -> None:
    generator = generators["camera"]
    rays = torch.randn(1, 6, *SIZE, generator=torch.Generator().manual_seed(3))
    image = clips(seed=2)[:, 0] if reference else None
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        control_camera_video=rays,
        ref_image=None if image is None else image[:, :, None],
    )
    found = generator.condition(text(), camera=rays, reference=image).positive.control_latents
    assert found is not None
    assert found.shape == (1, 22, 3, 4, 6)
    assert relative(found, seen["control_latents"][1:]) < 1e-6


def test_a_reference_without_camera_leaves_the_rays_zero(generators: dict[str, Generator]) -> None:
    inputs = ConditionInputs(reference=clips()[:, 0], frames=9)
    found = generators["camera"].encode_condition(inputs)
    assert found is not None
    assert found[:, :6].abs().max() == 0
    assert found[:, 6:, :1].abs().max() > 0
    assert found[:, 6:, 1:].abs().max() == 0
