"""Files that are cut short are counted and named, never read as shorter ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import probe_clip, read_clip
from reward_tuning.files.container_end import missing_end
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.survey import survey
from reward_tuning.finetune.video_files import probe, read_part
from tests.reward_tuning.files.test_video_frames import CASES, WHOLE, run_ffmpeg


def test_a_truncated_file_is_counted_and_named() -> None:
    with pytest.raises(TuningError) as caught:
        read_clip(CASES / "truncated-faststart.mp4")
    told = str(caught.value)
    assert "truncated-faststart.mp4: cut short or damaged, 7 of about 13 frames" in told
    assert "it ends after 106911 of" in told


def test_a_truncated_file_is_left_out_of_training(tmp_path: Path) -> None:
    rows = [
        ClipRow(path, "", "video")
        for path in (CASES / WHOLE[0], CASES / "truncated-faststart.mp4", CASES / WHOLE[1])
    ]
    found = survey(rows)
    assert [clip.row.file.name for clip in found.clips] == [WHOLE[0], WHOLE[1]]
    first, second = found.warning().splitlines()
    assert first.startswith("1 of 3 clips are left out")
    assert "truncated-faststart.mp4: cut short or damaged, 7 of about 13 frames" in second


MADE: Sequence[tuple[str, tuple[str, ...]]] = (
    ("mp4", ("-c:v", "libx264", "-movflags", "+faststart")),
    ("mov", ("-c:v", "mjpeg", "-movflags", "+faststart")),
    ("webm", ("-c:v", "libvpx", "-b:v", "1M")),
    ("mkv", ("-c:v", "libx264", "-g", "5")),
    ("avi", ("-c:v", "mpeg4")),
    ("wmv", ("-c:v", "wmv2")),
    ("ogv", ("-c:v", "libtheora", "-q:v", "7")),
    ("gif", ()),
)


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("containers")
    for ending, options in MADE:
        source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=2")
        run_ffmpeg(*source, *options, folder / f"c.{ending}")
    return folder


@pytest.mark.parametrize("ending", [ending for ending, _ in MADE])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8, 0.97])
def test_no_cut_file_passes_as_whole(
    containers: Path, tmp_path: Path, ending: str, share: float
) -> None:
    whole = containers / f"c.{ending}"
    assert probe_clip(whole).frames == 20
    assert missing_end(whole) is None
    content = whole.read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(TuningError, match=r"cut\.\w+: (cut short or damaged|not a video)"):
        probe_clip(tmp_path / f"cut.{ending}")


@pytest.mark.parametrize(
    ("ending", "options"),
    [("ts", ()), ("m2ts", ("-mpegts_m2ts_mode", "1")), ("flv", ())],
)
def test_a_cut_inside_of_a_packet(
    containers: Path, tmp_path: Path, ending: str, options: tuple[str, ...]
) -> None:
    """These do not say how long they are, only how long each packet is."""
    whole = tmp_path / f"c.{ending}"
    run_ffmpeg("-i", containers / "c.mp4", "-c", "copy", *options, whole)
    content = whole.read_bytes()
    assert missing_end(whole) is None
    for size in (len(content) - 1, len(content) - 100, len(content) // 2 // 188 * 188 + 5):
        whole.write_bytes(content[:size])
        assert f"it ends after {size} of" in str(missing_end(whole))


def test_a_cut_between_two_frames(containers: Path, tmp_path: Path) -> None:
    """Nothing is half there: the container's own lengths tell, whatever ffmpeg says."""
    content, path = (containers / "c.mp4").read_bytes(), tmp_path / "cut.mp4"
    sizes = content.index(b"stsz") + 16  # of the samples, behind version, size and count
    chunk = int.from_bytes(content[(at := content.index(b"stco") + 12) : at + 4], "big")
    samples = [int.from_bytes(content[sizes + 4 * i :][:4], "big") for i in range(20)]
    for kept in (5, 12, 19):
        path.write_bytes(content[: chunk + sum(samples[:kept])])
        assert missing_end(path) == f"it ends after {path.stat().st_size} of {len(content)} bytes"
        with pytest.raises(TuningError, match=rf"cut short or damaged, {kept} of about 20 frames"):
            probe_clip(path)


def test_files_of_which_nothing_is_known_are_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text, longer than a header")
    assert missing_end(tmp_path / "a") is None
    (tmp_path / "a").write_bytes(b"")
    assert missing_end(tmp_path / "a") is None


def test_a_file_that_became_shorter_while_it_was_read(containers: Path, tmp_path: Path) -> None:
    shutil.copy(containers / "c.avi", tmp_path / "c.avi")
    assert probe(tmp_path / "c.avi", "video").frames == 20
    content = (tmp_path / "c.avi").read_bytes()
    (tmp_path / "c.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        TuningError, match=r"c\.avi: \d+ frames decoded from 0 on at a stride of 1, but it had 20"
    ):
        read_part(tmp_path / "c.avi", "video", 0, 20, 1)


def test_an_mp4_box_of_eight_length_bytes(tmp_path: Path) -> None:
    """As cameras write boxes of more than 4 GiB."""
    path = tmp_path / "a.mp4"
    first = (16).to_bytes(4, "big") + b"ftypisom" + bytes(4)
    media = (1).to_bytes(4, "big") + b"mdat" + (116).to_bytes(8, "big") + bytes(100)
    path.write_bytes(first + media)
    assert missing_end(path) is None
    path.write_bytes((first + media)[:-1])
    assert missing_end(path) == "it ends after 131 of 132 bytes"
