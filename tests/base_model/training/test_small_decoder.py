"""Lessons of a small decoder: the true gradient, and the loss of a student."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.files.shipped import WEIGHTS
from base_model.loading.checkpoint import load_vae
from base_model.networks import magvit
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig
from base_model.training import small_decoder
from base_model.training.small_decoder import distillation_loss, lesson

PAST = 2


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_vae(WEIGHTS / "tiny")


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_lesson_is_autograd_through_the_whole_clip(vae: Any, latents: Tensor, i: int) -> None:
    first, end = max(4 * i - 3, 0), 4 * i + 1
    draw = torch.Generator().manual_seed(i)
    asked: list[int] = []

    def cotangent(frames: Tensor, position: int) -> Tensor:
        asked.append(position)
        return torch.randn(frames.shape, generator=draw)

    rows = lesson(vae, latents, i, cotangent, past=PAST)
    assert asked == [first]
    x = latents.clone().requires_grad_()
    whole = magvit.decode(vae, x, checkpointing=False)[:, first:end]
    own = end - first
    torch.testing.assert_close(rows["frames"][:, -own:].float(), whole, rtol=0, atol=5e-4)
    (expected,) = torch.autograd.grad((whole * rows["cotangent"][:, -own:].float()).sum(), x)
    torch.testing.assert_close(rows["gradient"][:, 1], expected[:, :, i], rtol=1e-3, atol=1e-5)
    before = expected[:, :, max(i - 1, 0)]
    torch.testing.assert_close(rows["gradient"][:, 0], before, rtol=1e-3, atol=1e-5)
    assert torch.equal(
        rows["group"], latents[:, :, [max(i - 2, 0), max(i - 1, 0), i]].transpose(1, 2)
    )
    assert rows["first"].tolist() == [int(i == 0)] * 2
    assert rows["frames"].shape == rows["cotangent"].shape == (2, 4, 3, 16, 16)


class Linear(torch.nn.Module):
    """A student whose frames and gradient are known: the mean of each latent, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, groups: Tensor) -> Tensor:
        value = self.factor * groups[:, -1].mean((1, 2, 3))
        return value[:, None, None, None, None].expand(-1, 4, 3, 16, 16)


def taught(factor: float) -> dict[str, Tensor]:
    """Return lessons of a teacher like `Linear`: latents of two clips, one too bright."""
    groups = torch.full((2, 3, 16, 2, 2), 0.5)
    groups[1] = 4.0
    raw = factor * groups[:, -1].mean((1, 2, 3))
    weights = torch.ones(2, 4, 3, 16, 16)
    gradient = torch.zeros(2, 2, 16, 2, 2)
    gradient[0, 1] = factor * 4 * 3 * 256 / 64  # of the second clip every pixel is clamped
    return {
        "group": groups,
        "frames": raw.clamp(0, 1)[:, None, None, None, None].expand(-1, 4, 3, 16, 16),
        "cotangent": weights,
        "gradient": gradient,
        "first": torch.zeros(2, dtype=torch.int64),
    }


def test_a_perfect_student_has_no_loss() -> None:
    student: Any = Linear(0.6)
    loss, numbers = distillation_loss(student, taught(0.6))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert numbers["psnr"] == pytest.approx(100.0)
    assert numbers["cosine"] == pytest.approx(0.5)  # 1, and 0 for a gradient of zeros


def test_the_loss_of_a_student_that_is_half_right() -> None:
    student: Any = Linear(0.3)
    loss, numbers = distillation_loss(student, taught(0.6))
    # frames: 0.15 instead of 0.3; 1.2 instead of 1, which is beyond the clamp too: no error
    squared, absolute = 0.15**2 / 2, 0.15 / 2
    relative = 0.5**2 / 2  # of the gradients: half as long, and both 0
    expected = (
        small_decoder.FRAMES_WEIGHT * squared + absolute + small_decoder.GRADIENT_WEIGHT * relative
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert numbers["psnr"] == pytest.approx(-10 * math.log10(squared), rel=1e-4)


def test_of_a_first_latent_only_the_last_frame_counts() -> None:
    rows = taught(0.6)
    rows["first"] = torch.ones(2, dtype=torch.int64)
    rows["frames"] = rows["frames"].clone()
    rows["frames"][:, :3] = 0.0
    rows["cotangent"] = rows["cotangent"].clone()
    rows["cotangent"][:, :3] = 0.0
    rows["gradient"] = rows["gradient"] / 4
    student: Any = Linear(0.6)
    assert distillation_loss(student, rows)[0].item() == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_term_trains_the_student(vae: Any, latents: Tensor) -> None:
    rows = lesson(vae, latents, 1, lambda frames, _: torch.ones_like(frames), past=PAST)
    torch.manual_seed(0)
    student = SmallDecoder(SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1)))
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-3)
    cosines = []
    for _ in range(25):
        loss, numbers = distillation_loss(student, rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cosines.append(numbers["cosine"])
    assert cosines[0] < 0.4
    assert cosines[-1] > 0.8
