"""Clips from real files: which are found, what they shall show, and what the judges say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.files.clips import read_clip
from reward_tuning.judges.clip_files import ClipFile, find_clips, with_prompts
from reward_tuning.judges.scoring import file_judges, score_clips
from rewards import load_reward
from tests.reward_tuning import clip_folder

CPU = torch.device("cpu")
HPS, AESTHETIC = "hps:tiny/hps.safetensors", "aesthetic:tiny/aesthetic.safetensors"
PROMPT = "a red circle moves left"
folder, clips = clip_folder.folder, clip_folder.clips


def test_every_kind_of_file_is_read_with_the_right_colours(folder: Path) -> None:
    pixels = np.zeros((8, 12, 4), dtype=np.uint8)
    pixels[:, :6] = (255, 0, 0, 255)
    pixels[:, 6:] = (0, 0, 255, 40)
    Image.fromarray(pixels).save(folder / "alpha.png")
    Image.fromarray(pixels[:, :, 0]).save(folder / "grey.png")
    turned = Image.fromarray(pixels[:, :, :3])
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    turned.save(folder / "photo.jpg", exif=exif, quality=100, subsampling=0)
    alpha, grey, photo = (read_clip(folder / n) for n in ("alpha.png", "grey.png", "photo.jpg"))
    assert alpha.shape == (1, 3, 8, 12)
    assert alpha[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert alpha[0, :, 0, 11].tolist() == [0.0, 0.0, 1.0]
    assert grey.shape == (1, 3, 8, 12)
    assert grey[0, :, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert photo.shape == (1, 3, 12, 8)
    assert photo[0, 0, 1].min() > 0.9
    assert read_clip(folder / "d.webm").shape == (5, 3, 64, 64)


def test_chosen_frames_of_a_file(folder: Path) -> None:
    whole = read_clip(folder / "deep" / "wide.mp4")
    told: list[int] = []
    some = read_clip(folder / "deep" / "wide.mp4", lambda count: told.append(count) or (0, 4, 8))
    assert told == [9]
    assert torch.equal(some, whole[[0, 4, 8]])


def test_scores_are_the_judges_own_whatever_the_batches(folder: Path) -> None:
    judges = file_judges(judges_of_options([HPS, AESTHETIC]), CPU)
    clips = with_prompts(find_clips([folder]), prompt=PROMPT)
    told: list[tuple[int, int]] = []
    one_by_one = score_clips(clips, judges, batch_size=1)
    together = score_clips(
        clips, judges, batch_size=3, progress=lambda event: told.append((event.done, event.total))
    )
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    hps, aesthetic = (
        load_reward(kind, f"tiny/{kind}.safetensors") for kind in ("hps", "aesthetic")
    )
    for clip, found, alone in zip(clips, together.clips, one_by_one.clips, strict=True):
        assert found.clip == clip
        shown = read_clip(clip.path)[None]
        wanted = {"hps": float(hps(shown, [PROMPT])), "aesthetic": float(aesthetic(shown, ["-"]))}
        assert found.scores == pytest.approx(wanted, abs=1e-5)
        assert alone.scores == pytest.approx(wanted, abs=1e-5)
    assert [one.shape for one in together.clips][3:] == [(9, 48, 80), (1, 64, 64)]
    mean = sum(one.scores["hps"] or 0.0 for one in together.clips) / 5
    assert together.means()["hps"] == pytest.approx(mean)


def test_frames_of_files_and_frames_of_judges(folder: Path) -> None:
    two = "{kind: aesthetic, checkpoint: tiny/aesthetic.safetensors, frames: 2, name: ends}"
    judges = file_judges(judges_of_options([AESTHETIC, two]), CPU)
    clip = folder / "deep" / "wide.mp4"
    (found,) = score_clips([ClipFile(clip)], judges, frames=3).clips
    reward = load_reward("aesthetic", "tiny/aesthetic.safetensors")
    per_frame = reward.per_frame(read_clip(clip)[None], ["-"])[0]  # type: ignore[attr-defined]
    assert found.shape == (3, 48, 80)
    assert found.scores["aesthetic"] == pytest.approx(float(per_frame[[0, 4, 8]].mean()), abs=1e-5)
    assert found.scores["ends"] == pytest.approx(float(per_frame[[0, 8]].mean()), abs=1e-5)


def test_a_clip_too_short_for_a_judge_has_no_score(folder: Path) -> None:
    (folder / "moves.py").write_text(
        "from rewards import VideoReward\n"
        "class Moves(VideoReward):\n"
        "    least_frames, modules, reads_text = 2, [], False\n"
        "    def score_clips(self, frames, prompts):\n"
        "        return frames.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))\n"
    )
    judges = file_judges(judges_of_options([f"python:{folder / 'moves.py'}"]), CPU)
    found = score_clips([ClipFile(folder / "e.jpg"), ClipFile(folder / "a.mp4")], judges)
    assert found.clips[0].scores == {"python": None}
    moved = read_clip(folder / "a.mp4").diff(dim=0).abs().mean()
    assert found.clips[1].scores["python"] == pytest.approx(float(moved))
    assert found.means() == {"python": pytest.approx(float(moved))}
