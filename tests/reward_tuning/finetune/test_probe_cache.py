"""What is kept of a probed file, and when it is decoded again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from reward_tuning.finetune import probe_cache
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.finetune.probe_cache import ProbeCache
from reward_tuning.finetune.survey import Survey, survey
from reward_tuning.finetune.video_files import ClipInfo
from tests.reward_tuning.finetune.clip_folder import numbered_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name, frames in (("a", 9), ("b", 6), ("control", 9)):
        write_clip(numbered_clip(frames, 32, 48), tmp_path / f"{name}.mp4")
    (tmp_path / "c.mp4").write_text("no video")
    rows = [{"file_path": f"{name}.mp4", "text": name} for name in "abc"]
    rows[0]["control_file_path"] = "control.mp4"
    (tmp_path / "list.json").write_text(json.dumps(rows))
    return tmp_path


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []
    real = probe_cache.probe

    def probe(path: Path, kind: str) -> ClipInfo:
        names.append(path.name)
        return real(path, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(probe_cache, "probe", probe)
    return names


def look(clips: Path, cache: Path | None) -> Survey:
    return survey(read_metadata(clips / "list.json"), controls=True, cache=cache)


def test_a_second_start_decodes_only_what_has_changed(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, cache = decoded(monkeypatch), clips / "cache"
    plain = look(clips, None)
    assert not cache.exists()
    first = look(clips, cache)
    assert first == plain
    assert names == 2 * ["a.mp4", "control.mp4", "b.mp4", "c.mp4"]
    names.clear()
    assert look(clips, cache) == first
    assert names == ["c.mp4"]  # what cannot be read is tried again
    write_clip(numbered_clip(5, 32, 48), clips / "b.mp4")
    names.clear()
    assert [clip.info.frames for clip in look(clips, cache).clips] == [9, 5]
    assert names == ["b.mp4", "c.mp4"]
    content = (clips / "a.mp4").read_bytes()
    (clips / "a.mp4").write_bytes(content)  # of the same size, but another time
    os.utime(clips / "a.mp4", ns=(1, 1))
    names.clear()
    look(clips, cache)
    assert names == ["a.mp4", "c.mp4"]
    (clips / "b.mp4").unlink()
    assert [path.name for path, _ in look(clips, cache).broken] == ["b.mp4", "c.mp4"]


@pytest.mark.parametrize("content", ["{", '{"version": 0, "files": {}}', "[]"])
def test_a_cache_that_is_damaged_or_of_another_version_is_told_and_made_anew(
    clips: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (clips / "cache").mkdir()
    (clips / "cache/files.json").write_text(content)
    assert len(look(clips, clips / "cache").clips) == 2
    assert "checking every file again" in caplog.text
    again = ProbeCache(clips / "cache")
    assert again(clips / "a.mp4", "video") == ClipInfo(9, 32, 48)
    assert again.probes == 0


def test_a_cache_that_cannot_be_written_is_no_broken_clip(clips: Path) -> None:
    (clips / "cache").write_text("a file, no folder")
    with pytest.raises(TuningError, match=r"files\.json could not be written"):
        look(clips, clips / "cache")


def test_a_start_that_is_killed_keeps_its_looks(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_cache, "UNSAVED", 2)
    cache = ProbeCache(clips / "cache")
    for name in ("a.mp4", "b.mp4", "control.mp4"):
        cache(clips / name, "video")
        cache.save_now_and_then()
    kept = json.loads((clips / "cache/files.json").read_text())["files"]
    assert len(kept) == 2
