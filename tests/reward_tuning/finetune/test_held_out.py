"""Clips drawn from held-out rows: by the formula, for every kind, and no trace in the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from base_model.generator import Condition, GuidedCondition, load_generator
from base_model.sampling.guidance import Guidance, guided_velocity
from base_model.sampling.sigmas import sigma_table
from reward_tuning.files.clips import read_clip
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.held_out import sample_like
from reward_tuning.finetune.parts import load_finetune_parts
from reward_tuning.finetune.trainer import finetune
from reward_tuning.lora.adapter import load_adapter_state, scaled
from reward_tuning.progress import silent
from reward_tuning.seeds import derive_seed
from tests.reward_tuning.finetune.clip_folder import RECIPE, small_recipe, write_world_of_clips
from tests.reward_tuning.finetune.test_encoding import encoder
from tests.reward_tuning.kinds import write_kind, write_media

SAMPLED = (
    "train.sample_every=2",
    "samples.steps=2",
    "samples.count=2",
    "samples.guidance_scale=3",
    "data.held_out=2",
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def sampled(world: Path) -> Path:
    output = world / "sampled"
    finetune(small_recipe(world, output, *SAMPLED))
    return output


@pytest.mark.slow
def test_a_set_before_after_and_in_between(sampled: Path) -> None:
    found = sorted(str(p.relative_to(sampled / "samples")) for p in sampled.rglob("*.mp4"))
    steps = ("step-000000", "step-000002", "step-000004", "step-000006")
    assert found == [f"{step}/{i:02d}.mp4" for step in steps for i in range(2)]
    about = json.loads((sampled / "samples/prompts.json").read_text())
    assert [row["file"] for row in about] == ["00.mp4", "01.mp4"]
    assert len({row["seed"] for row in about}) == 2
    first, last = (read_clip(sampled / "samples" / s / "00.mp4") for s in (steps[0], steps[-1]))
    left = (first[..., :256] - last[..., :256]).abs().mean()
    right = (first[..., -256:] - last[..., -256:]).abs().mean()
    assert left < 0.005  # the held-out clip, before and after
    assert right > 3 * left  # the drawn one has moved with the weights


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 6])
def test_a_set_is_the_base_or_the_moving_average_by_the_formula(
    world: Path, sampled: Path, step: int
) -> None:
    """The file against Euler's formula with guidance from the empty prompt, written out."""
    recipe = small_recipe(world, world / "sampled", *SAMPLED)
    parts = load_finetune_parts(recipe, CPU, silent)
    assert parts.held_out is not None and parts.held_out_encoder is not None
    about = json.loads((sampled / "samples/prompts.json").read_text())
    generator, states = parts.generator, parts.held_out_encoder.states
    if step:
        average = load_file(sampled / f"checkpoints/step-{step:06d}/ema.safetensors")
        load_adapter_state(generator.transformer, average)
    for number, row in enumerate(about):
        planned = parts.held_out(number)
        assert row["seed"] == derive_seed(RECIPE["seed"], "samples", number)
        shape = generator.latent_shape(1, planned.frames, planned.height, planned.width)
        x, sigmas = generator.initial_noise(shape, [row["seed"]]), sigma_table(2)
        with torch.no_grad(), scaled(generator.transformer, float(step > 0)):
            for i in range(2):
                v_text = generator.velocity(x, sigmas[i], Condition(states[row["prompt"]][None]))
                v_empty = generator.velocity(x, sigmas[i], Condition(states[""][None]))
                x = x + (sigmas[i + 1] - sigmas[i]) * (v_empty + 3.0 * (v_text - v_empty))
            expected = generator.decode(x)[0]
        file = read_clip(sampled / f"samples/step-{step:06d}" / row["file"])
        enlarged = expected.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        assert file.shape[3] == 2 * 256 + 4 * 8  # 32 pixels each and the bar, eight times as large
        assert (file[..., -256:] - enlarged).abs().mean() < 0.02
        assert (file[..., -256:] - file[..., :256]).abs().mean() > 0.1


