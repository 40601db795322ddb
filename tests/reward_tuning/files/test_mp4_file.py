"""mp4 files: rate, padding to even sides, and the failures of ffmpeg."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from tests.reward_tuning.files.test_clips import moving_disc


def test_mp4_plays_at_its_rate(tmp_path: Path) -> None:
    import imageio.v3 as iio

    write_clip(moving_disc(), tmp_path / "c.mp4", fps=8)
    about = iio.immeta(tmp_path / "c.mp4", plugin="FFMPEG")
    assert about["fps"] == 8
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p")  # what every player shows


def test_odd_sides_are_filled_up(tmp_path: Path) -> None:
    clip = moving_disc(33, 31)
    write_clip(clip, tmp_path / "c.mp4")
    again = read_clip(tmp_path / "c.mp4")
    assert again.shape == (9, 3, 34, 32)
    assert (again[..., :33, :31] - clip).abs().mean() * 255 < 2.5


def test_a_full_disk_is_named_though_ffmpeg_says_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ffmpeg 9.0.2 says on a full disk: the reason stands in its first lines."""
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(
        "#!/bin/sh\ncat > /dev/null\n"
        "echo '[vost#0:0/libx264 @ 0x5574] Error submitting a packet to the muxer: No space left "
        "on device' >&2\n"
        "echo '[out#0/mp4 @ 0x5574] Error muxing a packet' >&2\n"
        "echo '[out#0/mp4 @ 0x5574] Task finished with error code: -28 (No space left on device)' "
        ">&2\n"
        "echo 'Conversion failed!' >&2\nexit 228\n"
    )
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    with pytest.raises(TuningError, match=r"cannot be written \(ffmpeg: No space left on device\)"):
        write_clip(moving_disc(), tmp_path / "c.mp4")


def test_what_ffmpeg_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text("#!/bin/sh\ncat > /dev/null\necho No space left on device >&2\nexit 228\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    with pytest.raises(TuningError, match=r"c\.mp4: cannot be written \(ffmpeg: No space left"):
        write_clip(moving_disc(), tmp_path / "c.mp4")
