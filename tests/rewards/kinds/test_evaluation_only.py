"""What only measures: VBench's dynamic degree, sharpness, any function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.kinds.dynamic_degree import DynamicDegree, build_raft, load_dynamic_degree, moves
from rewards.kinds.measure import Measure
from rewards.kinds.motion import MotionFlow
from rewards.kinds.sharpness import Sharpness, laplacian_variance
from tests.rewards.synthetic_clips import pan, texture


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


def test_sharpness_against_second_differences() -> None:
    images = torch.stack([texture(32, seed) for seed in range(3)])
    grey = 255 * (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    expected = []
    for image in grey.double().numpy():
        wide = np.pad(image, 1, mode="reflect")
        bend = np.diff(wide, 2, axis=0)[:, 1:-1] + np.diff(wide, 2, axis=1)[1:-1]
        expected.append(float(bend.var()))
    assert laplacian_variance(images).tolist() == pytest.approx(expected, rel=1e-4)
    score = Sharpness()(images[None].requires_grad_(), ["-"])
    assert score.tolist() == [pytest.approx(sum(expected) / 3, rel=1e-4)]
    assert not score.requires_grad
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1)
    assert float(Sharpness()(blurred[None], ["-"])) < float(score) / 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1), (2, 2), (1, 2)])
def test_sharpness_of_frames_of_a_few_pixels(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    grey = 255 * (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    expected = []
    for image in grey.double().numpy():
        edges = []
        for y in range(height):
            for x in range(width):
                # Beyond an edge lies the mirror image; of one pixel, itself.
                down = min(height - 1, 1) if y == 0 else y - 1
                up = max(height - 2, 0) if y == height - 1 else y + 1
                right = min(width - 1, 1) if x == 0 else x - 1
                left = max(width - 2, 0) if x == width - 1 else x + 1
                around = image[down, x] + image[up, x] + image[y, right] + image[y, left]
                edges.append(around - 4 * image[y, x])
        expected.append(float(np.var(edges)))
    found = laplacian_variance(images).tolist()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert Sharpness()(images[None], ["-"]).item() == pytest.approx(
        sum(expected) / 2, rel=1e-4, abs=1e-4
    )
    if height == width == 1:
        assert found == [0.0, 0.0]


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
        assert kind.evaluation_only
    assert not MotionFlow.evaluation_only
