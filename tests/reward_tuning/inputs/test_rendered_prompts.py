"""Prompt files that `render --ask` writes: read back, they ask for what was drawn."""

from pathlib import Path

import pytest
import torch

from base_model.conditions.trajectory import read_points_file, track_pixels
from base_model.tiny.captions import parse_caption
from base_model.tiny.oracle import centres, recognise_clip, soft_mask
from base_model.tiny.scenes import FRAMES, SIDE
from reward_tuning.errors import TuningError
from reward_tuning.files.frame_files import read_frames, read_mask, read_picture
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.inputs.rendered_prompts import MODES, WRITTEN, write_rendered_prompts

KINDS = {
    "image": ("image",),
    "edit": ("video", "mask"),
    "video": ("video",),
    "edges": ("control",),
    "trajectory": ("control",),
    "camera": ("camera",),
}


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_prompts_name_their_inputs(mode: str, split: str, tmp_path: Path) -> None:
    prompts = read_prompts(write_rendered_prompts(tmp_path, mode, 4, split=split))  # type: ignore[arg-type]
    assert len(prompts) == 4
    assert [parse_caption(p.text)[1] for p in prompts] == ["en", "zh", "en", "zh"]
    for prompt in prompts:
        assert prompt.files.inputs == KINDS[mode]
        prompt.files.check(0.7 if mode == "video" else 1.0)
        scene = parse_caption(prompt.text)[0]
        assert parse_caption(prompt.reward_text)[0] == scene
        if mode != "camera":  # whose shapes are all at rest
            assert scene.split == split


def test_the_picture_shows_the_scene(tmp_path: Path) -> None:
    for prompt in read_prompts(write_rendered_prompts(tmp_path, "image", 6)):
        scene = parse_caption(prompt.text)[0]
        picture = read_picture(str(prompt.files.image))
        words = recognise_clip(picture.expand(FRAMES, -1, -1, -1)).words
        assert {k: words[k] for k in ("colour", "shape", "size")} == {
            "colour": scene.colour,
            "shape": scene.shape,
            "size": scene.size,
        }


def test_an_edit_frees_what_the_video_shows(tmp_path: Path) -> None:
    for prompt in read_prompts(write_rendered_prompts(tmp_path, "edit", 4)):
        video = read_frames(str(prompt.files.video), FRAMES, "video")
        mask = read_mask(str(prompt.files.mask), FRAMES, (SIDE, SIDE), str(prompt.files.video))
        scene = parse_caption(prompt.text)[0]
        assert recognise_clip(video).words["colour"] not in (scene.colour, "unclear")
        assert recognise_clip(torch.where(mask < 0.5, video, torch.tensor(0.5))).radius == 0.0


def test_a_trajectory_passes_where_the_shape_would(tmp_path: Path) -> None:
    """Against the same draw's edges clip, which shows the shape on a path of the same kind."""
    path = write_rendered_prompts(tmp_path, "trajectory", 3)
    for prompt in read_prompts(path):
        (track,) = read_points_file(Path(str(prompt.files.trajectory)))
        pixels = torch.from_numpy(track_pixels(track, FRAMES, SIDE, SIDE, "a test")).float()
        assert pixels.shape == (FRAMES, 2)
        moved = (pixels[-1] - pixels[0]).tolist()
        motion = parse_caption(prompt.text)[0].motion
        signs = {"left": -moved[0], "right": moved[0], "up": -moved[1], "down": moved[1]}
        assert motion == "still" or signs[motion] > 3


def test_edges_are_made_of_a_clip_of_the_scene(tmp_path: Path) -> None:
    for prompt in read_prompts(write_rendered_prompts(tmp_path, "edges", 3)):
        clip = read_frames(prompt.files.control[0], FRAMES, "control")
        assert prompt.files.control_type == "canny"
        assert recognise_clip(clip).words["colour"] == parse_caption(prompt.text)[0].colour
        assert centres(soft_mask(clip)).isfinite().all()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    one = write_rendered_prompts(tmp_path / "a", "edit", 2, seed=5)
    two = write_rendered_prompts(tmp_path / "b", "edit", 2, seed=5)
    files = sorted(path.name for path in one.parent.iterdir())
    assert files == sorted(path.name for path in two.parent.iterdir())
    for name in files:
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="unknown mode 'depth'; allowed: image, edit"):
        write_rendered_prompts(tmp_path, "depth", 1)
    write_rendered_prompts(tmp_path, "camera", 1)
    with pytest.raises(TuningError, match="exists already"):
        write_rendered_prompts(tmp_path, "camera", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(TuningError, match="cannot be written"):
        write_rendered_prompts(tmp_path / "file", "image", 1)


@pytest.mark.parametrize("mode", MODES)
def test_the_names_that_are_looked_for_are_those_that_are_written(
    tmp_path: Path, mode: str
) -> None:
    write_rendered_prompts(tmp_path, mode, 1)
    written = {path.name for path in tmp_path.iterdir()} - {"prompts.jsonl"}
    assert written == {f"000{ending}" for ending in WRITTEN[mode]}
