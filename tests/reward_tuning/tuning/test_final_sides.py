"""The sides of a run: base, tuned and other strengths, with their clips in files."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.clips import read_clip
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.identity import adapter_sha256
from reward_tuning.lora.names import factors_by_module
from reward_tuning.progress import silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.evaluation import evaluate
from reward_tuning.tuning.final_sides import FinalSides
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.sides import Side
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

OVERRIDES = (
    "evaluation.seeds=1",
    "evaluation.clips=2",
    "evaluation.strengths=[0.5, 2.0]",
    "evaluation.strength_prompts=2",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def loaded(world: Path) -> tuple[Recipe, RunParts]:
    recipe = tiny_recipe(world, world / "run", *OVERRIDES)
    return recipe, load_parts(recipe, torch.device("cpu"), 2, silent)


def tuned(parts: RunParts) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: 0.3 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in parts.trained.state().items()
    }


@pytest.fixture(scope="module")
def done(
    loaded: tuple[Recipe, RunParts], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Side], Path]:
    recipe, parts = loaded
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    final = FinalSides(
        recipe, parts, Accelerator(), folder, parts.judges, False, nullcontext, silent, 7
    )
    return final.evaluated(tuned(parts)), folder.root


def test_each_side_has_its_strength_prompts_and_clips(
    loaded: tuple[Recipe, RunParts], done: tuple[list[Side], Path]
) -> None:
    (_, parts), (found, root) = loaded, done
    assert [(side.name, side.strength, side.against) for side in found] == [
        ("base", 0.0, None),
        ("tuned", 1.0, 0),
        ("strength 0.5", 0.5, 0),
        ("strength 2", 2.0, 0),
    ]
    assert [len(side.scores.values["clip"]) for side in found] == [3, 3, 2, 2]
    assert all((side.steps, side.guidance_scale) == (4, 3.0) for side in found)
    digest = adapter_sha256(LoraWeights(2, 2.0, factors_by_module(tuned(parts))))
    assert [side.adapter_sha256 for side in found] == [None, digest, digest, digest]
    for side, name in zip(found, ("base", "tuned", "strength-0.5", "strength-2"), strict=True):
        assert side.clips == {i: f"evaluation/step-000007/{name}/{i:02d}.mp4" for i in range(2)}
    # the clip in the file is the one that was scored, enlarged from 32 to 256 pixels
    shown = read_clip(root / found[1].clips[1])
    assert shown.shape == (5, 3, 256, 256)
    small = shown[:, :, 4::8, 4::8]
    assert float((small - found[1].scores.clips[1]).abs().mean()) < 0.05


def test_a_strength_is_the_factor_of_the_adapter(
    loaded: tuple[Recipe, RunParts], done: tuple[list[Side], Path]
) -> None:
    """Half the strength is half of up: B A (x / 2) = (B / 2) A x."""
    (recipe, parts), (found, _) = loaded, done
    half = {n: t * (0.5 if "lora_B" in n else 1) for n, t in tuned(parts).items()}
    prompts = dict(enumerate(parts.held_out[:2]))
    expected = evaluate(
        parts.sampler, half, prompts, parts.judges, evaluation_sigmas(recipe), seed=recipe.seed
    )
    for name in ("clip", "motion"):
        assert found[2].scores.values[name] == pytest.approx(expected.values[name], abs=1e-5)
        assert found[2].scores.values[name] != pytest.approx(
            {i: found[1].scores.values[name][i] for i in prompts}, abs=1e-5
        )


def test_clips_are_of_a_format_that_browsers_play(done: tuple[list[Side], Path]) -> None:
    found, root = done
    assert all(side.clips for side in found)
    for path in (path for side in found for path in side.clips.values()):
        told = subprocess.run(
            [ffmpeg.executable(), "-i", str(root / path)], capture_output=True, check=False
        ).stderr.decode()
        assert "Video: h264" in told
        assert "yuv420p" in told


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("evaluation.strengths=[0.5, 0.5]", "each strength once"),
        ("evaluation.strengths=[1.0]", "each strength once, without 0 and 1"),
        ("evaluation.strengths=[-1.0]", "evaluation.strengths"),
        ("evaluation.strength_prompts=1", "evaluation.strength_prompts"),
    ],
)
def test_keys_are_checked(world: Path, override: str, text: str) -> None:
    with pytest.raises(TuningError, match=text):
        tiny_recipe(world, world / "run", override)
