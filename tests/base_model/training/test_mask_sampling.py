from collections import Counter

import pytest
import torch

from base_model.training.mask_sampling import (
    CLIP_MASKS,
    CLIP_PROBABILITIES,
    PICTURE_MASKS,
    draw_kept_noise,
    draw_mask,
    draw_mask_kind,
    draw_masks,
)

SIZE = (9, 32, 48)
PUBLISHED = [0.05, 0.2, 0.2, 0.2, 0.05, 0.05, 0.05, 0.1, 0.05, 0.05]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def many(kind: str, count: int = 200, size: tuple[int, int, int] = SIZE) -> list[torch.Tensor]:
    generator = seeded(1)
    return [draw_mask(kind, size, generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (9, dict(zip(CLIP_MASKS, PUBLISHED, strict=True))),
        (1, {"block": 0.2, "all": 0.8}),
    ],
)
def test_kinds_have_the_published_probabilities(frames: int, expected: dict[str, float]) -> None:
    generator = seeded()
    count = 4000
    found = Counter(draw_mask_kind(frames, generator) for _ in range(count))
    assert {kind: found[kind] / count for kind in expected} == pytest.approx(expected, abs=0.02)
    assert sum(CLIP_PROBABILITIES) == pytest.approx(1)


@pytest.mark.parametrize("kind", CLIP_MASKS)
def test_a_mask_is_binary_and_of_the_clips_size(kind: str) -> None:
    for mask in many(kind, 30):
        assert mask.shape == (9, 1, 32, 48)
        assert mask.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])


def test_all_generates_everything() -> None:
    assert draw_mask("all", SIZE, seeded()).min() == 1


def test_after_start_keeps_one_to_four_frames() -> None:
    kept = Counter(int((mask.flatten(1).amax(1) == 0).sum()) for mask in many("after_start"))
    assert set(kept) == {1, 2, 3, 4}
    assert min(kept.values()) > 25
    for mask in many("after_start", 20):
        per_frame = mask.flatten(1).mean(1)
        assert per_frame.tolist() == sorted(per_frame.tolist())


@pytest.mark.parametrize("frames", [5, 9, 49])
def test_between_ends_keeps_as_many_at_both_ends(frames: int) -> None:
    counts = Counter()
    for mask in many("between_ends", 100, (frames, 16, 16)):
        per_frame = mask.flatten(1).mean(1).tolist()
        assert per_frame == per_frame[::-1]
        assert sum(per_frame) >= 1  # something is left to be made, in a clip of 5, too
        counts[per_frame.index(1.0)] += 1
    assert set(counts) == ({1, 2} if frames == 5 else {1, 2, 3, 4})


@pytest.mark.parametrize("kind", ["block", "block_in_time"])
def test_blocks_are_rectangles_of_up_to_three_quarters(kind: str) -> None:
    for mask in many(kind):
        some = mask.amax(0)[0]
        if some.max() == 0:
            continue  # a block at the very corner
        rows, columns = some.amax(1).nonzero(), some.amax(0).nonzero()
        assert some[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].min() == 1
        assert len(rows) <= 24
        assert len(columns) <= 36
        if kind == "block":
            assert torch.equal(mask[0], mask[-1])


def test_block_in_time_spans_the_middle() -> None:
    for mask in many("block_in_time"):
        frames = mask.flatten(1).amax(1).nonzero().flatten().tolist()
        assert frames == list(range(frames[0], frames[-1] + 1)) if frames else True
        assert mask[-1].max() == 0  # the published span ends before its last frame


def test_pixels_are_random_in_place_and_time() -> None:
    mask = draw_mask("pixels", SIZE, seeded())
    assert mask.mean().item() == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(mask[0], mask[1])


def test_frame_blocks_are_small_and_in_at_most_half_the_frames() -> None:
    counts = set()
    for mask in many("frame_blocks"):
        counts.add(int((mask.flatten(1).amax(1) > 0).sum()))
        assert mask.flatten(1).sum(1).max() <= 8 * 12
    assert counts == {1, 2, 3, 4}


def test_circles_and_ellipses_have_the_area_of_their_radii() -> None:
    """Inside the picture the area is pi a b; the largest radius is a quarter of the short side."""
    areas = {kind: max(int(m[0].sum()) for m in many(kind)) for kind in ("circle", "ellipse")}
    assert areas["circle"] == 197  # lattice points within 8 of the origin (Gauss's circle problem)
    assert areas["ellipse"] == 197
    oblong = 0
    for mask in many("ellipse"):
        h, w = len(mask[0, 0].amax(1).nonzero()), len(mask[0, 0].amax(0).nonzero())
        oblong += h != w
    assert oblong > 50


def test_frames_are_generated_or_kept_whole() -> None:
    masks = torch.stack(many("frames"))
    per_frame = masks.flatten(2).mean(2)
    assert set(per_frame.unique().tolist()) == {0.0, 1.0}
    assert per_frame.mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_picture_has_no_mask_in_time() -> None:
    for kind in set(CLIP_MASKS) - set(PICTURE_MASKS) - {"pixels", "ellipse", "circle"}:
        with pytest.raises(ValueError, match="1 frames"):
            draw_mask(kind, (1, 16, 16), seeded())
    assert draw_masks(5, (1, 16, 16), seeded()).shape == (5, 1, 1, 16, 16)


def test_other_probabilities() -> None:
    only = [0.0] * 3 + [1.0] + [0.0] * 6
    masks = draw_masks(20, SIZE, seeded(), only)
    assert masks[:, 0].max() == 0
    assert masks[:, -1].max() == 0
    assert masks[:, 4].min() == 1


def test_the_kept_pixels_noise_is_log_normal() -> None:
    noise = draw_kept_noise(300, (1, 8, 8), seeded())
    logarithms = noise.flatten(1).std(dim=1).log()
    assert logarithms.mean().item() == pytest.approx(-3.0, abs=0.1)
    assert logarithms.std().item() == pytest.approx(0.5, abs=0.06)
