"""Clips of the embedded world, written as a user's own would be."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.finetune.rendered import write_rendered_clips
from reward_tuning.finetune.survey import survey


def test_rendered_clips_are_a_training_set(tmp_path: Path) -> None:
    path = write_rendered_clips(tmp_path, 3, words=["red", "left"], style="negative", seed=1)
    found = survey(read_metadata(path))
    assert len(found.clips) == 3
    assert not found.broken
    assert {(c.info.frames, c.info.height, c.info.width) for c in found.clips} == {(9, 64, 64)}
    assert "red" in found.clips[0].row.text
    with pytest.raises(TuningError, match="exists already"):
        write_rendered_clips(tmp_path, 1)
    with pytest.raises(TuningError, match="no word 'pink'"):
        write_rendered_clips(tmp_path / "b", 1, words=["pink"])
    with pytest.raises(TuningError, match="red and blue"):
        write_rendered_clips(tmp_path / "b", 1, words=["red", "blue"])


def test_the_seed_decides_and_the_negative_is_the_opposite(tmp_path: Path) -> None:
    for name, style, seed in (("a", "plain", 1), ("b", "negative", 1), ("c", "plain", 2)):
        write_rendered_clips(tmp_path / name, 2, style=style, seed=seed)  # type: ignore[arg-type]
    lists = [(tmp_path / name / "metadata.csv").read_text() for name in "abc"]
    assert lists[0] == lists[1] != lists[2]
    plain, negative = (read_clip(tmp_path / name / "0000.mp4") for name in "ab")
    assert (plain + negative - 1).abs().mean() < 0.03  # but for the video codec
