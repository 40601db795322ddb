"""VideoAlign and HPSv3 against what their authors' own code scored, and resized.

The golden was made by VideoAlign 219ab9d and the package hpsv3 1.0.0, both on transformers 4.45.2,
on random weights in the published layouts. Clips are given at 2 frames a second and no size needs
resizing, so that the numbers are those of text, tokens, positions, network, head and statistics.
What the authors resize with, torchvision for clips and PIL for images, is then called here itself.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.kinds.hpsv3 import HpsV3Reward, load_hpsv3
from rewards.kinds.video_align import VideoAlignReward, load_video_align
from rewards.qwen.model import QwenTower
from tests.goldens import FOLDER
from tests.rewards.core.test_preprocess import picture, pil_resize, tensor

ROOT = FOLDER / "qwen_judges"
CPU = torch.device("cpu")
ROWS = range(3)
BAR = 5e-5
"""Measured: 2.9e-6 and 7.8e-6; on Qwen2-VL's grid up to 1.94 (VideoAlign) and 1.13 (HPSv3)."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with safe_open(ROOT / "cases.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {**tensors, "prompts": json.loads(file.metadata()["prompts"])}


@pytest.fixture(scope="module")
def video_align() -> VideoAlignReward:
    return load_video_align(ROOT / "video_align", TowerOptions(), base=ROOT / "base", clip_fps=2.0)


@pytest.fixture(scope="module")
def hpsv3() -> HpsV3Reward:
    return load_hpsv3(ROOT / "hpsv3.safetensors", TowerOptions(), base=ROOT / "base")


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

    of_clip = VideoAlignReward(grid(video_align.tower), video_align.head.weight, video_align.norms)
    off = axes(of_clip, *clip(golden, 0)) - golden["video_align.0"]
    assert float(off.abs().max()) > 1
    of_image = HpsV3Reward(grid(hpsv3.tower), hpsv3.head)
    off = preferences(of_image, *image(golden, 0)) - golden["hpsv3.0"]
    assert float(off.abs().max()) > 0.2


SIZES = [(300, 500), (720, 1280), (64, 64)]
"""Less and more than the judges want, in both directions."""


def shown(height: int, width: int, seed: int) -> np.ndarray:
    """Slow colours, a grain, and black and white edges, at which resizes differ most."""
    edges = picture(height, width, seed).astype(np.float64)
    slow = np.array(Image.fromarray(picture(12, 20, seed)).resize((width, height)), np.float64)
    mixed = np.where(np.abs(edges - 127.5) > 127, edges, 0.8 * slow + 0.2 * edges)
    return mixed.round().astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_hpsv3_scores_images_of_any_size_as_pil_resizes_them(
    hpsv3: HpsV3Reward, golden: dict[str, Any], height: int, width: int
) -> None:
    frames, prompts = hpsv3.tower.frames, golden["prompts"][:1]
    size = frames.size(height, width)
    raw = shown(height, width, 1)
    as_is = replace(frames, min_pixels=1, max_pixels=10**9)
    tower = QwenTower(hpsv3.tower.model, hpsv3.tower.tokenizer, as_is, "image", "plain")
    image = tensor(np.array(pil_resize(raw, *size)))
    expected = preferences(HpsV3Reward(tower, hpsv3.head), image, prompts)
    got = preferences(hpsv3, tensor(raw), prompts)
    # 7e-4 at most; without the rounding 0.025 to 0.068.
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_video_align_scores_clips_of_any_size_as_torchvision_resizes_them(
    video_align: VideoAlignReward, golden: dict[str, Any], height: int, width: int
) -> None:
    ensure_torchvision_importable()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    prompts = golden["prompts"][:1]
    size = list(video_align.tower.frames.size(height, width))
    clip = torch.from_numpy(np.stack([shown(height, width, seed) for seed in range(2)]))
    clip = clip.permute(0, 3, 1, 2)  # bytes, as a reader of videos gives them
    ready = resize(clip, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert video_align.tower.frames.size(*size) == tuple(size)
    expected = axes(video_align, ready[None].float() / 255, prompts)
    got = axes(video_align, clip[None].float() / 255, prompts)
    # 2e-4 at most; with PIL's two passes, rounded or not, 0.018 to 0.032.
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


def test_the_rounding_lets_the_gradient_through(
    video_align: VideoAlignReward, golden: dict[str, Any]
) -> None:
    raw = np.stack([shown(64, 64, seed) for seed in range(2)])
    clip = (torch.from_numpy(raw).permute(0, 3, 1, 2)[None].float() / 255).requires_grad_()
    score = video_align(clip, golden["prompts"][:1])
    (gradient,) = torch.autograd.grad(score.sum(), clip)
    exact = replace(video_align.tower.frames, quantised=False)
    tower = QwenTower(video_align.tower.model, video_align.tower.tokenizer, exact, "video", "plain")
    smooth = VideoAlignReward(tower, video_align.head.weight, video_align.norms)
    (expected,) = torch.autograd.grad(smooth(clip, golden["prompts"][:1]).sum(), clip)
    likeness = torch.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0)
    assert float(likeness) > 0.95
