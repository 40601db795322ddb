"""Judges of motion without weights, on clips whose motion is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from base_model.tiny.render import draw_staging, render_staged
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.judge_data import named_rng
from rewards import RewardError
from rewards.core.base import VideoReward
from rewards.kinds.motion import Flicker, MotionEnergy, MotionFlow, flicker, motion_energy
from rewards.networks.flow import flow_speed
from tests.rewards.synthetic_clips import (
    FRAMES,
    cut,
    flickering,
    noisy,
    pan,
    signs,
    still,
    there_and_back,
    unrelated,
)

SPEEDS = (1, 2, 4, 8)


def score(judge: VideoReward, clip: Tensor) -> float:
    return float(judge(clip, ["-"] * len(clip)))


def test_energy_grows_with_speed_and_is_not_fed_by_flicker() -> None:
    energy = [float(motion_energy(clip)) for clip in (still(), *map(pan, SPEEDS))]
    assert energy == sorted(energy)
    assert energy[0] == 0.0
    slowest = energy[1]
    # The reference's low pass: flicker 17 times below a 1-pixel pan, noise at half of it.
    assert float(motion_energy(flickering())) < slowest / 1000
    assert float(motion_energy(there_and_back())) < slowest / 1000
    assert float(motion_energy(noisy())) < slowest / 5
    rising = torch.linspace(0.0, 0.1, FRAMES).view(FRAMES, 1, 1, 1)  # brightness that stays
    assert float(motion_energy(0.9 * still() + rising)) < slowest / 1000


def test_flicker_counts_what_is_taken_back_and_no_motion() -> None:
    for amount in (0.02, 0.05):
        assert float(flicker(flickering(amount))) == pytest.approx(2 * amount, rel=1e-4)
    assert float(flicker(there_and_back())) > 0.03
    for speed in SPEEDS:
        assert float(flicker(pan(speed))) < 1e-3
    for clip in (still(), cut(), noisy()):
        assert float(flicker(clip)) < 1e-3
    moving = (pan(4) + 0.05 * signs()).clamp(0, 1)
    assert float(flicker(moving)) > 0.01  # motion hides some of it, not all


def test_flicker_in_one_region_is_not_hidden_by_motion_in_others() -> None:
    clip = pan(8).clone()
    clip[..., :32, :32] = (still() + 0.1 * signs())[..., :32, :32]
    assert float(flicker(clip)) == pytest.approx(0.2 / 16, rel=0.05)


def test_the_order_of_clips() -> None:
    for judge in (MotionEnergy(), MotionFlow()):
        order = [score(judge, c) for c in (flickering(), noisy(), *map(pan, SPEEDS))]
        assert order == sorted(order), judge.name
    calm = Flicker()
    order = [score(calm, c) for c in (flickering(), there_and_back(), unrelated(), pan(8), still())]
    assert order == sorted(order)


@pytest.mark.parametrize("kind", [MotionEnergy, MotionFlow])
def test_a_cap_ends_the_reward_and_its_gradient(kind: type[MotionEnergy | MotionFlow]) -> None:
    slow, fast = pan(1, 64), pan(4, 64)
    middle = (score(kind(), slow) + score(kind(), fast)) / 2
    capped = kind()
    capped.cap = middle
    assert score(capped, slow) == score(kind(), slow)
    assert score(capped, fast) == pytest.approx(middle)
    x = fast.clone().requires_grad_()
    (g,) = torch.autograd.grad(capped(x, ["-"]).sum(), x)
    assert float(g.abs().max()) == 0.0


def test_a_still_can_be_set_in_motion_because_of_the_energy() -> None:
    # Not quite a still: at an exact one a mean absolute difference has no gradient, either.
    x = (still(64) + 1e-6 * torch.randn((1, FRAMES, 3, 64, 64))).clamp(0, 1).requires_grad_()
    both, flow = MotionFlow(), MotionFlow(energy=0.0)
    gradient = [torch.autograd.grad(judge(x, ["-"]).sum(), x)[0].norm() for judge in (both, flow)]
    assert float(gradient[0]) > 5 * float(gradient[1])


@pytest.mark.parametrize("measure", [motion_energy, flicker, flow_speed])
def test_gradients_against_finite_differences(measure: Callable[[Tensor], Tensor]) -> None:
    base = pan(2, 32) if measure is not flicker else pan(2, 32) + 0.05 * signs()
    draw = torch.Generator().manual_seed(3)
    x = base[:, :5].double() + 0.01 * torch.rand((1, 5, 3, 32, 32), generator=draw)
    direction = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    x.requires_grad_()
    (g,) = torch.autograd.grad(measure(x).sum(), x)
    h = 1e-6
    with torch.no_grad():
        slope = (measure(x + h * direction) - measure(x - h * direction)) / (2 * h)
    assert float((g * direction).sum()) == pytest.approx(float(slope), rel=1e-3)


def oscillation(change: Tensor) -> float:
    """Share of a change of a clip that goes up and down from frame to frame; of white noise 0.5.

    From the discrete Fourier transform over time, which none of the judges uses: power at the two
    highest of the four frequencies (periods of 2.25 and 3 frames), over all but the constant.
    """
    power = torch.fft.rfft(change[0], dim=0).abs().square()[1:].flatten(1).sum(dim=1)
    return float(power[-2:].sum() / power.sum())


def rendered() -> Tensor:
    scene = Scene("red", "square", "striped", "large", "right")
    return render_staged(scene, draw_staging(scene, named_rng("motion", 0)[0]))[None]


def climbed(judge: VideoReward, clip: Tensor, steps: int = 6) -> Tensor:
    for _ in range(steps):
        clip = clip.detach().requires_grad_()
        (g,) = torch.autograd.grad(judge(clip, ["-"]).sum(), clip)
        clip = (clip + 1.0 * g / g.norm()).clamp(0, 1)
    return clip.detach()


@pytest.mark.parametrize("judge", [MotionEnergy(), MotionFlow()], ids=lambda judge: judge.name)
def test_ascent_on_pixels_raises_motion_and_not_by_flicker(judge: VideoReward) -> None:
    clip = rendered()
    after = climbed(judge, clip)
    assert score(judge, after) > 1.3 * score(judge, clip)
    assert oscillation(after - clip) < 0.1
    assert float(flicker(after)) < 1e-3


def test_ascent_on_the_plain_difference_of_frames_is_flicker() -> None:
    # What the measure of the test before must be able to see.
    assert oscillation(climbed(Plain(), rendered()) - rendered()) > 0.7


class Plain(MotionEnergy):
    """Mean absolute difference of frames, which flicker feeds."""

    def score_clips(self, frames: Tensor, prompts: object) -> Tensor:
        return frames.diff(dim=1).abs().flatten(1).mean(dim=1)


def test_ascent_on_pixels_takes_flicker_out() -> None:
    clip = (rendered() + 0.05 * signs()).clamp(0, 1)
    after = climbed(Flicker(), clip)
    assert float(flicker(after)) < 0.7 * float(flicker(clip))
    assert oscillation(after) < 0.9 * oscillation(clip)


def test_too_short_and_too_small_clips_are_refused() -> None:
    for judge, frames in ((MotionEnergy(), 4), (MotionFlow(), 4), (Flicker(), 2)):
        with pytest.raises(RewardError, match=f"{judge.name} compares frames and needs at least"):
            judge(still(64)[:, :frames], ["-"])
    MotionFlow(energy=0.0)(still(64)[:, :4], ["-"])
    with pytest.raises(RewardError, match="32 pixels or more; got 9 of 16 x 16"):
        flow_speed(still(16))
    with pytest.raises(RewardError, match="of 4 pixels or more; got 9 of 2 x 2"):
        motion_energy(torch.rand(1, 9, 3, 2, 2))
    with pytest.raises(RewardError, match="of 16 pixels or more; got 9 of 8 x 8"):
        flicker(torch.rand(1, 9, 3, 8, 8))
    with pytest.raises(RewardError, match="energy -1"):
        MotionFlow(energy=-1.0)


def test_judges_of_clips_need_no_text_and_hold_no_weights() -> None:
    for judge in (MotionEnergy(), MotionFlow(), Flicker()):
        assert not judge.reads_text
        assert judge.differentiable
        assert judge.modules == []
        clips = torch.cat([pan(2, 32), still(32)])
        alone = torch.cat([judge(clip[None], ["-"]) for clip in clips])
        torch.testing.assert_close(judge(clips, ["-", "-"]), alone)
