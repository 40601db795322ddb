"""How different two clips look to a judge: the distance of its image features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reward_tuning.judges.judge import FramedJudge, Judge
from rewards import FrameReward
from rewards.core.shared_towers import frames_shared


def feature_judge(judges: Sequence[Judge]) -> FramedJudge | None:
    """Return the first judge that has image features; None where none has."""
    for judge in judges:
        if isinstance(judge, FramedJudge) and isinstance(judge.reward, FrameReward):
            return judge
    return None


@torch.no_grad()
def clip_features(judge: FramedJudge, frames: Tensor) -> Tensor:
    """Return the image features of clips as a judge sees them: the mean over frames.

    Args:
        judge: A judge of `feature_judge`.
        frames: `(b, f, 3, H, W)` in [0, 1].

    Returns:
        `(b, d)` float32 on the CPU.
    """
    assert isinstance(judge.reward, FrameReward)
    with frames_shared(frames):
        return judge.reward.clip_features(judge.shown(judge.judged(frames, 0))).float().cpu()


def feature_distance(looks: Sequence[Tensor]) -> float:
    """Return the mean of 1 - cosine over all pairs of feature vectors `(d,)`, two or more."""
    rows = F.normalize(torch.stack(list(looks)).double(), dim=1)
    pairs = torch.triu_indices(len(rows), len(rows), offset=1)
    return float((1.0 - (rows @ rows.T)[pairs[0], pairs[1]]).mean())
