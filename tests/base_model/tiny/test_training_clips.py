"""Batches come from their generator; lessons show what they are meant to teach."""

import random

import pytest
import torch

from base_model.tiny.oracle import centres, soft_mask
from base_model.tiny.scenes import FRAMES, SIDE
from base_model.tiny.training_clips import (
    ENCODED_AT_ONCE,
    LESSONS,
    clip_batch,
    draw_central_shapes,
    draw_still_shapes,
    image_batch,
)


def test_batches_come_from_their_generator() -> None:
    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    images, clips = image_batch(generator(0)), clip_batch(generator(0))
    assert images.shape == (8, 1, 3, 64, 64)
    assert clips.shape == (4, 9, 3, 64, 64)
    assert torch.equal(images, image_batch(generator(0)))
    assert torch.equal(clips, clip_batch(generator(0)))
    assert not torch.equal(images, image_batch(generator(1)))
    # Two frames each of four clips: their backgrounds agree pairwise in the corner.
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize(("draw", "spread"), [(draw_still_shapes, 1.0), (draw_central_shapes, 4.0)])
def test_shapes_of_a_lesson_are_in_the_middle_at_half_time(draw: object, spread: float) -> None:
    scenes, clips = draw(random.Random(0))  # type: ignore[operator]
    assert clips.shape == (ENCODED_AT_ONCE, FRAMES, 3, SIDE, SIDE)
    assert {scene.split for scene in scenes} == {"train"}
    middles = torch.stack([centres(soft_mask(clip))[FRAMES // 2] for clip in clips[:20]])
    away = (middles - SIDE / 2).abs()
    assert float(away.max()) < spread + 0.7  # the oracle's own error
    assert float(away.max()) > spread / 2
    kinds = {(scene.size, scene.motion) for scene in scenes}
    assert (kinds == {("large", "still")}) == (draw is draw_still_shapes)


def test_lessons_end_before_their_stages() -> None:
    assert {name: lesson.steps.stop for name, lesson in LESSONS.items()} == {
        "transformer": 4000,
        "transformer-shapes": 1500,
    }
