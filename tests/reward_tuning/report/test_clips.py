import subprocess
from pathlib import Path

import numpy as np
import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.mp4_file import write_mp4
from reward_tuning.files.video_frames import probe_video
from reward_tuning.report.clips import collect_clips
from tests.reward_tuning.report.evaluation_folder import write_clip_file


def noise(path: Path, seed: int, size: int = 64, frames: int = 9) -> None:
    video = np.random.default_rng(seed).integers(0, 255, (frames, size, size, 3), dtype=np.uint8)
    write_mp4(path, video, 8.0)


def test_equal_files_are_in_the_page_once_and_as_they_are(tmp_path: Path) -> None:
    write_clip_file(tmp_path / "a.mp4", 10)
    write_clip_file(tmp_path / "b.mp4", 10)
    write_clip_file(tmp_path / "c.mp4", 90)
    found = collect_clips(tmp_path, [{0: "a.mp4", 1: "b.mp4"}, {0: "c.mp4"}])
    assert found.notes == []
    assert len(found.clips) == 2
    assert found.names[0][0] == found.names[0][1] != found.names[1][0]
    clip = found.clips[found.names[1][0]]
    assert clip.video == (tmp_path / "c.mp4").read_bytes()
    assert (clip.frames, clip.fps, clip.width, clip.height) == (9, 8.0, 32, 32)
    assert clip.still[:3] == b"\xff\xd8\xff"


def test_a_clip_that_browsers_do_not_play_is_encoded_again(tmp_path: Path) -> None:
    write_clip_file(tmp_path / "a.mp4", 10)
    command = [ffmpeg.executable(), "-v", "error", "-i", str(tmp_path / "a.mp4"), "-vcodec"]
    subprocess.run([*command, "mpeg4", str(tmp_path / "old.mp4")], check=True)
    found = collect_clips(tmp_path, [{0: "old.mp4"}])
    (clip,) = found.clips.values()
    assert clip.video != (tmp_path / "old.mp4").read_bytes()
    (tmp_path / "new.mp4").write_bytes(clip.video)
    facts = probe_video(tmp_path / "new.mp4")
    assert (facts.frames, facts.height, facts.width) == (9, 32, 32)
    assert b"avc1" in clip.video


def test_files_that_are_no_clips_are_named_and_left_out(tmp_path: Path) -> None:
    write_clip_file(tmp_path / "a.mp4", 10)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:500])
    (tmp_path.parent / "outside.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    sides = [{0: "a.mp4", 1: "half.mp4", 2: "none.mp4", 3: "../outside.mp4", 4: "/etc/passwd"}]
    found = collect_clips(tmp_path, sides)
    assert list(found.names[0]) == [0]
    (note,) = found.notes
    assert note.startswith("4 clips could not be read: half.mp4 (not a video that can be read)")
    assert "none.mp4 (No such file" in note
    assert note.count("outside of the folder") == 2


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_clip_file(tmp_path / "private.mp4", 10)
    (tmp_path / "run/a.mp4").symlink_to(tmp_path / "private.mp4")
    write_clip_file(tmp_path / "run/own.mp4", 20)
    (tmp_path / "run/b.mp4").symlink_to("own.mp4")
    (tmp_path / "link").symlink_to("run")  # the folder itself may be one
    found = collect_clips(tmp_path / "link", [{0: "a.mp4", 1: "b.mp4"}])
    assert list(found.names[0]) == [1]
    assert "a.mp4 (a link to outside of the folder)" in found.notes[0]


def test_too_large_clips_are_encoded_smaller(tmp_path: Path) -> None:
    for number in range(3):
        noise(tmp_path / f"{number}.mp4", number)
    sides = [{number: f"{number}.mp4" for number in range(3)}]
    whole = sum(clip.room for clip in collect_clips(tmp_path, sides).clips.values())
    found = collect_clips(tmp_path, sides, room=int(0.6 * whole))
    assert len(found.clips) == 3
    assert sum(clip.room for clip in found.clips.values()) <= 0.6 * whole
    (note,) = found.notes
    assert note.startswith("Clips are encoded again for this page (crf ")


def test_prompts_are_left_out_with_all_strengths_where_nothing_else_helps(tmp_path: Path) -> None:
    for number in range(8):
        noise(tmp_path / f"{number}.mp4", number)
    sides = [{i: f"{i}.mp4" for i in range(4)}, {i: f"{4 + i}.mp4" for i in range(4)}]
    every = collect_clips(tmp_path, sides)
    smallest = 0.4 * sum(clip.room for clip in every.clips.values())
    found = collect_clips(tmp_path, sides, room=int(0.5 * smallest))
    kept = set(found.names[0])
    assert 0 < len(kept) < 4
    assert kept == set(range(len(kept))) == set(found.names[1])
    assert len(found.clips) == 2 * len(kept)
    assert sum(clip.room for clip in found.clips.values()) <= 0.5 * smallest
    assert f"those of {4 - len(kept)} more" in found.notes[-1]


def test_large_stills_are_scaled_down(tmp_path: Path) -> None:
    write_clip_file(tmp_path / "a.mp4", 10, size=600)
    (clip,) = collect_clips(tmp_path, [{0: "a.mp4"}]).clips.values()
    assert (clip.width, clip.height) == (600, 600)
    cv2 = pytest.importorskip("cv2")
    still = cv2.imdecode(np.frombuffer(clip.still, np.uint8), cv2.IMREAD_COLOR)
    assert still.shape == (384, 384, 3)


def test_a_failed_encoding_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(tmp_path / "0.mp4", 0)
    monkeypatch.setattr(ffmpeg, "executable", lambda: "false")
    with pytest.raises(TuningError, match=r"cannot be encoded again \(ended with code 1\)"):
        collect_clips(tmp_path, [{0: "0.mp4"}], room=1000)
