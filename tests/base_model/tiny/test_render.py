import colorsys
import math
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from base_model.tiny.render import (
    DIRECTIONS,
    EDGE,
    HUES,
    RADII,
    Staging,
    background_pattern,
    draw_staging,
    hue_to_rgb,
    pixel_grid,
    render,
    render_staged,
    shape_coverage,
    shape_distance,
)
from base_model.tiny.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, scenes

SCENE = Scene("red", "circle", "dark", "medium", "still")
PLAIN = Staging(
    radius=9.0,
    centre=(32.0, 32.0),
    velocity=(0.0, 0.0),
    angle=0.0,
    hue_shift=0.0,
    saturation=1.0,
    brightness=1.0,
    tone=0.0,
    contrast=0.15,
    phase=(0.0, 0.0),
    pebbles=(),
)
"""Pure red before black: the red channel is the coverage."""


def coverage(shape: str, x: float, y: float, radius: float) -> Tensor:
    row, column = pixel_grid()
    return shape_coverage(shape, column - x, row - y, radius)


def centre(cover: Tensor) -> tuple[float, float]:
    """Centre of mass of (64, 64) in pixels, x and y."""
    row, column = pixel_grid()
    mass = cover.sum()
    return ((cover * column).sum() / mass).item(), ((cover * row).sum() / mass).item()


def chroma(frames: Tensor) -> Tensor:
    return frames.amax(dim=-3) - frames.amin(dim=-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", RADII.values())
def test_shapes_of_one_size_have_one_area(shape: str, radius: float) -> None:
    # Off the grid; the worst is the small star, whose notches the wide ramp fills.
    area = coverage(shape, 32.3, 31.8, radius).sum().item()
    assert area == pytest.approx(math.pi * radius**2, rel=0.05)


def test_sizes_are_apart_whatever_the_draw() -> None:
    drawn: dict[str, list[float]] = {size: [] for size in RADII}
    for i in range(100):
        for size, radii in drawn.items():
            radii.append(draw_staging(replace(SCENE, size=size), random.Random(i)).radius)
    for size, radii in drawn.items():
        assert RADII[size] * 0.94 <= min(radii) < max(radii) <= RADII[size] * 1.06
    assert max(drawn["small"]) < min(drawn["medium"])
    assert max(drawn["medium"]) < min(drawn["large"])


def test_circle_and_square_distances_in_closed_form() -> None:
    x = torch.tensor([0.0, 3.0, -6.0, 10.0, 0.0])
    y = torch.tensor([0.0, 4.0, 8.0, 0.0, -2.0])
    circle = shape_distance("circle", x, y, 7.0)
    torch.testing.assert_close(
        circle, torch.tensor([-7.0, -2.0, 3.0, 3.0, -5.0]), atol=1e-4, rtol=0
    )
    # A square of the area pi r^2 has the half side r sqrt(pi) / 2; here 5.
    square = shape_distance("square", x, y, 10.0 / math.sqrt(math.pi))
    torch.testing.assert_close(
        square, torch.tensor([-5.0, -1.0, 3.0, 5.0, -3.0]), atol=1e-5, rtol=0
    )


def test_triangle_stands_on_its_base() -> None:
    side = 12.0
    radius = math.sqrt(side**2 * math.sqrt(3) / 4 / math.pi)
    height = side * math.sqrt(3) / 2
    # Apex, both base corners, middle of the base, centroid; y points down.
    x = torch.tensor([0.0, side / 2, -side / 2, 0.0, 0.0])
    y = torch.tensor([-2 * height / 3, height / 3, height / 3, height / 3, 0.0])
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, -height / 3])
    torch.testing.assert_close(
        shape_distance("triangle", x, y, radius), expected, atol=1e-5, rtol=0
    )


def test_star_has_five_tips_and_five_notches() -> None:
    # Ten triangles between tip (R) and notch (R / 2), 36 degrees apart: 5/2 R^2 sin 36.
    outer = 10.0
    radius = math.sqrt(2.5 * outer**2 * math.sin(math.pi / 5) / math.pi)
    turns = torch.arange(10) * (math.pi / 5)
    length = torch.tensor([outer, outer / 2]).repeat(5)  # the first tip points up
    x, y = length * torch.sin(turns), -length * torch.cos(turns)
    torch.testing.assert_close(
        shape_distance("star", x, y, radius), torch.zeros(10), atol=1e-4, rtol=0
    )
    assert (shape_distance("star", 0.9 * x, 0.9 * y, radius) < 0).all()
    assert (shape_distance("star", 1.1 * x, 1.1 * y, radius) > 0).all()


