from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from base_model.conditions.preprocessors import (
    PREPROCESSORS,
    canny,
    combine_controls,
    control_clip,
    scribble,
)
from base_model.errors import GeneratorError


def disk(size: int, colour: tuple[float, ...], ground: tuple[float, ...], radius: int) -> Tensor:
    """Three frames of a disk that moves to the right by 2 pixels a frame."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = [(x - size // 2 - 2 * i) ** 2 + (y - size // 2) ** 2 <= radius**2 for i in range(3)]
    mask = torch.stack(inside)[:, None]
    return torch.where(
        mask, torch.tensor(colour)[:, None, None], torch.tensor(ground)[:, None, None]
    )


def distance_to_circle(clip: Tensor, radius: int) -> Tensor:
    """Of every lit pixel from the disk's outline in its frame, in pixels."""
    frame, _, y, x = clip[:, :1].nonzero().T
    middle = clip.shape[-1] // 2
    return ((x - middle - 2 * frame) ** 2 + (y - middle) ** 2).float().sqrt() - radius


@pytest.mark.parametrize(
    ("preprocessor", "widest"), [(canny, 1.5), (scribble, 3.5)], ids=["canny", "scribble"]
)
@pytest.mark.parametrize("ground", [(0.0, 0.0, 0.0), (0.0, 0.51, 0.0)])
def test_the_outline_of_a_disk(
    preprocessor: Callable[[Tensor], Tensor], widest: float, ground: tuple[float, ...]
) -> None:
    """The second ground is as bright as the red disk: 0.299 = 0.587 x 0.51."""
    clip = preprocessor(disk(64, (1.0, 0.0, 0.0), ground, 16))
    assert clip.shape == (3, 3, 64, 64)
    assert clip.dtype == torch.float32
    assert set(clip.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(clip, clip[:, :1].expand_as(clip))
    assert distance_to_circle(clip, 16).abs().max() <= widest
    lit = clip[:, 0].sum(dim=(1, 2))
    assert (lit >= 2 * 3.14 * 16 * 0.8).all()  # a closed line is at least its bounding square's


def test_scribbles_are_thicker_than_edges_and_without_texture() -> None:
    torch.manual_seed(0)
    frames = disk(128, (0.9, 0.9, 0.1), (0.1, 0.1, 0.4), 40)
    noisy = (frames + 0.35 * torch.rand(frames.shape)).clamp(0, 1)
    assert scribble(frames).mean() > 2 * canny(frames).mean()
    far = distance_to_circle(canny(noisy), 40).abs() > 6
    assert far.sum() > 10 * (distance_to_circle(scribble(noisy), 40).abs() > 6).sum()


def test_thresholds_are_levels_of_255() -> None:
    """Sobel's kernels sum to 4, so a step of 26 levels has a gradient of 104."""
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 26 / 255
    assert canny(step).sum() == 0
    assert canny(step, 50, 103).sum() > 0
    assert canny(step, 50, 104).sum() == 0


def test_a_flat_clip_has_no_edges() -> None:
    for kind in ("canny", "scribble"):
        assert control_clip(kind, torch.full((2, 3, 16, 16), 0.4)).abs().sum() == 0


def test_a_prepared_clip_stays_as_it_is() -> None:
    frames = torch.rand(2, 3, 16, 16)
    assert torch.equal(control_clip("video", frames), frames)


def test_the_brightest_of_several_controls() -> None:
    clips = torch.rand(3, 2, 3, 8, 8)
    combined = combine_controls(list(clips))
    assert torch.equal(combined, torch.maximum(torch.maximum(clips[0], clips[1]), clips[2]))
    assert torch.equal(combine_controls([clips[0]]), clips[0])


@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_depth_and_pose_take_a_prepared_video(kind: str) -> None:
    with pytest.raises(
        GeneratorError, match=f"Prepare the {kind} video .* with control kind 'video'"
    ):
        control_clip(kind, torch.rand(1, 3, 16, 16))


def test_an_unknown_control_is_told_what_there_is() -> None:
    with pytest.raises(GeneratorError, match="Unknown control 'cany'; allowed: canny, scribble"):
        control_clip("cany", torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 1, 16, 16), (1, 2, 3, 16, 16), (0, 3, 16, 16)])
@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(GeneratorError, match=r"shape \(frames, 3, height, width\), got"):
        control_clip(kind, torch.zeros(shape))


def test_clips_of_two_sizes_are_not_combined() -> None:
    clips = [torch.zeros(9, 3, 16, 16), torch.zeros(5, 3, 16, 16)]
    with pytest.raises(GeneratorError, match="clip 1 has 5 frames of 16 x 16, the first one 9"):
        combine_controls(clips)
    with pytest.raises(GeneratorError, match="at least one"):
        combine_controls([])


def test_thresholds_in_order() -> None:
    with pytest.raises(GeneratorError, match="thresholds are 200 and 100"):
        canny(torch.zeros(1, 3, 8, 8), 200, 100)
