"""Judges from the command line: as options, and from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.cli.judges import judges_by_name, judges_of_options, judges_of_recipe
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from tests.reward_tuning.command_line import command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a 'clip'.png"
    write_clip(torch.rand(1, 3, 32, 32), path)
    return path


@pytest.mark.parametrize(
    "judge", ["{kind: [1]}", "{kind: {a: 1}}", "{kind: sharpness, name: [1]}", "{kind: null}"]
)
def test_a_judge_of_odd_values(run: Any, clip: Path, judge: str) -> None:
    done = run("score", clip, "--reward", judge)
    assert done.code == 2
    assert "reward.0." in done.err


HPS = "hps:tiny/hps.safetensors"


def test_a_judge_is_named_by_its_kind_and_by_its_file_where_two_are_of_a_kind() -> None:
    assert [one.label for one in judges_of_options([HPS, "sharpness"])] == ["hps", "sharpness"]
    clip = "clip:tiny/clip.safetensors"
    other = "{kind: clip, checkpoint: tiny/clip-held-out.safetensors, name: other}"
    third = "clip:tiny/clip-held-out.safetensors"
    assert [one.label for one in judges_of_options([clip, other])] == ["clip", "other"]
    assert [one.label for one in judges_of_options([clip, third])] == [clip, third]


def test_options_are_defaults_of_the_judges_that_have_such_a_key() -> None:
    own = "{kind: clip, checkpoint: tiny/clip.safetensors, dtype: float32}"
    judges: list[Any] = judges_of_options([HPS, own, "sharpness"], chunk=3, dtype="bfloat16")
    assert [judge.chunk for judge in judges[:2]] == [3, 3]
    assert [judge.dtype for judge in judges[:2]] == ["bfloat16", "float32"]


def test_the_judges_of_a_recipe_are_all_that_look_at_frames() -> None:
    labels = [judge.label for judge in judges_of_recipe("tiny-drtune-multi")]
    assert labels == ["hps", "clip", "aesthetic", "clip_held_out"]
    assert "latent" not in [judge.kind for judge in judges_of_recipe("tiny-prfl-latent")]


def test_the_judges_of_a_recipe_that_only_compare_clips_are_left_out(tmp_path: Path) -> None:
    pairs = {"kind": "http", "url": "http://localhost:9/", "pairwise": True, "gradient": "paired"}
    path = write_recipe(tmp_path, rewards=[pairs, {"kind": "flicker"}])
    assert "http" not in [judge.label for judge in judges_of_recipe(str(path))]
    assert "flicker" in [judge.label for judge in judges_of_recipe(str(path))]


def test_judges_by_name_of_a_run_of_a_shipped_file_and_by_kind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_recipe(run, rewards=[{"kind": "hps", "checkpoint": "hps-v2.1", "name": "mine"}])
    shipped = "tiny/clip-held-out.safetensors"
    found = judges_by_name([shipped, "mine", "flicker"], [run, tmp_path])
    assert [(judge.kind, judge.label) for judge in found] == [
        ("clip", "clip"),
        ("hps", "mine"),
        ("flicker", "flicker"),
    ]
    assert found[0].identity == shipped
    with pytest.raises(TuningError, match="did you mean mine\\?"):
        judges_by_name(["mien"], [run])
    with pytest.raises(TuningError, match="mine is given twice"):
        judges_by_name(["mine", "mine"], [run])


def test_a_mistake_names_the_option(tmp_path: Path) -> None:
    for texts in (["hps"], [HPS, HPS], ["{kind: hps, checkpoint: none}"]):
        with pytest.raises(TuningError, match=r"^--reward:"):
            judges_of_options(texts)
        with pytest.raises(TuningError, match=r"^--judges:"):
            judges_by_name(texts, [tmp_path])
