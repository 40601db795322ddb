from collections import Counter
from typing import Any

import pytest

from reward_tuning.finetune.batches import BatchOrder, BatchSizes, ClipBatch
from reward_tuning.finetune.metadata import ClipKind
from reward_tuning.finetune.video_files import ClipInfo

Clips = list[tuple[ClipKind, ClipInfo]]
CLIPS: Clips = [
    *[("video", ClipInfo(200, 720, 1280)) for _ in range(7)],
    *[("video", ClipInfo(60, 1280, 720)) for _ in range(3)],
    *[("video", ClipInfo(30, 1000, 1000)) for _ in range(2)],
    *[("image", ClipInfo(1, 800, 800)) for _ in range(5)],
]


def order(clips: Clips = CLIPS, batch_size: int = 2, seed: int = 0, **sizes: Any) -> BatchOrder:
    values = {"sides": (512,), "image_sides": (1024,), "stride": 3, **sizes}
    return BatchOrder(clips, batch_size, BatchSizes(**values), seed)


def epochs(of: BatchOrder, count: int = 1) -> list[ClipBatch]:
    return [of(number) for number in range(count * of.epoch)]


def test_every_clip_comes_in_every_epoch() -> None:
    one = order()
    assert one.epoch == 4 + 2 + 1 + 3  # groups of 7, 3, 2 and 5 in batches of 2
    for first in (0, one.epoch):
        seen = Counter(c for number in range(first, first + one.epoch) for c in one(number).clips)
        assert set(seen) == set(range(len(CLIPS)))
        assert sorted(seen.values()) == [1] * 14 + [2] * 3  # the odd groups fill their last batch


def test_a_batch_has_one_kind_and_one_aspect_ratio() -> None:
    for batch in epochs(order(), 3):
        of = {(CLIPS[i][0], CLIPS[i][1].height, CLIPS[i][1].width) for i in batch.clips}
        assert len(of) == 1
        kind, height, width = of.pop()
        assert (batch.frames == 1) == (kind == "image")
        assert (batch.height > batch.width) == (height > width)
        assert batch.height % 16 == batch.width % 16 == 0


def test_a_batch_is_a_function_of_seed_and_position() -> None:
    expected = epochs(order(), 2)
    again = order()
    assert [again(number) for number in reversed(range(len(expected)))] == expected[::-1]
    assert epochs(order(seed=1), 2) != expected
    first, second = expected[: len(expected) // 2], expected[len(expected) // 2 :]
    assert [b.clips for b in first] != [b.clips for b in second]


def test_parts_lie_inside_their_clips() -> None:
    starts = set()
    for batch in epochs(order(), 20):
        for place, start in zip(batch.clips, batch.starts, strict=True):
            last = start + (batch.frames - 1) * (3 if batch.frames > 1 else 1)
            assert 0 <= start <= last < CLIPS[place][1].frames
            starts.add(start)
    assert len(starts) > 30  # of 56 that a clip of 200 has: the part is drawn


@pytest.mark.parametrize(
    ("there", "stride", "expected"), [(30, 3, 9), (200, 3, 49), (13, 3, 5), (60, 1, 49)]
)
def test_short_clips_are_taken_as_long_as_they_are(there: int, stride: int, expected: int) -> None:
    one = order([("video", ClipInfo(there, 512, 512))], 1, stride=stride)
    assert one(0).frames == expected  # the largest 4k + 1 of (there - 1) // stride + 1


def test_a_video_of_less_than_five_frames_is_a_picture() -> None:
    one = order([("video", ClipInfo(12, 512, 512)), ("image", ClipInfo(1, 512, 512))], 2)
    assert one.epoch == 1
    assert one(0).frames == 1


@pytest.mark.parametrize(("side", "report", "code"), [(512, 49, 49), (768, 21, 21), (1024, 9, 13)])
def test_the_budget_makes_large_clips_shorter(side: int, report: int, code: int) -> None:
    clips: Clips = [("video", ClipInfo(400, 2000, 2000))]
    for rule, frames in (("report", report), ("code", code)):
        batch = order(clips, 1, sides=(side,), tokens=13312, frame_rule=rule)(0)
        assert (batch.frames, batch.height, batch.width) == (frames, side, side)


def test_lengths_are_drawn_one_time_in_ten() -> None:
    clips: Clips = [("video", ClipInfo(400, 512, 512))]
    one = order(clips, 1, draw_frames=True)
    found = Counter(one(number).frames for number in range(2000))
    assert set(found) == set(range(5, 50, 4))
    assert found[49] / 2000 == pytest.approx(0.9, abs=0.02)
    assert min(found.values()) > 5


def test_sides_are_drawn_and_adapt_to_small_clips() -> None:
    sides = (256, 384, 512, 640)
    clips: Clips = [("video", ClipInfo(400, 400, 400))]
    drawn = Counter(order(clips, 1, sides=sides)(n).height for n in range(400))
    assert set(drawn) == set(sides)
    assert min(drawn.values()) > 60
    adapted = {order(clips, 1, sides=sides, adapt=True)(n).height for n in range(200)}
    assert adapted == {256, 384}  # 400 * 1.25 = 500
    tiny: Clips = [("video", ClipInfo(400, 64, 64))]
    assert order(tiny, 1, sides=sides, adapt=True)(0).height == 256


@pytest.mark.parametrize(
    ("frames", "side", "copies"),
    [(49, 512, 1), (13, 512, 1), (9, 512, 2), (17, 256, 2), (9, 256, 4), (5, 256, 4)],
)
def test_small_batches_are_repeated(frames: int, side: int, copies: int) -> None:
    """Of 13312 tokens a quarter is 3328 and a sixteenth 832; a latent frame has (side/16)^2."""
    clips: Clips = [("video", ClipInfo(400, 512, 512))]
    batch = order(clips, 1, sides=(side,), frames=frames, tokens=13312)(0)
    assert batch.frames == frames
    assert batch.copies == copies
    assert order(clips, 1, sides=(side,), frames=frames)(0).copies == 1
