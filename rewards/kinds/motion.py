"""Judges of motion without weights: motion energy, optical flow, flicker.

Each is a function of frames and a judge. More motion is not always better: give the first two a
`cap`. Unrelated frames have energy too, so combine it with a judge of consistency.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward
from rewards.errors import RewardError
from rewards.networks.flow import FEWEST_FRAMES as FLOW_FRAMES
from rewards.networks.flow import flow_speed

POOL = 4  # pixels: finer changes are noise, not motion
FEWEST_FRAMES = 5  # the energy of a frame is a mean over 5 neighbours
BLOCKS = 4  # regions per side: motion in one must not hide the flicker of another


def motion_energy(frames: Tensor, *, pool: int = POOL) -> Tensor:
    """Measure how much moves, without counting flicker.

    The mean absolute difference of frames two apart, after each is averaged over `pool` x `pool`
    pixels and with its two neighbours in time, and its mean colour is subtracted. Changes that the
    next frame reverses, the brightness of whole frames, and noise cancel; moving objects do not.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1], f at least 5, H and W at least `pool`.
        pool: Number of pixels averaged per side.

    Returns:
        `(b,)`, differentiable; 0 for a still clip.

    Raises:
        RewardError: Frames are too few or too small.
    """
    b, f = frames.shape[:2]
    if f < FEWEST_FRAMES or min(frames.shape[-2:]) < pool:
        raise RewardError(
            f"motion energy needs {FEWEST_FRAMES} neighbouring frames of {pool} pixels or more; "
            f"got {f} of {frames.shape[-2]} x {frames.shape[-1]}. Use longer or larger clips"
        )
    coarse = F.avg_pool2d(frames.flatten(0, 1), pool).flatten(1).view(b, f, 3, -1)
    coarse = coarse - coarse.mean(dim=3, keepdim=True)
    smooth = (coarse[:, :-2] + coarse[:, 1:-1] + coarse[:, 2:]) / 3
    return (smooth[:, 2:] - smooth[:, :-2]).abs().flatten(1).mean(dim=1)


def flicker(frames: Tensor, *, pool: int = POOL) -> Tensor:
    """Measure how much of the change between frames the next frame reverses.

    The mean absolute change to the neighbours, minus that between the neighbours, in each of 4 x 4
    regions where it is above 0. Steady motion and fades change more over two frames than over one
    and give 0 at any speed. Noise changes as much over one frame as over two, and gives 0 too.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1], f at least 3, H and W at least 4 x `pool`.
        pool: Number of pixels averaged per side.

    Returns:
        `(b,)` in [0, 1], differentiable; a brightness that jumps by a and back gives a.

    Raises:
        RewardError: Frames are too few or too small.
    """
    b, f = frames.shape[:2]
    if f < 3 or min(frames.shape[-2:]) < BLOCKS * pool:
        raise RewardError(
            f"flicker needs 3 neighbouring frames or more, of {BLOCKS * pool} pixels or more; got "
            f"{f} of {frames.shape[-2]} x {frames.shape[-1]}. Use longer or larger clips"
        )
    coarse = F.avg_pool2d(frames.flatten(0, 1), pool).unflatten(0, (b, f))
    step = _change(coarse, 1)
    reversed_change = (step[:, :-1] + step[:, 1:]) / 2 - _change(coarse, 2)
    return reversed_change.relu().flatten(1).mean(dim=1)


def _change(coarse: Tensor, apart: int) -> Tensor:
    """Return the mean absolute difference of frames `apart`: `(b, f - apart, BLOCKS**2)`."""
    change = (coarse[:, apart:] - coarse[:, :-apart]).abs().mean(dim=2)
    return F.adaptive_avg_pool2d(change, BLOCKS).flatten(2)


class _Weightless(VideoReward):
    """A judge that is a formula, without weights.

    Attributes:
        cap: Largest score; higher ones count as this, without gradient; `None` for no cap. In a
            recipe, the `target` of a reward does this.
    """

    reads_text = False
    cap: float | None = None

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def modules(self) -> list[nn.Module]:
        """Empty: there are no weights."""
        return []

    def capped(self, scores: Tensor) -> Tensor:
        """Return the scores, limited to the cap."""
        return scores if self.cap is None else scores.clamp_max(self.cap)


class MotionEnergy(_Weightless):
    """`motion_energy`: 0 for a still clip, about 0.02 to 0.15 for motion of 1 to 8 pixels."""

    name = "motion_energy"
    least_frames = FEWEST_FRAMES

    @property
    def reach(self) -> int | None:
        """The least number of frames; None with a cap, which applies to the mean."""
        return self.least_frames if self.cap is None else None

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        return self.capped(motion_energy(frames))


class MotionFlow(_Weightless):
    """Speed in pixels per frame (`rewards.networks.flow.flow_speed`), plus a little energy.

    Flow has no gradient on a still clip, but the energy has, so a still clip can start to move.

    Attributes:
        energy: Pixels per frame that a `motion_energy` of 1 counts as. At the default a pan of 1 to
            8 pixels gains 0.2 to 0.35.
    """

    name = "motion_flow"

    def __init__(
        self,
        device: str | torch.device = "cpu",
        *,
        energy: float = 5.0,
    ) -> None:
        super().__init__(device)
        if energy < 0:
            raise RewardError(f"motion_flow has energy {energy}; allowed: 0 (off) or more")
        self.energy = energy
        self.least_frames = FEWEST_FRAMES if energy else FLOW_FRAMES

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        scores = flow_speed(frames)
        if self.energy:
            scores = scores + self.energy * motion_energy(frames)
        return self.capped(scores)


class Flicker(_Weightless):
    """Minus `flicker`: 0 at best."""

    name = "flicker"
    least_frames = 3

    @property
    def reach(self) -> int | None:
        """The least number of frames; None with a cap, which applies to the mean."""
        return self.least_frames if self.cap is None else None

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        return self.capped(-flicker(frames))
