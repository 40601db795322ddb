"""VBench's names for a whole evaluation: one for each clip, or an error before any sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.evidence.vbench_folder import check_names, write_vbench_clip
from reward_tuning.files.clips import read_clip
from reward_tuning.inputs.prompts import Prompt
from tests.reward_tuning.evidence.test_sides_plan import setup


def test_a_clip_has_the_name_that_vbench_looks_for(tmp_path: Path) -> None:
    clip = torch.full((5, 3, 32, 48), 0.25)
    path = write_vbench_clip(tmp_path, Prompt("a cat, 一只猫", "a cat"), 2, clip)
    assert path == tmp_path / "a cat, 一只猫-2.mp4"
    assert read_clip(path).shape == (5, 3, 32, 48)  # not enlarged


def test_too_few_clips_are_noted_and_equal_names_refused() -> None:
    prompts = [Prompt("a cat", "a cat"), Prompt("a dog", "a dog")]
    some = replace(setup([25], [6.0]), prompts=prompts, seeds=2)
    assert "--seeds 5 writes all" in check_names(some)
    assert check_names(replace(some, seeds=5)) == ""
    twice = replace(some, prompts=[*prompts, Prompt("a cat", "another text for judges")])
    with pytest.raises(TuningError, match=r"two prompts would have the file 'a cat-0\.mp4'"):
        check_names(twice)
    with pytest.raises(TuningError, match="cannot be a file name"):
        check_names(replace(some, prompts=[Prompt("cats and/or dogs", "x")]))
