"""Reward tuning of clips that follow pictures, videos, controls and cameras."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from base_model.errors import GeneratorError
from base_model.generator import TextCondition
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.files.frame_files import fitted, read_picture
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.inputs.run_conditions import conditions_hash
from reward_tuning.progress import silent
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import draw_batch
from reward_tuning.tuning.evaluation import evaluate
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
from reward_tuning.tuning.trainer import optimiser_step, run, start
from reward_tuning.tuning.views import rolled_out
from tests.goldens import write_checkpoint
from tests.reward_tuning.kinds import CHECKPOINTS, write_media
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CPU = torch.device("cpu")
SHORT = ("train.steps=2", "evaluation.prompts=2", "evaluation.seeds=1", "sampling.steps=3")
SIDE, FRAMES = 32, 5
ROWS: dict[int, list[dict[str, Any]]] = {
    33: [
        {"prompt": "a red ball", "image": "start.png"},
        {"prompt": "a dog runs", "image": "start.png", "end_image": "end.png"},
        {"prompt": "a blue cube", "video": "video.mp4", "mask": "mask.png"},
        {"prompt": "a green star"},
    ],
    48: [
        {"prompt": "a red ball", "control": "video.mp4", "control_type": "canny"},
        {"prompt": "a dog runs", "control": ["video.mp4", "other.mp4"]},
        {"prompt": "a blue cube", "trajectory": "points.json", "reference": "reference.png"},
    ],
    38: [
        {"prompt": "a red ball", "camera": "poses.txt", "reference": "reference.png"},
        {"prompt": "a dog runs", "camera": "pan left then zoom in", "camera_speed": 2.0},
    ],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(write_world(tmp_path_factory.mktemp("world")))


def prepared(
    world: Path, output: Path, channels: int, rows: list[dict[str, Any]] | None = None, *more: str
) -> tuple[Recipe, RunParts]:
    recipe = recipe_of(world, output, channels, rows, *more)
    return recipe, load_parts(recipe, CPU, 8, silent)


def recipe_of(
    world: Path, output: Path, channels: int, rows: list[dict[str, Any]] | None, *more: str
) -> Recipe:
    """The generator replaced, and a prompt file for training and held-out prompts."""
    generator = world / f"generator-{channels}"
    if not generator.exists():
        shutil.copytree(world / "generator", generator)
        write_checkpoint(generator, CHECKPOINTS[channels])
    rows = ROWS[channels] if rows is None else rows
    held = [{**row, "prompt": f"another {row['prompt']}"} for row in rows]
    for name, lines in (("train", rows), ("held", held)):
        (world / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tiny_recipe(
        world,
        output,
        f"generator.checkpoint={generator}",
        f"prompts.train={world / 'train.jsonl'}",
        f"prompts.held_out={world / 'held.jsonl'}",
        *SHORT,
        *more,
    )


@pytest.mark.slow
@pytest.mark.parametrize("channels", ROWS)
def test_a_run_from_end_to_end(world: Path, tmp_path: Path, channels: int) -> None:
    side = 48  # in smaller clips a trajectory's spot is too small to be drawn
    recipe = recipe_of(
        world, tmp_path / "run", channels, None, f"sampling.height={side}", f"sampling.width={side}"
    )
    result = run(recipe)
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["bad_steps"] for row in rows] == [0, 0]
    assert all(row["grad_norm"] > 0 for row in rows)
    assert result.evaluation["prompts"] == 2
    assert (tmp_path / "run" / "lora" / "adapter_config.json").is_file()
    assert any((tmp_path / "run" / "samples").rglob("*.mp4"))


@torch.no_grad()
def test_a_batch_has_each_prompts_own_condition(world: Path, tmp_path: Path) -> None:
    recipe, parts = prepared(world, tmp_path, 33)
    generator = parts.sampler.generator
    prompts = read_prompts(world / "train.jsonl")
    found = parts.sampler.condition(prompts)
    channels = found.positive.inpaint_latents
    assert channels is not None
    assert found.negative.inpaint_latents is not None
    assert torch.equal(found.negative.inpaint_latents, channels)
    assert channels[3].abs().max() == 0  # text alone

    image = fitted(read_picture(world / "start.png")[None], SIDE, SIDE)
    text = TextCondition(found.positive.text[:1], found.negative.text)
    seed = derive_seed(recipe.seed, "kept pixels", conditions_hash([prompts[0].files]))
    by_hand = generator.condition(text, image=image, frames=FRAMES, noise_seeds=[seed]).positive
    assert by_hand.inpaint_latents is not None
    torch.testing.assert_close(channels[:1], by_hand.inpaint_latents)
    assert parts.sampler.condition([prompts[3]]).positive.inpaint_latents is None
    assert parts.sampler.video(prompts) is None


@torch.no_grad()
def test_the_evaluation_follows_the_pictures(world: Path, tmp_path: Path) -> None:
    """The base's clip of a held-out prompt, by hand."""
    recipe, parts = prepared(world, tmp_path, 33)
    prompt = parts.held_out[0]
    sigmas = evaluation_sigmas(recipe)
    shown = evaluate(
        parts.sampler, None, {0: prompt}, [], sigmas, seed=recipe.seed, keep_clips=1
    ).clips[0]
    generator = parts.sampler.generator
    image = fitted(read_picture(world / "start.png")[None], SIDE, SIDE)
    seed = derive_seed(recipe.seed, "kept pixels", conditions_hash([prompt.files]))
    states = parts.sampler.states
    condition = generator.condition(
        TextCondition(states[prompt.text][None], states[""][None]),
        image=image,
        frames=FRAMES,
        noise_seeds=[seed],
    )
    noise = parts.sampler.noise([derive_seed(recipe.seed, "evaluation", 0, 0)])
    latents = euler_sample(
        generator, condition, noise, sigmas, Guidance(recipe.sampling.guidance_scale)
    )
    torch.testing.assert_close(shown, generator.decode(latents)[0])