def test_an_unknown_shape_is_told() -> None:
    with pytest.raises(ValueError, match="unknown shape 'heptagon'"):
        shape_distance("heptagon", torch.zeros(1), torch.zeros(1), 5.0)


@pytest.mark.parametrize("shift", [0.2, 0.25, 0.4])
def test_an_edge_moves_by_parts_of_a_pixel(shift: float) -> None:
    """Through the middle row of a square: the covered length grows by what its edges moved."""
    half = 5.0
    radius, grown = (2 * h / math.sqrt(math.pi) for h in (half, half + shift))
    before, after = (coverage("square", 32.0, 32.0, r)[32] for r in (radius, grown))
    assert before.sum().item() == pytest.approx(2 * half, abs=1e-4)
    # A ramp of 1.5 pixels read once a pixel is up to 1/12 off an edge.
    assert after.sum().item() == pytest.approx(2 * (half + shift), abs=1 / 6 + 1e-4)
    # The pixel centres beside the edge at 37 lie 0.5 off it: 0.5 -+ 0.5 / EDGE.
    assert before[36].item() == pytest.approx(0.5 + 0.5 / EDGE, abs=1e-4)
    assert before[37].item() == pytest.approx(0.5 - 0.5 / EDGE, abs=1e-4)
    assert after[37].item() == pytest.approx(0.5 - (0.5 - shift) / EDGE, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_moves_by_parts_of_a_pixel(shape: str) -> None:
    x0, y0 = centre(coverage(shape, 32.0, 32.0, 9.0))
    x1, y1 = centre(coverage(shape, 32.3, 31.8, 9.0))
    assert (x1 - x0, y1 - y0) == pytest.approx((0.3, -0.2), abs=0.1)


def test_hues_are_those_of_the_standard_library() -> None:
    for hue in (*HUES.values(), 17.0, 352.0):
        expected = colorsys.hsv_to_rgb(hue / 360.0, 0.8, 0.9)
        assert hue_to_rgb(hue, 0.8, 0.9).tolist() == pytest.approx(expected, abs=1e-6)
    # Shifts go below 0, too.
    torch.testing.assert_close(hue_to_rgb(-8.0, 0.8, 0.9), hue_to_rgb(352.0, 0.8, 0.9))


@pytest.mark.parametrize("colour", COLOURS)
def test_the_shape_has_its_colour(colour: str) -> None:
    clip = render_staged(replace(SCENE, colour=colour), replace(PLAIN, brightness=0.9))
    expected = colorsys.hsv_to_rgb(HUES[colour] / 360.0, 1.0, 0.9)
    assert clip[4, :, 32, 32].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_centre_moves_by_velocity_times_frame(motion: str) -> None:
    way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    scene = replace(SCENE, motion=motion)
    drawn = draw_staging(scene, random.Random(5))
    speed = math.hypot(*drawn.velocity)
    assert DIRECTIONS[motion] == way[motion]
    assert speed == 0 if motion == "still" else 1.8 <= speed <= 2.2
    cover = render_staged(scene, replace(PLAIN, centre=drawn.centre, velocity=drawn.velocity))[:, 0]
    for frame, picture in enumerate(cover):
        expected = tuple(
            c + w * speed * frame for c, w in zip(drawn.centre, way[motion], strict=True)
        )
        assert centre(picture) == pytest.approx(expected, abs=0.03)


def test_the_shape_turns_with_its_angle() -> None:
    quarter = replace(PLAIN, angle=math.pi / 2)
    scene = replace(SCENE, shape="triangle")
    upright, turned = render_staged(scene, PLAIN)[0, 0], render_staged(scene, quarter)[0, 0]
    # By 90 degrees clockwise, as y points down.
    torch.testing.assert_close(turned, torch.rot90(upright, -1), atol=1e-4, rtol=0)


def test_a_seed_repeats_and_seeds_differ() -> None:
    picked = scenes()[::480]
    first, again = (render(picked, random.Random(1)) for _ in range(2))
    assert first.shape == (3, 9, 3, 64, 64)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, render(picked, random.Random(2)))
    twins = render([SCENE, SCENE], random.Random(1))
    assert not torch.equal(twins[0], twins[1])  # each clip has a staging of its own


