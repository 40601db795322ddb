"""Frames prepared as other people's scripts do: torchvision's own transforms, called here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import RewardError, load_reward
from rewards.core.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.kinds.aesthetic import AestheticReward
from rewards.kinds.consistency import Consistency, load_consistency
from rewards.kinds.hps import HpsReward
from rewards.kinds.mps import MpsReward
from tests.rewards.core.test_preprocess import picture, tensor
from tests.rewards.kinds.test_aesthetic import files
from tests.rewards.tiny_clip import ARCHITECTURE, PROMPTS, flat_file, hps_file, random_state
from tests.rewards.tiny_cross import MPS, mps_state

SIZE = 32
SIZES = [(32, 32), (45, 80), (97, 41), (20, 24)]


def scripts_transform() -> Callable[[Tensor], Tensor]:
    """What EasyAnimate's and VideoX-Fun's ``HPSReward`` and its like hand each frame to."""
    ensure_torchvision_importable()
    from torchvision import transforms

    composed: Callable[[Tensor], Tensor] = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.Normalize(mean=OPENAI_MEAN, std=OPENAI_STD),
        ]
    )
    return composed


def vbench_transform() -> Callable[[Tensor], Tensor]:
    """VBench's ``clip_transform``, for frames that hold whole numbers as floats."""
    ensure_torchvision_importable()
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    composed: Callable[[Tensor], Tensor] = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=bicubic, antialias=False),
            transforms.CenterCrop(SIZE),
            transforms.Lambda(lambda x: x.float().div(255.0)),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    return composed


def shown(height: int, width: int) -> Tensor:
    """Two frames with hard edges, where resizes differ: ``(2, 3, H, W)`` in [0, 1]."""
    return torch.cat([tensor(picture(height, width, seed)) for seed in range(2)])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_squash_is_that_of_the_scripts(height: int, width: int) -> None:
    frames = shown(height, width)
    expected = torch.stack([scripts_transform()(frame) for frame in frames])
    for own in (
        Preprocess("letterbox", SIZE, clamped=False),
        Preprocess("crop", SIZE, quantised=True),
        Preprocess("crop", SIZE, rounding="floor", quantised=True, shortest=40),
    ):
        torch.testing.assert_close(own.squashed()(frames), expected, atol=2e-6, rtol=1e-6)
        if height != width:
            assert float((own(frames) - expected).abs().max()) > 0.5


@pytest.fixture
def frames() -> Tensor:
    """One clip that is wider than high."""
    return shown(45, 80)[None]


def ready(frames: Tensor) -> Tensor:
    return torch.stack([scripts_transform()(frame) for frame in frames.flatten(0, 1)])


def test_hps_on_squashed_frames(tmp_path: Path, frames: Tensor) -> None:
    path = hps_file(tmp_path, random_state(ARCHITECTURE))
    judge = load_reward("hps", path, architecture=ARCHITECTURE, preprocess="squash")
    assert isinstance(judge, HpsReward)
    with torch.no_grad():
        image = F.normalize(judge.tower.model.encode_image(ready(frames)), dim=-1)
        text = judge.tower.text_features(PROMPTS[:1])
        expected = (image @ text.T).mean()
        torch.testing.assert_close(judge(frames, PROMPTS[:1])[0], expected, atol=1e-6, rtol=1e-5)
        own = load_reward("hps", path, architecture=ARCHITECTURE)
        assert abs(float(own(frames, PROMPTS[:1]) - expected)) > 1e-3


def test_aesthetic_on_squashed_frames(tmp_path: Path, frames: Tensor) -> None:
    tower, head, _ = files(tmp_path)
    options: dict[str, Any] = {"tower": tower, "architecture": ARCHITECTURE}
    judge = load_reward("aesthetic", head, preprocess="squash", **options)
    assert isinstance(judge, AestheticReward)
    with torch.no_grad():
        features = F.normalize(judge.tower.model.encode_image(ready(frames)), dim=-1)
        expected = judge.head(features).mean()
        torch.testing.assert_close(judge(frames, ["-"])[0], expected, atol=1e-6, rtol=1e-5)


def test_mps_on_squashed_frames(tmp_path: Path, frames: Tensor) -> None:
    path = tmp_path / "mps.pt"
    torch.save(mps_state(), path)
    judge = load_reward("mps", path, architecture=MPS, preprocess="squash")
    assert isinstance(judge, MpsReward)
    judge_of_ready = load_reward("mps", path, architecture=MPS)
    assert isinstance(judge_of_ready, MpsReward)
    judge_of_ready.preprocess = Preprocess("crop", SIZE, (0.0,) * 3, (1.0,) * 3, clamped=False)
    with torch.no_grad():
        condition = judge.condition(PROMPTS[:1]).expand(2, -1, -1)
        expected = judge_of_ready.score_images(ready(frames), condition).mean()
        torch.testing.assert_close(judge(frames, PROMPTS[:1])[0], expected, atol=1e-5, rtol=1e-5)


def test_a_recipe_may_squash_the_embedded_judge(frames: Tensor) -> None:
    own = load_reward("hps", "tiny/hps.safetensors")
    squashed = load_reward("hps", "tiny/hps.safetensors", preprocess="squash")
    assert abs(float((own(frames, ["a star"]) - squashed(frames, ["a star"])).detach())) > 1e-3
    with pytest.raises(RewardError, match=r"preprocess is 'crop'; allowed: own, squash"):
        load_reward("hps", "tiny/hps.safetensors", preprocess="crop")
    with pytest.raises(RewardError, match=r"preprocess is 'squash'; allowed: own, vbench"):
        load_reward("consistency", "tiny/clip.safetensors", preprocess="squash")


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_vbench_prepares_frames_without_antialiasing(
    tmp_path: Path, height: int, width: int
) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    options: dict[str, Any] = {"architecture": ARCHITECTURE}
    judge = load_consistency(path, TowerOptions(), preprocess="vbench", **options)
    frames = shown(height, width)
    bytes_ = (frames * 255).round()
    expected = vbench_transform()(bytes_)
    found = judge.tower.preprocess(frames)
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=1e-5)
    own = load_consistency(path, TowerOptions(), **options)
    if (height, width) == (97, 41):  # three times smaller: what is averaged here is dropped there
        assert float((own.tower.preprocess(frames) - expected).abs().mean()) > 0.15  # 0.196


def test_consistency_as_vbench_measures_it(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    options: dict[str, Any] = {"architecture": ARCHITECTURE}
    judge = load_consistency(path, TowerOptions(), preprocess="vbench", **options)
    assert isinstance(judge, Consistency)
    clip = torch.cat([shown(97, 41), shown(97, 41).flip(-1)])
    with torch.no_grad():
        features = F.normalize(
            judge.tower.model.encode_image(vbench_transform()((clip * 255).round())), dim=-1, p=2
        )
        total = 0.0
        for i in range(1, 4):
            before = max(0.0, float(F.cosine_similarity(features[i - 1], features[i], dim=0)))
            first = max(0.0, float(F.cosine_similarity(features[0], features[i], dim=0)))
            total += (before + first) / 2
        assert float(judge(clip[None], ["-"])) == pytest.approx(total / 3, abs=2e-6)