def test_another_picture_gives_another_gradient(world: Path, tmp_path: Path) -> None:
    def first_norm(rows: list[dict[str, Any]]) -> float:
        recipe, parts = prepared(world, tmp_path, 33, rows, "train.batch_size=1")
        row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
        return float(row["grad_norm"])

    rows = [{"prompt": "a red ball", "image": "start.png"}] * 2
    norms = [
        first_norm(rows),
        first_norm(rows),
        first_norm([{**row, "image": "end.png"} for row in rows]),
        first_norm([{"prompt": row["prompt"]} for row in rows]),
    ]
    assert norms[0] == norms[1]
    assert len({round(norm, 9) for norm in norms}) == 3


@torch.no_grad()
def test_from_a_video_on(world: Path, tmp_path: Path) -> None:
    """`sampling.strength`: the rollout starts at the noised video, and runs the table's rest."""
    rows = [{"prompt": "a red ball", "video": "video.mp4"}] * 2
    recipe, parts = prepared(
        world, tmp_path, 33, rows, "sampling.strength=0.7", "method.active_steps=1"
    )
    sigmas = sigma_table(3)[1:]  # floor(3 * 0.7) of 3 steps
    assert torch.equal(parts.sigmas, sigmas)
    assert torch.equal(evaluation_sigmas(recipe), sigmas)
    batch = draw_batch(recipe, parts.stream, parts.sigmas, start(recipe, parts), Accelerator(), 0)
    walked = rolled_out(parts.sampler, batch, parts.sigmas)
    video = fitted(read_clip(world / "video.mp4")[:FRAMES], SIDE, SIDE)[None]
    latents = parts.sampler.generator.encode(video)
    noise = parts.sampler.noise(batch.noise_seeds)
    expected = (1 - sigmas[0]) * latents + sigmas[0] * noise
    torch.testing.assert_close(walked.views[0].states[0], expected)
    row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
    assert row["bad_steps"] == 0


def test_replayed_clips_of_the_base_follow_theirs(world: Path, tmp_path: Path) -> None:
    recipe = recipe_of(world, tmp_path / "run", 33, None, "train.replay={weight: 1.0, clips: 3}")
    result = run(recipe)
    assert result.steps == 2
    kept = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(row)["replay"] > 0 for row in kept)


def test_a_resumed_run_refuses_changed_pictures(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    shutil.copytree(world, folder)
    output = tmp_path / "run"
    recipe = recipe_of(folder, output, 33, None, "train.checkpoint_every=1")
    run(recipe)
    (output / "evaluation.json").unlink(missing_ok=True)
    shutil.copy(folder / "end.png", folder / "start.png")
    with pytest.raises(TuningError, match="conditions"):
        run(recipe, resume=True)


BAD: dict[str, tuple[int, list[dict[str, Any]], list[str], str]] = {
    "a text-to-video checkpoint": (
        16,
        [{"prompt": "a cat", "image": "start.png"}],
        [],
        r"'a cat': image .*start\.png: The transformer has 16 input channels, .* take the image",
    ),
    "a corrupt clip": (
        33,
        [{"prompt": "a cat", "video": "corrupt.mp4", "mask": "mask.png"}],
        [],
        r"'a cat': clip .*corrupt\.mp4: not a video",
    ),
    "no video": (
        33,
        [{"prompt": "a cat", "video": "video.mp4"}, {"prompt": "a dog"}],
        ["sampling.strength=0.7", "method.active_steps=1"],
        r"'a dog': strength 0\.7: below 1, sampling starts from a video, and none is given",
    ),
    "a short control": (
        48,
        [{"prompt": "a cat", "control": "short.mp4"}],
        [],
        r"short\.mp4: 3 frames are fewer than the clip's 5",
    ),
    "18 columns": (38, [{"prompt": "a cat", "camera": "columns.txt"}], [], r"columns\.txt, line 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_told_before_anything_is_loaded(
    world: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels, rows, more, message = BAD[name]
    recipe = recipe_of(world, tmp_path, channels, [*rows, *rows], *more)
    monkeypatch.setattr("reward_tuning.tuning.parts.load_judges", None)
    with pytest.raises((TuningError, GeneratorError), match=message):
        load_parts(recipe, CPU, 4, silent)


def test_more_active_steps_than_the_strength_leaves_are_told(world: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a cat", "video": "video.mp4"}] * 2
    with pytest.raises(
        TuningError, match=r"at most sampling\.steps \* sampling\.strength 0\.4 = 1"
    ):
        recipe_of(world, tmp_path, 33, rows, "sampling.strength=0.4")
    with pytest.raises(TuningError, match=r"strength: got 0\.1; leaves less than one of sampling"):
        recipe_of(world, tmp_path, 33, rows, "sampling.strength=0.1", "method.active_steps=1")


def test_prompts_without_anything_have_no_condition(world: Path, tmp_path: Path) -> None:
    _, parts = prepared(world, tmp_path, 33, [{"prompt": "a cat"}, {"prompt": "a dog"}])
    assert parts.sampler.conditions == {}
    assert "conditions" not in parts.fingerprints
    assert parts.sampler.condition([Prompt("a cat", "a cat")]).positive.inpaint_latents is None
