"""The measure of modes: a clip that is right gets full marks, a wrong one does not."""

import random
from dataclasses import replace

import pytest
import torch

from base_model.generator import load_generator
from base_model.tiny import measure_modes
from base_model.tiny.measure_modes import (
    MODES,
    ask_both,
    ask_diagonal,
    ask_edges,
    ask_edit,
    ask_longer,
    ask_pan,
    ask_start,
    ask_trajectory,
    ask_variation,
    ask_zoom,
    compared,
    measure_mode,
)
from base_model.tiny.moving_camera import camera_clip
from base_model.tiny.oracle import recognise_clip
from base_model.tiny.render import ShapePath, draw_staging, render_staged
from base_model.tiny.scenes import Scene, scenes

SCENE = Scene("red", "circle", "dark", "small", "left")


@pytest.mark.parametrize("ask", [ask_start, ask_both, ask_longer, ask_edit])
def test_the_given_clip_itself_is_kept_and_noise_on_kept_pixels_counts(ask) -> None:  # noqa: ANN001
    asked = ask(SCENE, random.Random(0))
    assert compared(asked, asked.clip)["psnr"] == pytest.approx(100.0)
    noisy = asked.clip + 0.1 * asked.kept
    assert compared(asked, noisy)["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert compared(asked, noisy)["psnr_26"] == 0.0
    elsewhere = asked.clip + 0.5 * ~asked.kept
    assert compared(asked, elsewhere)["psnr"] == pytest.approx(100.0)


def test_an_edit_frees_the_whole_shape() -> None:
    for seed in range(10):
        asked = ask_edit(SCENE, random.Random(seed))
        kept = torch.where(asked.kept, asked.clip, torch.tensor(0.5))
        assert recognise_clip(kept).radius == 0.0  # no colour is left


def test_a_path_is_measured_from_the_shapes_centre() -> None:
    asked = ask_trajectory(SCENE, random.Random(1))
    staging = draw_staging(SCENE, random.Random(2))
    there = render_staged(SCENE, staging, ShapePath(asked.path, staging.radius))
    assert compared(asked, there)["distance"] < 0.3
    beside = ShapePath(asked.path + torch.tensor([3.0, 4.0]), staging.radius)
    assert compared(asked, render_staged(SCENE, staging, beside))["distance"] == pytest.approx(
        5.0, abs=0.3
    )


def test_edges_are_those_of_the_clip() -> None:
    asked = ask_edges(SCENE, random.Random(3))
    assert compared(asked, asked.clip)["distance"] < 0.3
    assert 0 < asked.inputs["control"].mean() < 0.3


def test_a_pan_must_go_to_the_asked_side() -> None:
    for seed in range(8):
        asked = ask_pan(SCENE, random.Random(seed))
        rng = random.Random(seed)
        still = replace(SCENE, motion="still")
        right = camera_clip(still, rng.choice(measure_modes.PANS), 1.0, rng).frames
        assert compared(asked, right)["direction"] == 1.0
        assert compared(asked, right.flip(0))["direction"] == 0.0
        assert compared(asked, right[:1].expand(9, -1, -1, -1))["direction"] == 0.0


def test_a_diagonal_needs_both_sides() -> None:
    asked = ask_diagonal(SCENE, random.Random(0))
    for motion, wanted in (
        ("pan left and up", (1.0, 1.0)),
        ("pan right and up", (-1.0, 1.0)),
        ("pan left", None),
    ):
        clip = camera_clip(replace(SCENE, motion="still"), motion, 0.8, random.Random(1)).frames
        if wanted is None:
            clip_right = compared(replace(asked, towards=(-1.0, 1.0)), clip)["direction"]
            assert clip_right == 0.0
        else:
            assert compared(replace(asked, towards=wanted), clip)["direction"] == 1.0


def test_a_zoom_must_change_the_size() -> None:
    for seed in range(6):
        asked = ask_zoom(SCENE, random.Random(seed))
        still = replace(SCENE, motion="still")
        right, wrong = ("in", "out") if asked.grows else ("out", "in")
        for word, wanted in ((right, 1.0), (wrong, 0.0)):
            clip = camera_clip(still, f"zoom {word}", 0.45, random.Random(seed)).frames
            assert compared(asked, clip)["growth"] == wanted
        assert compared(asked, clip[:1].expand(9, -1, -1, -1))["growth"] == 0.0


def test_a_variation_changes_the_colour_alone() -> None:
    asked = ask_variation(SCENE, random.Random(0))
    words = recognise_clip(asked.start).words
    assert words["colour"] != "red"
    assert {k: v for k, v in words.items() if k != "colour"} == {
        "shape": "circle",
        "background": "dark",
        "size": "small",
        "motion": "left",
    }


def test_only_held_out_scenes_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scene] = []

    def ask(scene: Scene, rng: random.Random) -> measure_modes.Asked:
        seen.append(scene)
        return measure_modes.ask_variation(scene, rng)

    monkeypatch.setattr(measure_modes, "STEPS", 2)
    found = measure_mode(load_generator("tiny"), ask, 4)
    assert len(seen) == 4
    assert set(seen) <= set(scenes("held_out"))
    assert {"all_right", "all_right_en", "all_right_zh", "colour", "distance"} <= found.keys()
    assert "psnr" not in found


def test_a_picture_has_no_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_modes, "STEPS", 2)
    found = measure_mode(load_generator("tiny"), measure_modes.ask_picture, 2)
    assert {"all_right", "colour", "shape", "background", "size"} <= found.keys()
    assert "motion" not in found


def test_two_controls_are_edges_and_a_spot() -> None:
    asked = measure_modes.ask_two_controls(SCENE, random.Random(3))
    edges = ask_edges(SCENE, random.Random(3)).inputs["control"]
    both = asked.inputs["control"]
    assert (both >= edges - 1e-6).all()
    assert (both > edges + 0.1).any(dim=1).sum(dim=(1, 2)).max() <= 36  # a spot of 6 x 6
    x, y = asked.path[4].int().tolist()
    assert both[4, 0, y - 1 : y + 2, x - 1 : x + 2].max() > 0.8  # black where no edge is


def test_every_kind_has_its_modes() -> None:
    assert {kind: len(modes) for kind, modes in MODES.items()} == {
        "text-to-video": 3,
        "inpaint": 8,
        "control": 6,
        "camera": 5,
    }
