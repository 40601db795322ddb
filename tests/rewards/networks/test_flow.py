"""Flow from a soft cost volume: speeds of pans, and what has no flow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from base_model.tiny.render import draw_staging, render_staged
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.judge_data import named_rng
from rewards.kinds.motion import motion_energy
from rewards.networks.flow import PATCH, REACH, correlations, flow_speed
from tests.rewards.synthetic_clips import (
    FRAMES,
    cut,
    flickering,
    noisy,
    pan,
    still,
    texture,
    there_and_back,
    unrelated,
)

SPEEDS = (1, 2, 4, 8)


@pytest.mark.parametrize(("axis", "speeds"), [(-1, SPEEDS), (-2, (4,))])
def test_flow_is_the_speed_of_a_pan(axis: int, speeds: tuple[int, ...]) -> None:
    assert float(flow_speed(still()[:, :4])) < 1e-3
    for speed in speeds:
        # A pan of 1 pixel goes by half an averaged pixel.
        expected = pytest.approx(speed, rel=0.05 if speed > 1 else 0.1)
        assert float(flow_speed(pan(speed, axis=axis)[:, :5])) == expected


@pytest.mark.parametrize(("side", "speed"), [(64, 2), (192, 6)])
def test_flow_is_in_pixels_of_the_frame_whatever_its_size(side: int, speed: int) -> None:
    # Averaged over 2 and over 3 pixels before the search.
    assert float(flow_speed(pan(speed, side)[:, :5])) == pytest.approx(speed, rel=0.05)


@pytest.mark.parametrize("clip", [noisy(), flickering(), there_and_back()])
def test_noise_and_flicker_have_no_flow(clip: Tensor) -> None:
    assert float(flow_speed(clip)) < 0.01


def test_frames_that_show_nothing_of_the_last_one_have_no_flow() -> None:
    assert float(flow_speed(unrelated())) < 0.1
    assert float(flow_speed(cut())) < 0.05


def test_stripes_that_stand_still_have_no_flow_though_they_fit_in_many_places() -> None:
    wave = torch.sin(torch.arange(64.0) * 2 * torch.pi / 16)
    stripes = (0.5 + 0.2 * wave).expand(1, 5, 3, 64, 64)
    assert float(flow_speed(stripes)) < 0.25


@pytest.mark.parametrize(("shape", "background"), [("square", "striped"), ("circle", "dark")])
def test_a_shape_before_a_still_background_counts_by_its_speed(shape: str, background: str) -> None:
    scene = Scene("red", shape, background, "medium", "right")
    staging = draw_staging(scene, named_rng("speed", 0)[0])
    clips = torch.stack(
        [
            render_staged(scene, replace(staging, centre=(16.0, 32.0), velocity=(speed, 0.0)))
            for speed in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
        ]
    )
    for measure in (flow_speed, motion_energy):
        found = measure(clips).tolist()
        assert found == sorted(found)
        assert found[-1] > 2 * found[2]


def test_brightness_and_contrast_do_not_change_flow() -> None:
    fade = torch.linspace(1.0, 0.5, FRAMES).view(FRAMES, 1, 1, 1)
    assert float(flow_speed(pan(4) * fade)) == pytest.approx(4, rel=0.05)


def test_correlations_against_their_definition() -> None:
    before, after = texture(24, 1)[None], texture(24, 2)[None]
    found, variance = correlations(before, after)
    half = PATCH // 2
    for y, x, dy, dx in ((9, 12, 0, 0), (10, 9, -5, 6), (14, 11, 3, -2)):
        one, other = (
            picture[0, :, v - half : v + half + 1, u - half : u + half + 1].flatten(1)
            for picture, v, u in ((before, y, x), (after, y + dy, x + dx))
        )
        one, other = (patch - patch.mean(dim=1, keepdim=True) for patch in (one, other))
        place = (dy + REACH) * (2 * REACH + 1) + dx + REACH
        assert float(variance[0, y, x]) == pytest.approx(float(one.square().mean()), rel=1e-3)
        # 1e-4 beside variances of 0.01: within 2 %.
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert float(found[0, place, y, x]) == pytest.approx(float(cosine), rel=0.02, abs=1e-3)
