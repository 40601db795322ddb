"""Clips with conditions equal what the generator encodes."""

import random

import pytest
import torch

from base_model.conditions.conditions import ConditionInputs
from base_model.generator import Generator, load_generator
from base_model.tiny.condition_clips import (
    DRAWS,
    camera_clips,
    control_clips,
    encoded,
    inpaint_clips,
    path_heat_map,
    reference_channels,
)
from base_model.tiny.condition_stages import CONDITION_STAGES
from base_model.tiny.paths import draw_path
from base_model.tiny.render import draw_staging, render
from base_model.tiny.scenes import SIDE, Scene, draw_scenes
from base_model.training.input_channels import with_input_channels
from tests.goldens import relative

CHANNELS = {"inpaint": 33, "control": 48, "camera": 38}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny", text_encoder=False)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("kind", CONDITION_STAGES)
def test_shapes_and_splits(generator: Generator, kind: str) -> None:
    found = DRAWS[kind](generator.vae, 6, draw())
    assert found.latents.shape == (6, 16, 3, 8, 8)
    assert found.condition.shape == (6, CHANNELS[kind] - 16, 3, 8, 8)
    assert {scene.split for scene in found.scenes} == {"train"}
    assert found.latents.std().item() == pytest.approx(1.0, abs=0.2)
    again = DRAWS[kind](generator.vae, 6, draw())
    assert torch.equal(found.condition, again.condition)


def test_the_kept_frame_of_an_inpaint_clip_is_its_own_latent(generator: Generator) -> None:
    """After "after_start" with one frame kept, latent 0 of the condition is that of the clip."""
    found = inpaint_clips(generator.vae, 40, draw())
    keep = found.condition[:, 0] / generator.vae.config.scaling_factor
    start = [i for i in range(40) if keep[i, 0].min() > 0.99 and keep[i, 2].max() < 0.01]
    assert len(start) >= 3
    for i in start:
        away = relative(found.condition[i, 1:, 0], found.latents[i, :, 0])
        assert away < 0.4  # the noise on kept pixels is in it
    nothing = [i for i in range(40) if not found.condition[i].any()]
    assert 2 <= len(nothing) <= 16  # a fifth, of which one in ten stays


def test_control_channels_are_those_of_the_generator(generator: Generator) -> None:
    with_control = Generator(
        with_input_channels(load_generator("tiny", text_encoder=False).transformer, 48),
        generator.vae,
    )
    rng = random.Random(0)
    scene = draw_scenes(1, rng)[0]
    path = draw_path(scene, draw_staging(scene, rng), rng)
    heat, picture = path_heat_map(path)[None], render([scene], rng)[:, 4]
    wanted = with_control.encode_condition(ConditionInputs(control=heat, reference=picture))
    assert wanted is not None
    ours = torch.cat(
        [
            encoded(generator.vae, heat),
            reference_channels(generator.vae, picture),
        ],
        dim=1,
    )
    assert relative(ours, wanted) < 1e-5


def test_control_clips_have_edges_strokes_and_heat_maps(generator: Generator) -> None:
    condition = control_clips(generator.vae, 40, draw()).condition
    black = encoded(generator.vae, torch.zeros(1, 9, 3, SIDE, SIDE))[0]
    differ = (condition[:, :16] - black).abs().amax(dim=1) > 0.5
    changed = differ.float().mean(dim=(1, 2, 3))
    assert (changed > 0).all()
    assert 8 <= (changed < 0.2).sum() <= 32  # a spot changes few latents, edges many
    assert not condition[:, 16:, 1:].any()
    assert condition[:, 16:, 0].any(dim=1).all()


def test_camera_clips_have_rays_unless_their_camera_is_unknown(generator: Generator) -> None:
    condition = camera_clips(generator.vae, 60, draw()).condition
    known = condition[:, :6].flatten(1).any(dim=1)
    assert 45 <= known.sum() < 60
    # The first pose is the identity: no moment, unit directions, times 6.
    assert condition[known][:, :3, 0].abs().max() < 1e-5
    lengths = condition[known][:, 3:6, 0].norm(dim=1)
    assert lengths.mean().item() == pytest.approx(6.0, abs=0.01)


def test_the_heat_map_is_brightest_where_the_shape_is() -> None:
    rng = random.Random(1)
    scene = Scene("red", "circle", "dark", "small", "left")
    path = draw_path(scene, draw_staging(scene, rng), rng)
    levels = path_heat_map(path)[:, 0]
    for frame, (x, y) in zip(levels, path.centres.tolist(), strict=True):
        row, column = divmod(int(frame.argmax()), SIDE)
        assert abs(row + 0.5 - y) <= 1.0
        assert abs(column + 0.5 - x) <= 1.0
