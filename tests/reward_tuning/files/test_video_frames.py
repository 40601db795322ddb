"""Frames as videos store them, whatever their times: one reader, held against OpenCV's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.clips import probe_clip, read_clip, write_clip
from reward_tuning.files.frame_files import read_frames
from reward_tuning.files.video_frames import video_frames
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.pixels import READING, ClipReader
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.survey import survey
from reward_tuning.finetune.video_files import read_part
from reward_tuning.tuning.replay_sources import read_fitting
from tests.reward_tuning.finetune.clip_folder import numbered_clip

CASES = Path(__file__).parents[1] / "cases/clips"
WHOLE = ("variable-rate.mp4", "variable-rate-burst.mp4", "starts-late.mp4")
STEP = 12.3 / 255  # of the cases' grey level, from frame to frame


def run_ffmpeg(*words: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def by_opencv(path: Path) -> NDArray[np.uint8]:
    """Every frame as another program decodes it, `(f, H, W, 3)`."""
    opened, found = cv2.VideoCapture(str(path)), []
    while True:
        more, frame = opened.read()
        if not more:
            return np.stack(found)[..., ::-1]
        found.append(frame)


def numbers(frames: torch.Tensor) -> list[int]:
    """Which stored frames of a case these are, by their grey level."""
    return [round((float(frame.mean()) - 46 / 255) / STEP) for frame in frames]


@pytest.mark.parametrize("name", WHOLE)
def test_every_stored_frame_comes_once(name: str) -> None:
    path = CASES / name
    assert probe_clip(path).frames == 13
    clip = read_clip(path)
    assert numbers(clip) == list(range(13))
    other = torch.from_numpy(by_opencv(path).copy()).permute(0, 3, 1, 2).float() / 255
    assert other.shape == clip.shape
    assert float((other - clip).abs().max()) < 4 / 255  # another conversion of colours


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    ("start", "count", "stride"),
    [(0, 5, 1), (4, 5, 1), (8, 5, 1), (0, 5, 3), (0, 13, 1), (3, 5, 2), (12, 1, 1), (1, 2, 7)],
)
def test_a_window_to_train_on_is_the_frames_of_its_numbers(
    name: str, start: int, count: int, stride: int
) -> None:
    found = read_part(CASES / name, "video", start, count, stride)
    assert numbers(found) == list(range(start, start + count * stride, stride))


def test_a_condition_takes_the_first_stored_frames() -> None:
    assert numbers(read_frames(CASES / WHOLE[1], 9, "video")) == list(range(9))


def test_chosen_frames_that_are_not_evenly_spaced() -> None:
    assert numbers(read_clip(CASES / WHOLE[0], lambda count: (0, 1, 5, 6, 12))) == [0, 1, 5, 6, 12]


def test_a_replay_is_the_stored_frames() -> None:
    found = read_fitting(CASES / WHOLE[1], (13, 64, 96))
    assert numbers(found) == list(range(13))
    with pytest.raises(TuningError, match="cut short or damaged, 7 of about 13 frames"):
        read_fitting(CASES / "truncated-faststart.mp4", (13, 64, 96))


@pytest.mark.parametrize(("start", "stride"), [(0, 3), (4, 2), (8, 1)])
def test_what_the_posterior_cache_keeps_is_the_stored_frames(
    tmp_path: Path, start: int, stride: int
) -> None:
    (clip,) = survey([ClipRow(CASES / WHOLE[0], "", "video")]).clips
    reader = ClipReader([clip], stride)
    batch = ClipBatch(0, (0,), (start,), 5, 64, 96)
    wanted = list(range(start, start + 5 * stride, stride))
    cache = PosteriorCache(tmp_path, "vae")
    for hits in (0, 1):
        kept = cache.get(lambda: reader.identity(batch, 0), lambda: reader.frames(batch, 0))
        assert (numbers(kept), cache.hits) == (wanted, hits)
    # what an earlier reader kept, whose key named no way of counting, is not taken
    counted, *before = reader.identity(batch, 0)
    assert counted == READING
    assert cache.get(lambda: before, lambda: kept + 1).equal(kept + 1)


# --- rates


@pytest.mark.parametrize(
    ("name", "fps"),
    [
        # 12 intervals over the time from the first frame to the last
        ("variable-rate.mp4", 12 / 2.625),
        ("variable-rate-burst.mp4", 12 / 4.75),
        ("starts-late.mp4", 8.0),
    ],
)
def test_the_rate_of_a_file_is_that_of_its_frames_over_their_time(name: str, fps: float) -> None:
    assert probe_clip(CASES / name).fps == pytest.approx(fps, abs=0.01)


@pytest.mark.parametrize("ending", ["mp4", "webm", "mkv", "mov", "avi"])
@pytest.mark.parametrize(("rate", "fps"), [("24", 24.0), ("30000/1001", 30000 / 1001), ("8", 8.0)])
def test_an_even_rate_is_exact_in_every_container(
    tmp_path: Path, ending: str, rate: str, fps: float
) -> None:
    path = tmp_path / f"c.{ending}"
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(ending, "libx264")
    run_ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}", "-frames:v", 20, "-c:v", codec, path
    )
    found = probe_clip(path)
    assert (found.frames, found.height, found.width) == (20, 48, 64)
    assert found.fps == pytest.approx(fps, rel=1e-9)


def test_a_webm_of_uneven_times(tmp_path: Path) -> None:
    path = tmp_path / "c.webm"
    source = "color=black:s=64x48:r=25:d=0.52,geq=lum=30+N*12:cb=128:cr=128,setpts=N*N/25/TB/4"
    mode = ffmpeg.passthrough_options()
    run_ffmpeg("-f", "lavfi", "-i", source, *mode, "-c:v", "libvpx", "-b:v", "1M", path)
    found = probe_clip(path)
    assert found.frames == len(by_opencv(path)) == 13
    assert found.fps == pytest.approx(12 / (144 / 25 / 4), rel=0.01)
    levels = read_clip(path).mean(dim=(1, 2, 3))
    assert bool((levels.diff() > 0.02).all())


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_a_constant_rate_gives_the_bytes_it_gave_before(tmp_path: Path, ending: str) -> None:
    """imageio's reader, which was the reader before, is right where the rate is constant."""
    path = tmp_path / f"c.{ending}"
    codec = "libx264" if ending == "mp4" else "libvpx"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=8:d=2", "-c:v", codec, path)
    before = np.stack(list(iio.imiter(path, plugin="FFMPEG")))
    after = np.stack(list(video_frames(path, range(16))))
    assert np.array_equal(before, after)


# --- names, versions, what is no video


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", tmp_path / "a.mp4")
    with pytest.raises(TuningError, match="it has audio or pictures, and no video"):
        probe_clip(tmp_path / "a.mp4")


def test_a_video_that_is_turned(tmp_path: Path) -> None:
    write_clip(numbered_clip(5, 32, 48), tmp_path / "a.mp4")
    run_ffmpeg("-display_rotation", 90, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    found = probe_clip(tmp_path / "b.mp4")
    assert (found.frames, found.height, found.width) == (5, 48, 32)
    assert read_clip(tmp_path / "b.mp4").shape == (5, 3, 48, 32)