def test_global_random_state_is_left_alone() -> None:
    random.seed(0)
    torch.manual_seed(0)
    python, torch_state = random.getstate(), torch.get_rng_state()
    render([SCENE], random.Random(1))
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_frames_stay_in_range() -> None:
    clips = render(scenes()[::48], random.Random(0))
    assert clips.isfinite().all()
    assert 0.0 <= clips.min().item() < 0.05
    assert 0.95 < clips.max().item() <= 1.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_the_shape_stays_in_the_frame(shape: str, motion: str) -> None:
    """Large ones, as they are the hardest to place: nearly their whole area is always seen."""
    scene = replace(SCENE, shape=shape, motion=motion, size="large")
    for i in range(4):
        drawn = draw_staging(scene, random.Random(i))
        seen = render_staged(
            scene,
            replace(
                PLAIN,
                radius=drawn.radius,
                centre=drawn.centre,
                velocity=drawn.velocity,
                angle=drawn.angle,
            ),
        )[:, 0].sum(dim=(1, 2))
        assert (seen > 0.93 * math.pi * drawn.radius**2).all()


def test_places_differ_from_clip_to_clip() -> None:
    drawn = [draw_staging(replace(SCENE, motion="right"), random.Random(i)) for i in range(50)]
    for axis in (0, 1):
        places = torch.tensor([staging.centre[axis] for staging in drawn])
        assert places.std() > 5  # pixels; a clip's place says nothing of its words


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_background_and_clutter_are_grey(background: str) -> None:
    """Only the shape has chroma: that is what the oracle reads by."""
    for i in range(5):
        scene = replace(SCENE, background=background)
        staging = draw_staging(scene, random.Random(i))
        grey = replace(staging, saturation=0.0)
        assert chroma(render_staged(scene, grey)).max().item() < 1e-6
        away = chroma(render_staged(scene, replace(staging, centre=(500.0, 500.0))))
        assert away.max().item() == 0.0
        assert chroma(render_staged(scene, staging))[4].max().item() > 0.6


def test_pebbles_clutter_the_background() -> None:
    count = []
    for i in range(40):
        staging = draw_staging(SCENE, random.Random(i))
        count.append(len(staging.pebbles))
        away = replace(staging, centre=(500.0, 500.0))
        changed = render_staged(SCENE, away) - render_staged(SCENE, replace(away, pebbles=()))
        assert (changed != 0).any()
    assert set(count) == {2, 3, 4}


@pytest.mark.parametrize(
    ("background", "low", "high"),
    [
        ("dark", 0.08, 0.2),
        ("bright", 0.78, 0.92),
        ("striped", 0.45, 0.55),
        ("checkered", 0.45, 0.55),
    ],
)
def test_background_tones(background: str, low: float, high: float) -> None:
    tones = [
        draw_staging(replace(SCENE, background=background), random.Random(i)).tone
        for i in range(60)
    ]
    assert low <= min(tones) < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < max(tones) <= high


def test_patterns_repeat_every_sixteen_pixels() -> None:
    assert not background_pattern("dark", (1.0, 1.0)).any()
    assert not background_pattern("bright", (1.0, 1.0)).any()
    stripes, checks = (background_pattern(word, (0.7, -1.3)) for word in ("striped", "checkered"))
    for pattern in (stripes, checks):
        assert (pattern.min().item(), pattern.max().item()) == (-1.0, 1.0)
        torch.testing.assert_close(pattern[:, 16:], pattern[:, :-16], atol=1e-4, rtol=0)
        torch.testing.assert_close(pattern[:, 8:], -pattern[:, :-8], atol=1e-4, rtol=0)
    assert (stripes == stripes[:1]).all()  # upright stripes
    torch.testing.assert_close(checks[8:], -checks[:-8], atol=1e-4, rtol=0)
