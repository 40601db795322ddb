"""VBench's dynamic degree: its rule, and RAFT's flow against torchvision's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.kinds.dynamic_degree import DynamicDegree, build_raft, load_dynamic_degree, moves
from tests.rewards.synthetic_clips import pan


def vbench(speeds: np.ndarray, frames: int, shortest: int) -> bool:
    """The rule for one clip, on sorted arrays."""
    threshold, needed = 6.0 * (shortest / 256.0), round(4 * (frames / 16.0))
    count = 0
    for pair in speeds:
        falling = np.sort(pair.flatten())[::-1]
        count += falling[: int(pair.size * 0.05)].mean() > threshold
    return bool(count >= needed)


def test_the_rule_of_dynamic_degree() -> None:
    draw = np.random.default_rng(0)
    # The fastest 5 % of uniform speeds up to m have a mean of 0.975 m: around 6 at m = 6.15.
    speeds = draw.uniform(0, 1, (40, 8, 32, 64)) * draw.uniform(5.9, 6.4, (40, 8, 1, 1))
    expected = [vbench(clip, 9, 256) for clip in speeds]
    assert 5 < sum(expected) < 40
    found = moves(torch.from_numpy(speeds), 9, 256)
    assert found.tolist() == [float(value) for value in expected]
    assert moves(torch.from_numpy(speeds) / 2, 9, 128).tolist() == found.tolist()


def test_how_many_pairs_must_move() -> None:
    speeds = torch.zeros(1, 15, 16, 16)
    speeds[:, :3] = 7.0
    assert moves(speeds, 16, 256).tolist() == [0.0]  # 4 of 16
    assert moves(speeds[:, :13], 14, 256).tolist() == [0.0]  # of 14 frames as many, 3.5 rounded
    assert moves(speeds[:, :9], 10, 256).tolist() == [1.0]
    speeds[:, 3, :4, :4] = 7.0  # a sixteenth of the frame is more than 5 %
    assert moves(speeds, 16, 256).tolist() == [1.0]


@pytest.fixture(scope="module")
def raft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(build_raft("raft_small").state_dict(), path)
    return path


def test_flow_is_that_of_torchvisions_raft_on_every_pair(raft_file: Path) -> None:
    judge = load_dynamic_degree(raft_file)
    clip = pan(4)[:, :3]
    model = build_raft("raft_small").eval()
    model.load_state_dict(torch.load(raft_file, weights_only=True))
    with torch.no_grad():
        expected = model(2 * clip[:, 1] - 1, 2 * clip[:, 2] - 1, num_flow_updates=20)[-1]
        found = judge.flow(clip)
    assert found.shape == (1, 2, 2, 128, 128)
    torch.testing.assert_close(found[:, 1], expected)
    score = judge(clip.clone().requires_grad_(), ["-"])
    assert not score.requires_grad
    speeds = found.square().sum(dim=2).sqrt()
    assert score.tolist() == [float(vbench(speeds[0].numpy(), 3, 128))]


def test_small_clips_are_continued_and_fast_ones_thinned(raft_file: Path) -> None:
    judge = load_dynamic_degree(raft_file.name, folder=raft_file.parent, fps=24)
    with torch.no_grad():
        # To the next multiple of 8, which VBench counts; what torchvision needs beyond is cut off.
        assert judge.flow(pan(2, 68)[:, :2]).shape == (1, 1, 2, 72, 72)
    clip = pan(3, 72)[:, :2]
    padded = torch.nn.functional.pad(2 * clip[0] - 1, (28, 28, 28, 28), mode="replicate")
    with torch.no_grad():
        whole = judge.model(padded[:1], padded[1:], num_flow_updates=20)[-1]
        torch.testing.assert_close(judge.flow(clip)[0], whole[..., 28:100, 28:100])
    seen: list[int] = []

    def flow(frames: Tensor) -> Tensor:
        seen.append(frames.shape[1])
        return torch.full((1, frames.shape[1] - 1, 2, 16, 16), 9.0)

    judge.flow = flow  # type: ignore[method-assign]
    assert judge(torch.rand(1, 9, 3, 16, 16), ["-"]).tolist() == [1.0]
    assert seen == [3]  # frames 0, 3 and 6


def test_both_sizes_are_known_by_their_keys_and_others_refused(
    raft_file: Path, tmp_path: Path
) -> None:
    large = build_raft("raft_large").state_dict()
    path = tmp_path / "large.pth"
    torch.save(large, path)
    judge = load_dynamic_degree(path)
    trained = sum(parameter.numel() for parameter in judge.model.parameters())
    assert trained == 5_257_536  # as published
    assert not any(parameter.requires_grad for parameter in judge.model.parameters())
    small = torch.load(raft_file, weights_only=True)
    assert sum(p.numel() for p in load_dynamic_degree(raft_file).model.parameters()) == 990_162
    wrong = tmp_path / "wrong.pth"
    torch.save({f"module.{name}": tensor for name, tensor in small.items()}, wrong)
    with pytest.raises(RewardError, match="is neither torchvision's RAFT"):
        load_dynamic_degree(wrong)
    small.pop("mask_predictor.x", None)
    name = sorted(small)[-1]
    del small[name]
    torch.save(small, wrong)
    with pytest.raises(RewardError, match=f"does not fit raft_small: 1 missing: {name}"):
        load_dynamic_degree(wrong)
    with pytest.raises(RewardError, match="fps 0"):
        DynamicDegree(judge.model, 0)