@pytest.mark.slow
def test_sampling_leaves_no_trace_in_the_training(
    world: Path, sampled: Path, tmp_path: Path
) -> None:
    none = tuple(o for o in SAMPLED if "sample_every" not in o)
    finetune(small_recipe(world, tmp_path / "run", *none, "samples.count=0"))
    assert not (tmp_path / "run/samples").exists()
    for name in ("adapter.safetensors", "ema.safetensors"):
        place = f"checkpoints/step-000006/{name}"
        assert (tmp_path / "run" / place).read_bytes() == (sampled / place).read_bytes()
    found, expected = ((f / "finetune.json").read_text() for f in (tmp_path / "run", sampled))
    assert found == expected


@pytest.mark.slow
def test_the_held_out_loss_is_in_the_rows_and_on_tensorboard(sampled: Path) -> None:
    rows = [json.loads(line) for line in (sampled / "metrics.jsonl").read_text().splitlines()]
    seen = {row["step"]: row["held_out"]["loss"] for row in rows if "held_out" in row}
    assert list(seen) == [2, 4]
    summary = json.loads((sampled / "finetune.json").read_text())
    board = EventAccumulator(str(sampled))
    board.Reload()
    curve = {event.step: event.value for event in board.Scalars("held_out/loss")}
    assert list(curve) == [0, 2, 4, 6]
    whole = {0: summary["base"]["loss"], **seen, 6: summary["tuned"]["loss"]}
    assert curve == pytest.approx(whole, rel=1e-5)
    assert len(board.Scalars("loss")) == len(board.Scalars("grad_norm")) == 6
    assert "held_out/0.9" in board.Tags()["scalars"]


@pytest.mark.parametrize(
    ("channels", "name"), [(33, "control.json"), (48, "control.json"), (38, "camera.json")]
)
def test_a_sample_follows_the_rows_own_channels(
    world: Path, tmp_path: Path, channels: int, name: str
) -> None:
    """Against Euler's steps under what a training step is given of the same row."""
    media = write_media(tmp_path)
    rows = [{"file_path": "video.mp4", "text": "a", "control_file_path": "other.mp4"}]
    (media / "control.json").write_text(json.dumps(rows))
    rows[0]["control_file_path"] = "poses.txt"
    (media / "camera.json").write_text(json.dumps(rows))
    generator = load_generator(write_kind(tmp_path / "kind", channels), text_encoder=False)
    recipe = small_recipe(world, world / "kinds", "samples.steps=2", "samples.guidance_scale=2.5")
    rows_of = encoder(generator, media, name)
    planned = ClipBatch(0, (0,), (1,), 5, 32, 48)
    found = sample_like(recipe, rows_of, planned, seed=7)
    given = rows_of(planned).condition
    field = generator.kind.field
    assert field is not None
    channels_of = getattr(given, field)
    assert channels_of.abs().max() > 0
    both = GuidedCondition(given, Condition(rows_of.states[""][None], **{field: channels_of}))
    x, sigmas = generator.initial_noise(generator.latent_shape(1, 5, 32, 48), [7]), sigma_table(2)
    with torch.no_grad():
        for i in range(2):
            v = guided_velocity(generator, x, sigmas[i], both, Guidance(2.5), "joint")
            x = x + (sigmas[i + 1] - sigmas[i]) * v
        expected = generator.decode(x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    without = {field: torch.zeros_like(channels_of)}
    blank = GuidedCondition(
        Condition(given.text, **without), Condition(rows_of.states[""][None], **without)
    )
    x = generator.initial_noise(generator.latent_shape(1, 5, 32, 48), [7])
    with torch.no_grad():
        v = guided_velocity(generator, x, sigmas[0], both, Guidance(2.5), "joint")
        assert (
            v - guided_velocity(generator, x, sigmas[0], blank, Guidance(2.5), "joint")
        ).abs().max() > 0
