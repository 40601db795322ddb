"""A judge of this process that returns NaN or raises, in the middle of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.tuning.trainer import run
from rewards.errors import RewardError
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

JUDGE = """
from pathlib import Path
MOOD = Path(__file__).with_name("mood")

class Mine:
    def __call__(self, frames, prompts):
        mood = MOOD.read_text() if MOOD.exists() else ""
        if mood == "raise":
            raise OSError("the cable is out")
        return frames.mean((1, 2, 3, 4)) * (float("nan") if mood == "nan" else 1.0)
"""
SHORT = (
    "train.steps=4",
    "train.checkpoint_every=2",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
    "tracking=[]",
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    (world / "mine.py").write_text(JUDGE)
    return world


def overrides(world: Path) -> tuple[str, ...]:
    return (*SHORT, f"rewards=[{{kind: python, checkpoint: {world / 'mine.py'}}}]")


def moody(world: Path, mood: str) -> ProgressFn:
    """Put the judge into a mood during the fourth step, and only then."""
    file = world / "mood"

    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", 3, "rollout"):
            file.write_text(mood)
        elif (event.stage, event.phase) == ("training", "update"):
            file.unlink(missing_ok=True)

    return progress


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mood", "told"),
    [
        ("nan", r"mine\.py returned \[nan, nan\]; scores must be finite"),
        ("raise", r"mine\.py.*the cable is out"),
    ],
)
def test_a_judge_that_fails_ends_the_run_which_resumes_into_the_same_bytes(
    world: Path, tmp_path: Path, mood: str, told: str
) -> None:
    output, whole = tmp_path / "run", tmp_path / "whole"
    recipe = tiny_recipe(world, output, *overrides(world))
    with pytest.raises(RewardError, match=told):
        run(recipe, progress=moody(world, mood))
    assert not (output / "evaluation.json").exists()
    (world / "mood").unlink()
    run(recipe, resume=True)
    run(tiny_recipe(world, whole, *overrides(world)))
    name = "lora/adapter_model.safetensors"
    assert (output / name).read_bytes() == (whole / name).read_bytes()
