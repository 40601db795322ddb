"""VideoAlign and HPSv3 against what their authors' own code scored.

The golden was made by VideoAlign 219ab9d and the package hpsv3 1.0.0, both on transformers 4.45.2,
on random weights in the published layouts. Clips are given at 2 frames a second and no size needs
resizing, so that the numbers are those of text, tokens, positions, network, head and statistics.
"""

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from rewards.hpsv3 import HpsV3Reward, load_hpsv3
from rewards.qwen_model import QwenTower
from rewards.video_align import VideoAlignReward, load_video_align
from tests.goldens import FOLDER

ROOT = FOLDER / "qwen_judges"
CPU = torch.device("cpu")
ROWS = range(3)
BAR = 5e-5
"""Measured: 2.9e-6 (VideoAlign) and 7.8e-6 (HPSv3); on Qwen2-VL's grid 1.09 to 1.94, 0.25 to 1.13."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with safe_open(ROOT / "cases.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {**tensors, "prompts": json.loads(file.metadata()["prompts"])}


@pytest.fixture(scope="module")
def video_align() -> VideoAlignReward:
    return load_video_align(ROOT / "video_align", device=CPU, base=ROOT / "base", clip_fps=2.0)


@pytest.fixture(scope="module")
def hpsv3() -> HpsV3Reward:
    return load_hpsv3(ROOT / "hpsv3.safetensors", device=CPU, base=ROOT / "base")


def clip(golden: dict[str, Any], row: int) -> tuple[Tensor, list[str]]:
    return golden[f"clip.{row}"][None].float() / 255, [golden["prompts"][row]]


def image(golden: dict[str, Any], row: int) -> tuple[Tensor, list[str]]:
    return golden[f"image.{row}"][None].float() / 255, [golden["prompts"][row]]


@torch.no_grad()
def axes(judge: VideoAlignReward, clips: Tensor, prompts: list[str]) -> Tensor:
    each = judge.per_axis(clips, prompts)
    return torch.stack([*each.values(), judge(clips, prompts)], dim=1)[0].double()


@torch.no_grad()
def preferences(judge: HpsV3Reward, images: Tensor, prompts: list[str]) -> Tensor:
    return judge.preferences(images, judge.condition(prompts))[0].double()


@pytest.mark.parametrize("row", ROWS)
def test_video_align_scores_as_its_authors_do(
    golden: dict[str, Any], video_align: VideoAlignReward, row: int
) -> None:
    got = axes(video_align, *clip(golden, row))
    torch.testing.assert_close(got, golden[f"video_align.{row}"], atol=BAR, rtol=0)


@pytest.mark.parametrize("row", ROWS)
def test_hpsv3_scores_as_its_authors_do(
    golden: dict[str, Any], hpsv3: HpsV3Reward, row: int
) -> None:
    frames, prompts = image(golden, row)
    got = preferences(hpsv3, frames, prompts)
    torch.testing.assert_close(got, golden[f"hpsv3.{row}"], atol=BAR, rtol=0)
    with torch.no_grad():
        score = hpsv3(frames[:, None], prompts).double()
    torch.testing.assert_close(score, golden[f"hpsv3.{row}"][:1], atol=BAR, rtol=0)


def test_frames_of_a_batch_are_scored_as_each_alone(
    golden: dict[str, Any], hpsv3: HpsV3Reward
) -> None:
    # Prompts of three lengths: the rows are padded behind, and the tokens' numbers stay theirs.
    images = torch.cat([image(golden, row)[0] for row in ROWS])
    with torch.no_grad():
        got = hpsv3.preferences(images, hpsv3.condition(golden["prompts"])).double()
    expected = torch.stack([golden[f"hpsv3.{row}"] for row in ROWS])
    torch.testing.assert_close(got, expected, atol=BAR, rtol=0)


def test_the_golden_tells_the_positions_apart(
    golden: dict[str, Any], video_align: VideoAlignReward, hpsv3: HpsV3Reward
) -> None:
    def grid(tower: QwenTower) -> QwenTower:
        return QwenTower(tower.model, tower.tokenizer, tower.frames, tower.medium, "grid")

    of_clip = VideoAlignReward(
        grid(video_align.tower), video_align.head.weight, video_align.norms
    )
    off = axes(of_clip, *clip(golden, 0)) - golden["video_align.0"]
    assert float(off.abs().max()) > 1
    of_image = HpsV3Reward(grid(hpsv3.tower), hpsv3.head)
    off = preferences(of_image, *image(golden, 0)) - golden["hpsv3.0"]
    assert float(off.abs().max()) > 0.2
