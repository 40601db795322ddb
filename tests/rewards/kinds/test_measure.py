"""Any function as a judge, and the judges that only measure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.kinds.dynamic_degree import DynamicDegree
from rewards.kinds.measure import Measure
from rewards.kinds.motion import MotionFlow
from rewards.kinds.sharpness import Sharpness


def test_any_function_is_a_judge() -> None:
    def length(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        assert not frames.requires_grad
        return frames.mean(dim=(1, 2, 3, 4)) + torch.tensor([float(len(p)) for p in prompts])

    judge = Measure(length, "length", least_frames=2)
    x = torch.rand(2, 2, 3, 8, 8)
    expected = x.mean(dim=(1, 2, 3, 4)) + torch.tensor([1.0, 2.0])
    torch.testing.assert_close(judge(x.requires_grad_(), ["a", "bb"]), expected)
    with pytest.raises(RewardError, match="length compares frames and needs at least 2"):
        judge(x[:, :1], ["a", "bb"])
    with pytest.raises(RewardError, match=r"measure scalar returned \(\)"):
        Measure(lambda frames, prompts: frames.mean(), "scalar")(x, ["a", "b"])
    with pytest.raises(RewardError, match="measure list returned list"):
        Measure(lambda frames, prompts: [0.0, 1.0], "list")(x, ["a", "b"])  # type: ignore[arg-type,return-value]
    with pytest.raises(RewardError, match=r"measure nan returned .*nan"):
        Measure(lambda frames, prompts: torch.tensor([0.0, torch.nan]), "nan")(x, ["a", "b"])


def test_they_are_marked() -> None:
    for kind in (DynamicDegree, Sharpness, Measure):
        assert not kind.differentiable
    assert MotionFlow.differentiable
