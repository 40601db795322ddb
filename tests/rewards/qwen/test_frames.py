import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rewards.core.preprocess import OPENAI_STD
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.errors import RewardError
from rewards.qwen.frames import QwenFrames, frames_of_folder
from tests.rewards.tiny_qwen import bytes_clips

LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 168 * 168}
SPEC = QwenFrames(min_pixels=56 * 56, max_pixels=168 * 168)


def processors() -> tuple[Any, Any]:
    ensure_torchvision_importable()
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    video = Qwen2VLVideoProcessor(size=dict(LIMITS), cap_pixels_per_frame=False)
    return Qwen2VLImageProcessor(size=dict(LIMITS)), video


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(4, 56, 56), (5, 84, 112), (1, 112, 56), (2, 168, 168)]
)
def test_patches_are_the_processors_without_a_resize(frames: int, height: int, width: int) -> None:
    clips = bytes_clips(1, frames, height, width)
    expected = processors()[1](videos=[clips[0]], return_tensors="pt")
    patches = SPEC(clips.float() / 255)
    assert list(patches.grid) == expected["video_grid_thw"][0].tolist()
    difference = patches.values - expected["pixel_values_videos"]
    assert float(difference.abs().max()) <= 4.8e-7  # one unit in the last place of 2.6


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 131), (240, 416), (30, 50)])
def test_patches_are_the_processors_with_a_resize(height: int, width: int) -> None:
    # Smooth, as pictures are: on white noise a resize differs by more than any picture shows.
    coarse = torch.rand((3, 3, 12, 12), generator=torch.Generator().manual_seed(1))
    clip = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    clip = (clip * 255).round().to(torch.uint8)
    image, video = processors()
    got = video(videos=[clip], return_tensors="pt")
    patches = SPEC(clip[None].float() / 255)
    assert list(patches.grid) == got["video_grid_thw"][0].tolist()
    level = 1 / 255 / min(OPENAI_STD)
    assert float((patches.values - got["pixel_values_videos"]).abs().max()) < 1.1 * level
    still = image(images=clip[0], return_tensors="pt")
    one = SPEC(clip[None, :1].float() / 255)
    assert list(one.grid) == still["image_grid_thw"][0].tolist()
    assert float((one.values - still["pixel_values"]).abs().max()) < 1.1 * level


def test_quantised_steps_are_closer_to_the_processor() -> None:
    clip = F.interpolate(torch.rand(2, 3, 9, 9), size=(240, 240), mode="bicubic").clamp(0, 1)
    clip = (clip * 255).round().to(torch.uint8)
    expected = processors()[1](videos=[clip], return_tensors="pt")["pixel_values_videos"]
    errors = [
        float((spec(clip[None].float() / 255).values - expected).abs().mean())
        for spec in (SPEC, QwenFrames(min_pixels=56 * 56, max_pixels=168 * 168, quantised=True))
    ]
    assert errors[1] < 0.2 * errors[0]


def test_clips_of_a_batch_follow_each_other() -> None:
    clips = bytes_clips(3, 3, 56, 84).float() / 255
    together = SPEC(clips).values
    assert torch.equal(together, torch.cat([SPEC(clip[None]).values for clip in clips]))


@pytest.mark.parametrize("size", [(480, 832), (720, 1280), (65, 64), (1000, 30), (14, 14)])
def test_sizes_are_those_of_transformers(size: tuple[int, int]) -> None:
    ensure_torchvision_importable()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for low, high in ((3136, 200_704), (200_704, 200_704), (100_352, 602_112)):
        spec = QwenFrames(min_pixels=low, max_pixels=high)
        assert spec.size(*size) == smart_resize(*size, min_pixels=low, max_pixels=high)


def test_frames_are_chosen_as_published() -> None:
    # 49 frames at 8 a second, 2 wanted a second: 12.25, which is 12, from the first to the last.
    assert QwenFrames(fps=2).chosen(49) == [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48]
    assert QwenFrames(fps=2).chosen(9) == [0, 3, 5, 8]  # at least four
    assert QwenFrames(fps=2).chosen(3) == [0, 2]
    assert QwenFrames(count=5).chosen(9) == [0, 3, 5, 8]  # 5 / 2 rounds to 2
    assert QwenFrames(count=7).chosen(9) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert QwenFrames(count=6).chosen(3) == [0, 1, 2, 2]
    assert QwenFrames().chosen(9) == [*range(9), 8]
    assert QwenFrames().chosen(1) == [0, 0]


def test_the_gradient_is_right_through_choice_resize_and_cut() -> None:
    spec = QwenFrames(min_pixels=28 * 28, max_pixels=28 * 28, temporal_patch_size=2)
    clip = 0.2 + 0.6 * torch.rand((1, 3, 3, 9, 11), dtype=torch.float64)
    clip.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: spec(x).values.square().sum(), (clip,), fast_mode=True
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(RewardError, match="count is 4 and fps is 2"):
        QwenFrames(count=4, fps=2)
    with pytest.raises(RewardError, match="clip_fps is 0"):
        QwenFrames(clip_fps=0)
    with pytest.raises(RewardError, match="min_pixels is 10 and max_pixels 5"):
        QwenFrames(min_pixels=10, max_pixels=5)
    with pytest.raises(RewardError, match="10x3000"):
        QwenFrames().size(10, 3000)


def test_a_folder_says_how_it_wants_its_clips(tmp_path: Path) -> None:
    vision = {"patch_size": 8, "spatial_merge_size": 4}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision}))
    assert frames_of_folder(tmp_path, {}) == QwenFrames(patch_size=8, merge_size=4)
    size = {"shortest_edge": 64, "longest_edge": 4096}
    said = {"size": size, "image_mean": [0.5] * 3, "image_std": [0.4] * 3}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(said))
    spec = frames_of_folder(tmp_path, {"count": 6, "max_pixels": None})
    assert (spec.min_pixels, spec.max_pixels, spec.count) == (64, 4096, 6)
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.4,) * 3)
