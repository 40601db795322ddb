"""What a judge sees in training: augmented, or the worst nearby."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reward_tuning.judges.augmentation import Augmentation, worst_nearby


def frames(clips: int = 4, count: int = 3, side: int = 16) -> Tensor:
    """Smooth pictures, different in every clip, frame and colour."""
    draw = torch.Generator().manual_seed(1)
    small = torch.rand(clips, count * 3, 4, 4, generator=draw, dtype=torch.float64)
    large = torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic")
    return large.clamp(0, 1).view(clips, count, 3, side, side)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(augmentation: Augmentation, shown: Tensor, first: int = 0) -> Tensor:
    """Change clips, drawn from the seeds `first`, `first + 1` and so on."""
    return augmentation(shown, [seeded(first + clip) for clip in range(len(shown))])


def test_nothing_is_changed_by_nothing() -> None:
    shown = frames()
    assert torch.equal(drawn(Augmentation(), shown), shown)


def test_a_flip_mirrors_whole_clips() -> None:
    shown = frames(40)
    seen = drawn(Augmentation(flip=True), shown)
    as_it_was = torch.tensor([torch.allclose(a, b) for a, b in zip(seen, shown, strict=True)])
    mirrored = torch.tensor(
        [torch.allclose(a, b.flip(-1)) for a, b in zip(seen, shown, strict=True)]
    )
    assert bool((as_it_was ^ mirrored).all())
    assert 8 <= int(mirrored.sum()) <= 32


def test_a_crop_shows_a_part_enlarged() -> None:
    """On a picture that is its own coordinates, the crop's place and size can be read back."""
    place = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    x = place.expand(32, 32)
    shown = torch.stack([x, x.T, x]).expand(50, 2, 3, 32, 32)
    seen = drawn(Augmentation(crop=0.4), shown)
    for axis, channel in ((-1, 0), (-2, 1)):
        slopes = seen[:, 0, channel].diff(dim=axis)[:, 8:-8, 8:-8] * 32
        kept = slopes.flatten(1).mean(dim=1)
        assert float(kept.min()) < 0.65
        assert float(kept.max()) > 0.95
        assert float(kept.min()) >= 0.6 - 1e-6
        assert float(slopes.flatten(1).std(dim=1).max()) < 1e-6  # straight and even
    left = seen[:, 0, 0, 16, 1]
    assert float(left.std()) > 0.02  # not always the same corner
    assert torch.equal(seen[:, 0], seen[:, 1])  # every frame of a clip alike


def test_noise_is_bounded_and_drawn() -> None:
    shown = torch.full((200, 1, 3, 8, 8), 0.5)
    seen = drawn(Augmentation(noise=0.1), shown)
    deviations = (seen - shown).flatten(1).std(dim=1)
    assert float(deviations.max()) < 0.125  # 0.1, and the spread of 192 draws
    assert float(deviations.mean()) == pytest.approx(0.05, abs=0.01)
    assert torch.equal(seen, drawn(Augmentation(noise=0.1), shown))
    assert not torch.equal(seen, drawn(Augmentation(noise=0.1), shown, 1))


def test_a_clip_is_changed_alike_in_any_batch() -> None:
    """One process with four clips and two with two train on the same frames."""
    every = Augmentation(crop=0.4, flip=True, noise=0.05)
    shown = frames(4)
    halves = [drawn(every, shown[:2]), drawn(every, shown[2:], 2)]
    assert torch.equal(torch.cat(halves), drawn(every, shown))


def test_augmentation_is_differentiable() -> None:
    shown = (0.2 + 0.6 * frames(2, 1, 8)).requires_grad_()
    torch.autograd.gradcheck(
        lambda x: drawn(Augmentation(crop=0.3, flip=True, noise=0.01), x, 2), (shown,)
    )


def test_the_worst_nearby_lies_at_its_radius_and_scores_less() -> None:
    shown = 0.3 + 0.4 * frames(3)
    target = frames(3).flip(0)

    def score(x: Tensor) -> Tensor:
        return -(x - target).square().flatten(1).sum(dim=1)

    moved = worst_nearby(score, shown, 0.02)
    size = (moved - shown).square().flatten(1).mean(dim=1).sqrt()
    torch.testing.assert_close(size, torch.full((3,), 0.02, dtype=torch.float64))
    assert bool((score(moved) < score(shown)).all())
    draw = seeded(3)
    for _ in range(20):  # no other direction of this length is worse
        other = torch.randn(shown.shape, generator=draw, dtype=torch.float64)
        other = 0.02 * other / other.square().flatten(1).mean(dim=1).sqrt().view(-1, 1, 1, 1, 1)
        assert bool((score(shown + other) > score(moved)).all())


def test_gradient_goes_through_as_if_nothing_had_moved() -> None:
    shown = (0.3 + 0.4 * frames(2)).requires_grad_()

    def score(x: Tensor) -> Tensor:
        return (x**3).flatten(1).sum(dim=1)

    moved = worst_nearby(score, shown, 0.05)
    (gradient,) = torch.autograd.grad(score(moved).sum(), shown)
    torch.testing.assert_close(gradient, 3 * moved.detach() ** 2)
    flat = worst_nearby(lambda x: 0.0 * x.flatten(1).sum(dim=1), shown, 0.05)
    assert torch.equal(flat, shown)  # nowhere is worse, so nowhere is gone
